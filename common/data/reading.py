"""Reading one file, NIfTI or film: voxels and affine, the same for checks, preparation and loading."""

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..files import BadFileError
from ..transforms.channels import FILMS

UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, ImageFileError, HeaderDataError)
"""What nibabel and gzip raise for a damaged file."""

GREYSCALE = ("L", "I;16")
"""Pillow's names for one channel of 8 or 16 bits."""

FILM_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Pixel to world of a film, whose pixels have no size in mm: columns go to the patient's left and rows down, as ITK and
3D Slicer lay pictures."""

MAX_VOXELS = 2**30
"""Voxels of the largest file that is read, 4 GiB as float32: a CT of 512 x 512 pixels and 4096 slices."""

SIZES_MM = (0.05, 20.0)
"""Between these lie the voxel sizes of scanners for people."""


def read_nifti(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels and the affine of a NIfTI file.

    Axes of length 1 after the third are dropped. For the affine see ``affine_of``.

    Raises:
        BadFileError: if the file is missing, damaged, shorter than its header says, of another number of axes, a slice
            that is not axial, or holds NaN, infinite values or what float32 cannot hold.
    """
    voxels, affine = read_image(path)
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
    voxels, affine = read_image(path)
    if voxels.ndim != 4 or voxels.shape[3] != number:
        raise BadFileError(f"{path}: expected {number} volumes, got {voxels.ndim} axes of {voxels.shape}.")
    return voxels, affine


def read_image(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels of a NIfTI file, whatever their axes are, and its affine, see ``read_nifti``."""
    path = Path(path)
    if not path.is_file():
        raise BadFileError(f"{path}: expected a NIfTI file, got none there.")
    try:
        image: Any = nib.load(path)
        if np.prod(image.shape, dtype=float) > MAX_VOXELS:
            size = " x ".join(map(str, image.shape))
            raise BadFileError(f"{path}: expected at most {MAX_VOXELS} voxels, got {size}.")
        affine = affine_of(image)
        voxels = np.asanyarray(image.dataobj)
        if path.suffix.lower() == ".gz":
            _read_to_the_end(path)
    except BadFileError:
        raise
    except UNREADABLE as error:
        raise BadFileError(
            f"{path}: expected a readable NIfTI file, got one that is damaged or cut off ({reason_of(error)})."
        ) from error
    if voxels.size == 0:
        raise BadFileError(f"{path}: expected a slice or a volume, got {voxels.ndim} axes of {voxels.shape}.")
    voxels = _as_float32(voxels, path, "voxel")
    voxels = voxels.reshape(voxels.shape[:3] + tuple(size for size in voxels.shape[3:] if size > 1))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadFileError(f"{path}: expected an affine that can be inverted, got {affine.tolist()}.")
    return voxels, affine


def affine_of(image: Any) -> NDArray[np.float64]:
    """Return the affine of a NIfTI image: the sform, or the qform where that alone agrees with the voxel sizes.

    Sizes of 1 mm agree with nothing, as they are what a writer puts that knows none.
    """
    header, affine = image.header, np.asarray(image.affine, dtype=np.float64)
    if "qform_code" not in header or not (header["qform_code"] and header["sform_code"]):
        return affine
    said, sizes = np.array(header.get_zooms()[:3], dtype=float), _sizes_mm(image, affine)
    unknown = np.allclose(said, 1) and not np.allclose(said, sizes, rtol=0.05)
    return affine if unknown or np.allclose(said, sizes) or not np.isfinite(affine).all() else header.get_qform()


def unusual_header(path: str | Path) -> list[str]:
    """Return what is to be warned of in the header of a NIfTI file that can be read, a clause for each thing."""
    image: Any = nib.load(path)
    header, clauses = image.header, []
    if "sform_code" in header and not (header["sform_code"] or header["qform_code"]):
        clauses.append("its header does not say how it lies (sform and qform have code 0), so sides may be exchanged")
    unit = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else "mm"
    if unit not in ("mm", "unknown"):
        clauses.append(f"its header gives sizes in {unit}, which are taken for mm")
    said, own = np.array(header.get_zooms()[:3], dtype=float), _sizes_mm(image, image.affine)
    sizes = _sizes_mm(image, affine_of(image))
    for others in [said] if np.allclose(own, 1) else [said, own]:  # an sform of 1 mm has lost them
        if not np.allclose(others, sizes, rtol=0.05):
            clauses.append(
                f"its header says voxels of {in_mm(others)} and of {in_mm(sizes)}, of which the latter are taken"
            )
    if (sizes < SIZES_MM[0]).any() or (sizes > SIZES_MM[1]).any():
        clauses.append(f"its voxels are {in_mm(sizes)}, which no scanner for people makes")
    last = image.dataobj.offset + image.dataobj.dtype.itemsize * int(np.prod(image.shape))
    if "sform_code" in header and _length_of(Path(path)) > last:
        clauses.append("its file goes on after the last voxel that its header tells of")
    return clauses


def _sizes_mm(image: Any, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sizes of voxels along an image's axes, three at the most, that an affine gives."""
    sizes: NDArray[np.float64] = np.linalg.norm(affine[:3, : len(image.header.get_zooms()[:3])], axis=0)
    return sizes


def _length_of(path: Path) -> int:
    """Return how many bytes a file has when it is unpacked, as gzip notes at its end."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def in_mm(sizes: Sequence[float] | NDArray[np.float64]) -> str:
    """Return sizes of a voxel in words."""
    return f"{' x '.join(f'{size:.3g}' for size in sizes)} mm"


def is_film(path: str | Path) -> bool:
    """Return whether a file's name has the ending of an X-ray."""
    return Path(path).suffix.lower() in FILMS


def read_film(path: str | Path) -> NDArray[np.float32]:
    """Return the pixels of an X-ray, or of its mask, shape (X, Y): columns first, turned as its EXIF data say.

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
            f"{path}: expected a readable picture, got one that is damaged or cut off ({reason_of(error)})."
        ) from error
    if pixels.ndim != 2 or pixels.size == 0:
        raise BadFileError(f"{path}: expected a picture of rows and columns, got an array of {pixels.shape}.")
    return _as_float32(pixels, path, "pixel").T


def _read_picture(path: Path) -> NDArray[Any]:
    """Return the rows of a picture in shades of grey."""
    with Image.open(path) as image:
        if image.mode not in GREYSCALE:
            raise BadFileError(f"{path}: expected a picture in shades of grey, got one of mode {image.mode}.")
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise BadFileError(f"{path}: expected one picture, got {frames} frames.")
        return np.asarray(ImageOps.exif_transpose(image))


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


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says, or its type."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read_to_the_end(path: Path) -> None:
    """Read what follows the last voxel too: the check sum of gzip, which nibabel does not get to."""
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass
