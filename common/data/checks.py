"""What can be wrong with a file, found before a run and said in one sentence."""

import gzip
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image

from ..transforms.channels import FILMS

UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, ImageFileError, HeaderDataError)
"""What nibabel and gzip raise for a damaged file."""

GREYSCALE = ("L", "I;16")
"""Pillow's names for one channel of 8 or 16 bits."""

FILM_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Pixel to world of a film, whose pixels have no size in mm: columns go to the patient's left and rows down, as ITK and
3D Slicer lay pictures."""

MIN_BACKGROUND = 0.2
"""Smallest share of voxels that are 0 in an MR without skull; it is about 0.8 in BraTS, which is not cropped."""


class BadFileError(ValueError):
    """A file that cannot be used; the message names it and says what was expected and what came."""


def read_nifti(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels and the affine of a NIfTI file.

    A fourth axis of one frame is dropped.

    Raises:
        BadFileError: if the file is missing, damaged, shorter than its header says, of another number of axes, a slice
            that is not axial, or holds NaN, infinite values or what float32 cannot hold.
    """
    voxels, affine = _load(Path(path))
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim not in (2, 3):
        raise BadFileError(f"{path}: expected a slice or a volume, got {voxels.ndim} axes of {voxels.shape}.")
    if voxels.ndim == 2 and abs(np.linalg.det(affine[:2, :2])) < 1e-9:
        raise BadFileError(f"{path}: expected an axial slice or a volume, got a slice with affine {affine.tolist()}.")
    return voxels, affine


def read_nifti_channels(path: str | Path, number: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels of a NIfTI file with several volumes, shape (X, Y, Z, ``number``), and its affine.

    Raises:
        BadFileError: as ``read_nifti`` does, and if there are more volumes or fewer.
    """
    voxels, affine = _load(Path(path))
    if voxels.ndim != 4 or voxels.shape[3] != number:
        raise BadFileError(f"{path}: expected {number} volumes, got {voxels.ndim} axes of {voxels.shape}.")
    return voxels, affine


def is_film(path: str | Path) -> bool:
    """Return whether a file's name has the ending of an X-ray."""
    return Path(path).suffix.lower() in FILMS


def read_film(path: str | Path) -> NDArray[np.float32]:
    """Return the pixels of an X-ray, or of its mask, shape (X, Y): columns first.

    Args:
        path: of a picture, or of an array in NPY, rows first, as pictures are stored.

    Raises:
        BadFileError: if the file is missing, damaged, coloured, no single image, or holds NaN, infinite values or what
            float32 cannot hold.
    """
    path = Path(path)
    if not path.is_file():
        raise BadFileError(f"{path}: expected a picture, got none there.")
    try:
        pixels = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _read_picture(path)
    except BadFileError:
        raise
    except (*UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFileError(
            f"{path}: expected a readable picture, got one that is damaged or cut off ({_reason(error)})."
        ) from error
    if pixels.ndim != 2 or pixels.size == 0:
        raise BadFileError(f"{path}: expected a picture of rows and columns, got an array of {pixels.shape}.")
    return _as_float32(pixels, path, "pixel").T


def _read_picture(path: Path) -> NDArray[Any]:
    """Return the rows of a picture in shades of grey."""
    with Image.open(path) as image:
        if image.mode not in GREYSCALE:
            raise BadFileError(f"{path}: expected a picture in shades of grey, got one of mode {image.mode}.")
        return np.asarray(image)


def _load(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels and the affine of a NIfTI file of any number of axes."""
    if not path.is_file():
        raise BadFileError(f"{path}: expected a NIfTI file, got none there.")
    try:
        image: Any = nib.load(path)
        voxels = np.asanyarray(image.dataobj)
        if path.suffix == ".gz":
            _read_to_the_end(path)
    except UNREADABLE as error:
        raise BadFileError(
            f"{path}: expected a readable NIfTI file, got one that is damaged or cut off ({_reason(error)})."
        ) from error
    if voxels.size == 0:
        raise BadFileError(f"{path}: expected a slice or a volume, got {voxels.ndim} axes of {voxels.shape}.")
    voxels = _as_float32(voxels, path, "voxel")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadFileError(f"{path}: expected an affine that can be inverted, got {affine.tolist()}.")
    return voxels, affine


def _as_float32(values: NDArray[Any], path: Path, element: str) -> NDArray[np.float32]:
    """Return the values of an image's pixels or voxels, refusing what is no finite number."""
    if values.dtype.kind not in "buif":
        raise BadFileError(f"{path}: expected one number a {element}, got values of type {values.dtype}.")
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        count = int((~np.isfinite(numbers)).sum())
        raise BadFileError(f"{path}: expected finite values, got {count} {element}s NaN or infinite in float32.")
    return numbers


def check_ct(voxels: NDArray[np.float32], path: str | Path) -> None:
    """Check that an image looks like a CT in HU.

    Raises:
        BadFileError: if it is constant, or its values are not plausible Hounsfield units.
    """
    _refuse_constant(voxels, path)
    low, high = float(voxels.min()), float(voxels.max())
    brightest = float(np.percentile(voxels, 99))
    # Something is below water in every CT; stored grey values, MR and rescaled images have nothing below 0. Padding
    # goes down to -3024 and metal up to 30000; what lies beyond has overflown its integer type.
    if low >= 0 or high - low < 50 or low < -10000 or brightest > 10000:
        raise BadFileError(
            f"{path}: expected a CT in Hounsfield units (air -1000, water 0), got values from {low:g} to {high:g}."
        )


def unusual_ct(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> list[str]:
    """Return what is to be warned of in a CT that can be used, a clause for each thing."""
    if np.array_equal(affine, np.eye(4)):
        return ["its affine is the identity, so its voxels of 1 mm are probably not their true size"]
    return []


def check_mr(voxels: NDArray[np.float32], path: str | Path) -> None:
    """Check that an image may be an MR, whose values have no unit.

    Raises:
        BadFileError: if it is constant.
    """
    _refuse_constant(voxels, path)


def check_film(pixels: NDArray[np.float32], path: str | Path) -> None:
    """Check that an image may be an X-ray, whose values have no unit.

    Raises:
        BadFileError: if it is constant.
    """
    _refuse_constant(pixels, path)


def unusual_mr(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> list[str]:
    """Return what is unlike BraTS in an MR of the brain, a clause for each thing.

    BraTS has the skull removed, 0 around the brain and voxels of 1 mm; what has learnt from it cannot be trusted where
    an image differs.

    Args:
        voxels: of one sequence, as the scanner scales them, shape (X, Y[, Z]).
        affine: voxel to world in mm.
    """
    background = float((voxels == 0).mean())
    spacing = np.linalg.norm(affine[:3, : voxels.ndim], axis=0)
    clauses = []
    if background < MIN_BACKGROUND:
        clauses.append(f"it does not look skull-stripped, as only {background:.1%} of its voxels are 0")
    if voxels.min() < -0.01 * voxels.max():  # less is what resampling leaves
        clauses.append(f"it has negative values, down to {voxels.min():g}, as if it were normalised already or no MR")
    if (abs(spacing - 1) > 0.2).any():
        clauses.append(
            f"its voxels are {' x '.join(f'{mm:.3g}' for mm in spacing)} mm, not about 1 mm in each direction"
        )
    return clauses


def check_same_grid(
    shape: Sequence[int], affine: NDArray[np.float64], mask_path: str | Path, image_path: str | Path
) -> NDArray[np.float32]:
    """Return a mask, or another sequence, that lies on the grid of its image.

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


def refuse_twins(cases: Iterable[tuple[str, Any]], advice: str) -> None:
    """Check that no two cases have one name.

    Args:
        cases: the name of each, and what or where it is.
        advice: what to do about twins.

    Raises:
        ValueError: naming the first two.
    """
    seen: dict[str, Any] = {}
    for case, what in cases:
        if case in seen:
            raise ValueError(f"two cases are called {case!r}: {seen[case]} and {what}; {advice}.")
        seen[case] = what


def _refuse_constant(voxels: NDArray[np.float32], path: str | Path) -> None:
    if voxels.min() == voxels.max():
        raise BadFileError(f"{path}: expected an image, got the same value {voxels.min():g} everywhere.")


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
