"""Odd series of DICOM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dicom_series import INTERCEPT, pydicom, set_pixels, write_series
from .ct import AFFINE, BARE, HU, SHEARED
from .inputs import Scan, Writer, content, refused, right, several


def series(scan: Scan = BARE, **options: Any) -> Writer:
    """Write a scan as a series, see ``write_series``."""

    def write(folder: Path) -> Scan:
        write_series(folder, scan.images[""], scan.affine, **options)
        return scan

    return write


def with_slices(change: Callable[[list[Path]], object], truth: Scan | None = None) -> Writer:
    """Write a series and change its files, which come in their order from the feet."""

    def write(folder: Path) -> Scan | None:
        change(write_series(folder, HU, AFFINE))
        return truth

    return write


def tagged(which: int | slice, truth: Scan | None = None, **tags: Any) -> Writer:
    """Write a series with other tags in some of its slices."""

    def change(files: list[Path]) -> None:
        for path in files[which] if isinstance(which, slice) else [files[which]]:
            data = pydicom.dcmread(path)
            for keyword, value in tags.items():
                if value is None:
                    delattr(data, keyword)
                else:
                    setattr(data, keyword, value)
            data.save_as(path)

    return with_slices(change, truth)


def without_preamble(which: slice) -> Writer:
    """Write a series, some of whose files begin with their first tag, in implicit encoding."""

    def change(files: list[Path]) -> None:
        for path in files[which]:
            data = pydicom.dcmread(path)
            del data.file_meta
            data.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)

    return with_slices(change, BARE)


def rescaled(compression: str | None = None) -> Writer:
    """Write a series each of whose slices has a slope of its own."""
    slopes = [0.5, 1.0, 2.0, 4.0]
    hu = HU // 4 * 4

    def change(files: list[Path]) -> None:
        for k, (path, slope) in enumerate(zip(files, slopes, strict=True)):
            data = pydicom.dcmread(path)
            data.RescaleSlope, data.RescaleIntercept = slope, INTERCEPT
            set_pixels(data, ((hu[:, :, k].T - INTERCEPT) / slope).astype(np.uint16))
            if compression:
                data.compress(compression, generate_instance_uid=False)
            data.save_as(path)

    return with_slices(change, BARE.changed(lambda _: hu))


def signed(data: Any, pixels: NDArray[Any]) -> None:
    """Let a slice store HU as they are, with sign."""
    set_pixels(data, pixels.T.astype(np.int16).view(np.uint16))
    data.PixelRepresentation, data.RescaleIntercept = 1, 0


def with_overlay_in_high_bits(data: Any, pixels: NDArray[Any]) -> None:
    """Let a slice use 12 bits, and have an old overlay in those above."""
    stored = (pixels.T - INTERCEPT).astype(np.uint16)
    set_pixels(data, stored | np.where(np.indices(stored.shape).sum(0) % 7 == 0, 1 << 12, 0).astype(np.uint16))
    data.BitsStored, data.HighBit = 12, 11


def each(change: Callable[[Any, NDArray[Any]], None], truth: Scan | None = BARE) -> Writer:
    """Write a series and change each of its slices, given its HU."""

    def change_all(files: list[Path]) -> None:
        for k, path in enumerate(files):
            data = pydicom.dcmread(path)
            change(data, HU[:, :, k])
            data.save_as(path)

    return with_slices(change_all, truth)


def copied(files: list[Path]) -> None:
    """Put a slice there a second time."""
    files[1].with_name("copy_1").write_bytes(files[1].read_bytes())


INPUTS = [
    right("series of DICOM", series()),
    right("series without preambles", without_preamble(slice(None))),
    right("last slices without preambles", without_preamble(slice(2, None))),
    right("series of a tilted gantry", series(BARE.at(SHEARED))),
    right("slopes that differ", rescaled()),
    right("slopes that differ, RLE", rescaled(pydicom.uid.RLELossless)),
    right("slopes that differ, JPEG 2000", rescaled(pydicom.uid.JPEG2000Lossless)),
    right("slopes that differ, JPEG-LS", rescaled(pydicom.uid.JPEGLSLossless)),
    right("stored with sign", each(signed)),
    right("12 bits with an overlay in those above", each(with_overlay_in_high_bits)),
    right("one number for all slices", tagged(slice(None), BARE, InstanceNumber=1)),
    right("white and black exchanged for display", tagged(slice(None), BARE, PhotometricInterpretation="MONOCHROME1")),
    right("a file of notes beside the slices", several(content("README", "notes"), series())),
    right("slices that are called by UIDs", series(name="1.2.840.113619.2.{}")),
    right("slices that end in .IMA", series(name="CT{}.IMA")),
    refused("slice that is an empty file", "got an empty file", with_slices(lambda f: f[-1].write_bytes(b""))),
    refused("slice that is cut off", "image_", with_slices(lambda f: f[-1].write_bytes(f[-1].read_bytes()[:-999]))),
    refused(
        "slice that is cut off in its header",
        "image_",
        with_slices(lambda f: f[-1].write_bytes(f[-1].read_bytes()[:400])),
    ),
    refused("slice that is a text", "got a file that is no DICOM", with_slices(lambda f: f[-1].write_text("404"))),
    refused("missing slice", "slices are missing or misplaced", with_slices(lambda f: f[1].unlink())),
    refused("double slice", "expected one slice at each position", with_slices(copied)),
    refused("slice at no place", "ImagePositionPatient", tagged(2, ImagePositionPatient=None)),
    refused("slice at a place that is no number", "image_", tagged(2, ImagePositionPatient=["nan", "nan", "nan"])),
    refused("slice at a place of two numbers", "image_", tagged(2, ImagePositionPatient=[0, 0])),
    refused("RescaleSlope that is no number", "finite numbers", tagged(2, RescaleSlope="nan")),
    refused("pixels of no size", "a pixel spacing above 0 mm", tagged(slice(None), PixelSpacing=[0, 0])),
    refused("pixels of a size that is no number", "image_", tagged(slice(None), PixelSpacing=["nan", "nan"])),
    refused(
        "axes that are not at right angles",
        "two unit vectors",
        tagged(slice(None), ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
    ),
    refused("no RescaleSlope", "expected RescaleSlope", tagged(slice(None), RescaleSlope=None)),
    refused("no RescaleSlope in one slice", "expected RescaleSlope", tagged(1, RescaleSlope=None)),
    refused("RescaleSlope of 0", "expected", tagged(slice(None), RescaleSlope=0)),
    refused("RescaleType US", "expected a RescaleType of HU", tagged(slice(None), RescaleType="US")),
    refused("two patients", "expected slices of one PatientID", tagged(1, PatientID="another")),
    refused(
        "two frames of reference", "expected slices of one FrameOfReferenceUID", tagged(1, FrameOfReferenceUID="1.9")
    ),
    refused("enhanced image of several frames", "got an enhanced image", tagged(slice(None), NumberOfFrames=4)),
    refused("scout among the slices", "got a scout", tagged(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    refused("MR series for CT", "expected modality CT", tagged(slice(None), Modality="MR")),
    refused(
        "slices of two sizes",
        "expected size, orientation and pixel spacing",
        each(
            lambda data, hu: set_pixels(
                data, (hu[: 50 + int(data.SOPInstanceUID[-1])].T - INTERCEPT).astype(np.uint16)
            ),
            None,
        ),
    ),
    refused("pixels of two sizes", "expected size, orientation and pixel spacing", tagged(1, PixelSpacing=[5, 5])),
    refused(
        "slices of two orientations",
        "expected size, orientation and pixel spacing",
        tagged(1, ImageOrientationPatient=[0, 1, 0, 1, 0, 0]),
    ),
    refused("three values a pixel", "expected one value a pixel", tagged(1, SamplesPerPixel=3)),
    refused(
        "two series in a folder",
        "expected one DICOM series in a folder, got 2",
        several(series(uid="1.5", name="b{}"), series()),
    ),
]
