"""What can be wrong with a file, found before a run and said in one sentence."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, ImageFileError, HeaderDataError)
"""What nibabel and gzip raise for a damaged file."""


class BadFileError(ValueError):
    """A file that cannot be used; the message names it and says what was expected and what came."""


def read_nifti(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels and the affine of a NIfTI file.

    A fourth axis of one frame is dropped.

    Raises:
        BadFileError: if the file is missing, damaged, shorter than its header says, of another number of axes, a slice
            that is not axial, or holds NaN, infinite values or what float32 cannot hold.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFileError(f"{path}: expected a NIfTI file, got none there.")
    try:
        image: Any = nib.load(path)
        voxels = np.asanyarray(image.dataobj)
        if path.suffix == ".gz":
            _read_to_the_end(path)
    except UNREADABLE as error:
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
    with np.errstate(over="ignore"):
        voxels = voxels.astype(np.float32)
    if not np.isfinite(voxels).all():
        number = int((~np.isfinite(voxels)).sum())
        raise BadFileError(f"{path}: expected finite values, got {number} voxels NaN or infinite in float32.")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadFileError(f"{path}: expected an affine that can be inverted, got {affine.tolist()}.")
    if voxels.ndim == 2 and abs(np.linalg.det(affine[:2, :2])) < 1e-9:
        raise BadFileError(f"{path}: expected an axial slice or a volume, got a slice with affine {affine.tolist()}.")
    return voxels, affine


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
        BadFileError: if it cannot be read, has another shape, or its corners are off by a quarter of a voxel or more.
    """
    mask, mask_affine = read_nifti(mask_path)
    if mask.shape != tuple(shape):
        raise BadFileError(f"{mask_path}: expected the grid of {image_path}, shape {tuple(shape)}, got {mask.shape}.")
    apart = np.linalg.norm(_corners(shape, mask_affine) - _corners(shape, affine), axis=1).max()
    voxel = np.linalg.norm(affine[:3, :3], axis=0).min()
    if apart > voxel / 4:  # less is the rounding of headers
        raise BadFileError(
            f"{mask_path}: expected the affine of {image_path}, got one that moves a corner by {apart:.3g} mm."
        )
    return mask


def _read_to_the_end(path: Path) -> None:
    """Read what follows the last voxel too: the check sum of gzip, which nibabel does not get to."""
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass


def _corners(shape: Sequence[int], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the corners of a grid are in the world, mm, shape (8, 3)."""
    sizes = (*shape, 1)[:3]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in sizes], indexing="ij")).reshape(3, -1)
    return (affine[:3, :3] @ corners + affine[:3, 3:]).T
