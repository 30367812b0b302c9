"""DICOM series of CT slices, read as volumes in Hounsfield units."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import
from numpy.typing import NDArray

from ..files import BadFileError
from .checks import check_ct

SLICE_SUFFIXES = (".dcm", ".ima", ".dicom")
"""Endings of files that hold slices; others have no ending and a number, or end in one, as UIDs do."""

GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")

RESCALE = ("RescaleSlope", "RescaleIntercept")
"""What makes Hounsfield units of stored values; mandatory in a CT."""

POSITION_TOLERANCE = 0.01
"""How far a slice may be from its place on an even grid, in parts of the spacing."""

ROUNDING_MM = 0.1
"""The same in mm, whichever is larger: where a header rounds positions to 0.1 mm, slices are off by up to this."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Slice:
    """One file: pixels (X, Y), where the first is (mm, LPS), the steps along X and Y (mm, LPS), and whose it is."""

    path: Path
    pixels: NDArray[np.float32]
    position: NDArray[np.float64]
    steps: NDArray[np.float64]
    thickness: float
    identity: dict[str, str]


def holds_dicom(files: Iterable[str | Path]) -> bool:
    """Return whether there is DICOM among files, whatever their names."""
    return any(_is_dicom(Path(path)) for path in files)


def series_in(folder: str | Path) -> dict[str, list[Path]]:
    """Return the files of each series of images that lie directly in a folder, by SeriesInstanceUID.

    Files of any name are looked at, with the preamble of DICOM or without. Those that are not DICOM are named in the
    log; DICOM without an image (reports, DICOMDIR) is passed over.

    Raises:
        BadFileError: for a DICOM file whose header cannot be read, and for one that is named as slices are, beside
            slices, and is none: the volume would lack it.
        ImportError: if pydicom is missing or too old.
    """
    pydicom = _pydicom()
    series: dict[str, list[Path]] = {}
    others = []
    for path in sorted(Path(folder).iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        with _naming(path):
            if not _is_dicom(path):
                others.append(path)
                continue
            tags = ["SeriesInstanceUID", "Rows"]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            kind = header.file_meta.get("MediaStorageSOPClassUID", pydicom.uid.UID("")).name
        if "Rows" in header:
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(path)
        elif not kind or kind.endswith("Image Storage"):  # pydicom says nothing of a header that is cut off
            raise BadFileError(f"{path}: expected a DICOM image, got one that is cut off within its header.")
    for path in others if series else []:
        if path.suffix.lower() in SLICE_SUFFIXES or re.fullmatch(r"[^.]*\d[^.]*|.*\.\d+", path.name):
            what = "an empty file" if path.stat().st_size == 0 else "a file that is no DICOM"
            raise BadFileError(
                f"{path}: expected a DICOM slice as those beside it, got {what}: the volume would lack it."
            )
        logger.info(f"left out: {path}: no DICOM")
    return dict(sorted(series.items()))


def _is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM, or, without preamble, begins as its data do."""
    with open(path, "rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    group, element, vr = start[:2], start[2:4], start[4:8]
    length = int.from_bytes(vr, "little")
    typed = vr[:2].isalpha() and vr[:2].isupper()
    return len(vr) == 4 and group in (b"\2\0", b"\10\0") and element[1:] == b"\0" and (typed or length <= 1024)


def patient_of(path: str | Path) -> str | None:
    """Return a pseudonym of a DICOM file's patient, or None if it names none.

    It is a hash of PatientID, so that what is derived from the file does not hold the ID itself; who knows the IDs can
    still tell which is which.

    Raises:
        BadFileError: if the header cannot be read.
        ImportError: if pydicom is missing or too old.
    """
    with _naming(Path(path)):
        header = _pydicom().dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
        patient = str(header.get("PatientID") or "").strip()
    return hashlib.sha256(patient.encode()).hexdigest()[:12] if patient else None


def read_series(
    source: str | Path | Sequence[str | Path],
    hu: bool = True,
    pixels: Callable[[Path], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the voxels of a DICOM series and its affine.

    Slices are sorted by their position along the normal of the first, whatever the files are called. They must lie on
    one even line, up to 1 % of the spacing or 0.1 mm; the line may be slanted (gantry tilt), the affine then has a
    shear. The thickness of a single slice is SliceThickness, or 1 mm.

    Args:
        source: a folder with one series, or the files of one.
        hu: apply RescaleSlope and RescaleIntercept of each slice, and accept nothing but a plausible CT; false returns
            the stored values of any modality, for masks.
        pixels: gives what stands in the place of a file's own pixels, such as a mask in a picture, shape (X, Y).

    Returns:
        Voxels of shape (X, Y, Z), X along a row of pixels, and the affine from these to world coordinates in mm, RAS.

    Raises:
        BadFileError: if a file cannot be read or decoded, is no CT slice or a scout; if slices are missing, double,
            unevenly spaced, or differ in size, orientation or pixel spacing; if the folder holds no series, or several;
            if the values are no Hounsfield units.
        ImportError: if pydicom is missing or too old.
    """
    if isinstance(source, str | Path):
        source = Path(source)
        series = series_in(source)
        if len(series) != 1:
            raise BadFileError(
                f"{source}: expected one DICOM series in a folder, got {len(series)}"
                f"{': ' if series else ''}{', '.join(series)}."
            )
        (files,) = series.values()
    else:
        files = [Path(path) for path in source]
        source = files[0].parent
    voxels, affine = _stack([_read_slice(path, hu, pixels) for path in files], source)
    if hu:
        check_ct(voxels, source)
    return voxels, affine


def _stack(slices: list[_Slice], source: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    first = slices[0]
    for other in slices[1:]:
        if other.pixels.shape != first.pixels.shape or not np.allclose(other.steps, first.steps, atol=1e-4):
            raise BadFileError(
                f"{other.path}: expected size, orientation and pixel spacing of {first.path.name}, "
                f"{_grid(first)}, got {_grid(other)}."
            )
        differs = [key for key, value in other.identity.items() if value != first.identity[key]]
        if differs:
            raise BadFileError(
                f"{other.path}: expected slices of one {differs[0]}, got another one in {first.path.name}: "
                "these are of two patients or two scans."
            )
    normal = np.cross(*first.steps)
    normal /= np.linalg.norm(normal)
    slices = sorted(slices, key=lambda slice_: float(slice_.position @ normal))
    positions = np.array([slice_.position for slice_ in slices])
    step = normal * first.thickness if len(slices) == 1 else (positions[-1] - positions[0]) / (len(slices) - 1)
    _refuse_uneven(slices, positions, step, normal, source)

    affine = np.eye(4)
    affine[:3] = np.column_stack([*first.steps, step, positions[0]])
    affine[:2] *= -1  # LPS, DICOM's world, to RAS, NIfTI's
    return np.stack([slice_.pixels for slice_ in slices], axis=-1), affine


def _refuse_uneven(slices: list[_Slice], positions: NDArray, step: NDArray, normal: NDArray, source: Path) -> None:
    if len(slices) == 1:
        return
    gaps = np.diff(positions @ normal)
    if gaps.min() < 1e-3:
        twins = slices[int(gaps.argmin())], slices[int(gaps.argmin()) + 1]
        raise BadFileError(
            f"{source}: expected one slice at each position, got {twins[0].path.name} and {twins[1].path.name} at one."
        )
    off_mm = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * step).max()
    if off_mm > max(POSITION_TOLERANCE * float(np.linalg.norm(step)), ROUNDING_MM) + 1e-6:
        raise BadFileError(
            f"{source}: expected slices every {np.median(gaps):.4g} mm along a line, got gaps of {gaps.min():.4g} to "
            f"{gaps.max():.4g} mm, the largest after {slices[int(gaps.argmax())].path.name}, and positions "
            f"{off_mm:.3g} mm off: slices are missing or misplaced."
        )


def _read_slice(path: Path, hu: bool, other: Callable[[Path], NDArray[np.float32]] | None) -> _Slice:
    with _naming(path):
        data = _pydicom().dcmread(path, force=True)
        if "TransferSyntaxUID" not in data.file_meta:  # without preamble; the encoding is found by looking
            uid = _pydicom().uid
            implicit, _ = data.original_encoding
            data.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        _refuse_other_images(data, path, hu)
        orientation = np.array(data.ImageOrientationPatient, dtype=float).reshape(2, 3)
        # PixelSpacing is the distance of rows, then of columns; the first axis here runs along a row.
        spacing = np.array(data.PixelSpacing, dtype=float).reshape(2)[::-1, None]
        position = np.array(data.ImagePositionPatient, dtype=float).reshape(3)
        thickness = float(data.get("SliceThickness") or 1)
        slope, intercept = (float(data.RescaleSlope), float(data.RescaleIntercept)) if hu else (1.0, 0.0)
        pixels = data.pixel_array.T if other is None else other(path)
        if hu:
            pixels = pixels * slope + intercept
    if pixels.shape != (data.Columns, data.Rows):
        size = f"{data.Columns} x {data.Rows}"
        raise BadFileError(f"{path}: expected pixels of its own size, {size}, in its place, got {pixels.shape}.")
    numbers = [*position.tolist(), *spacing.ravel().tolist(), thickness, slope, intercept]
    if not np.isfinite(numbers).all():
        raise BadFileError(
            f"{path}: expected a position, sizes and a rescale of finite numbers in the header, got {numbers}."
        )
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-3) or not (spacing > 0).all():
        raise BadFileError(
            f"{path}: expected an orientation of two unit vectors at right angles and a pixel spacing above 0 mm, "
            f"got {orientation.tolist()} and {spacing.ravel().tolist()}."
        )
    identity = {key: str(data.get(key) or "") for key in ("PatientID", "FrameOfReferenceUID")}
    return _Slice(path, pixels.astype(np.float32), position, orientation * spacing, thickness, identity)


def _refuse_other_images(data: Any, path: Path, hu: bool) -> None:
    """Refuse what is no slice of a CT in the classic form."""
    if "PixelData" not in data:  # pydicom gives what it could read
        raise BadFileError(f"{path}: expected a DICOM image, got one without pixels: it is cut off.")
    modality = data.get("Modality")
    if hu and modality != "CT":
        raise BadFileError(f"{path}: expected modality CT, as only CT has Hounsfield units, got {modality}.")
    if "PerFrameFunctionalGroupsSequence" in data or int(data.get("NumberOfFrames") or 1) > 1:
        raise BadFileError(
            f"{path}: expected one slice a file, got an enhanced image of {data.get('NumberOfFrames')} frames; "
            "convert it to NIfTI first, for example with dcm2niix."
        )
    if "LOCALIZER" in (data.get("ImageType") or ()):
        raise BadFileError(f"{path}: expected a slice, got a scout (ImageType LOCALIZER).")
    missing = [keyword for keyword in GEOMETRY if not data.get(keyword)]
    missing += [keyword for keyword in RESCALE if hu and data.get(keyword) is None]
    if missing:
        raise BadFileError(f"{path}: expected {' and '.join(missing)} in the header, got none.")
    if hu and data.get("RescaleType", "HU") not in ("HU", "", None):
        raise BadFileError(f"{path}: expected a RescaleType of HU, got {data.RescaleType}.")
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise BadFileError(f"{path}: expected one value a pixel, got {data.SamplesPerPixel}.")


def _grid(slice_: _Slice) -> str:
    x, y = slice_.pixels.shape
    return f"{x} x {y} pixels with steps of {np.round(slice_.steps, 4).tolist()} mm"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a sentence that names it."""
    try:
        yield
    except (BadFileError, ImportError):
        raise
    except Exception as error:  # pydicom and its decoders raise all kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadFileError(
            f"{path}: expected a DICOM slice that can be read and decoded, got one that cannot ({reason})."
        ) from error


def _pydicom() -> Any:
    pydicom, found = optional_import("pydicom", "3.0")
    if not found:
        raise ImportError(
            "DICOM needs pydicom 3 or newer and its decoders, which are missing or too old here: "
            'pip install "monai-diffusion-bundles[dicom]".'
        )
    return pydicom
