"""What can be wrong with a file, found before a run and said in one sentence."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray


class BadFileError(ValueError):
    """A file that cannot be used; the message names it and says what was expected and what came."""


def read_nifti(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels and the affine of a NIfTI file.

    A fourth axis of one frame is dropped.

    Raises:
        BadFileError: if the file is missing, damaged, shorter than its header says, of another number of axes, or holds
            NaN or infinite values.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFileError(f"{path}: expected a NIfTI file, got none there.")
    try:
        image: Any = nib.load(path)
        voxels = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadFileError(
            f"{path}: expected a readable NIfTI file, got one that is damaged or cut off ({reason})."
        ) from error
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim not in (2, 3) or 0 in voxels.shape:
        raise BadFileError(f"{path}: expected a slice or a volume, got {voxels.ndim} axes of {voxels.shape}.")
    if voxels.dtype.names is not None or np.iscomplexobj(voxels):
        raise BadFileError(f"{path}: expected one number a voxel, got values of type {voxels.dtype}.")
    if not np.isfinite(voxels).all():
        raise BadFileError(
            f"{path}: expected finite values, got {int((~np.isfinite(voxels)).sum())} voxels NaN or infinite."
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadFileError(f"{path}: expected an affine that can be inverted, got {affine.tolist()}.")
    return voxels.astype(np.float32), affine


def check_ct(voxels: NDArray[np.float32], path: str | Path) -> None:
    """Check that an image looks like a CT in HU.

    Raises:
        BadFileError: if it is constant, or its values are not plausible Hounsfield units.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if low == high:
        raise BadFileError(f"{path}: expected an image, got the same value {low:g} everywhere.")
    brightest = float(np.percentile(voxels, 99))
    # Something is below water in every CT; stored grey values, MR and rescaled images have nothing below 0. Padding
    # goes down to -3024 and metal up to 30000; what lies beyond has overflown its integer type.
    if low >= 0 or high - low < 50 or low < -10000 or brightest > 10000:
        raise BadFileError(
            f"{path}: expected a CT in Hounsfield units (air -1000, water 0), got values from {low:g} to {high:g}."
        )


def check_same_grid(
    shape: Sequence[int], affine: NDArray[np.float64], mask_path: str | Path, image_path: str | Path
) -> NDArray[np.float32]:
    """Return a mask that lies on the grid of its image.

    Raises:
        BadFileError: if it cannot be read, or has another shape or affine.
    """
    mask, mask_affine = read_nifti(mask_path)
    if mask.shape != tuple(shape):
        raise BadFileError(f"{mask_path}: expected the grid of {image_path}, shape {tuple(shape)}, got {mask.shape}.")
    if not np.allclose(mask_affine, affine, atol=1e-2):
        apart = float(np.abs(mask_affine - affine).max())
        raise BadFileError(
            f"{mask_path}: expected the affine of {image_path}, got one that differs by up to {apart:.3g}."
        )
    return mask


def _corners(shape: Sequence[int], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the corners of a grid are in the world, mm, shape (8, 3)."""
    sizes = (*shape, 1)[:3]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in sizes], indexing="ij")).reshape(3, -1)
    return (affine[:3, :3] @ corners + affine[:3, 3:]).T
