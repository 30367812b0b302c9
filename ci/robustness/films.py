"""Odd films of the chest: pictures and arrays."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.reading import FILM_AFFINE

from .inputs import Scan, Writer, content, damaged, nifti, phantom, refused, right, several, warned

FILM = phantom("chest_xray", (96, 88), (4.0, 4.0)).reshaped(lambda pixels: pixels[::-1, ::-1], FILM_AFFINE)
"""Columns go to the patient's left and rows down, as pictures are stored."""

ROWS = FILM.images[""].T
EFFUSION = FILM.masks["_label"].T
UNREADABLE = "expected a readable picture, got one that is damaged or cut off"
GREY = "expected a picture in shades of grey"
ORIENTATION = 0x0112
"""Tag of EXIF that says how a picture is to be turned."""


def film(rows: NDArray[Any] = ROWS, ending: str = ".png", label: NDArray[Any] | None = None, **options: Any) -> Writer:
    """Write a film, and its label, if there is one."""

    def write(folder: Path) -> Scan:
        for name, pixels in (("image", rows), ("image_label", label)):
            if pixels is not None and ending == ".npy":
                np.save(folder / f"{name}{ending}", pixels)
            elif pixels is not None:
                Image.fromarray(pixels).save(folder / f"{name}{ending}", **options)
        masks = {} if label is None else {"_label": label.T}
        return Scan({"": rows.T}, masks, FILM_AFFINE)

    return write


def in_mode(mode: str, ending: str = ".png") -> Writer:
    """Write a film in another mode of Pillow."""

    def write(folder: Path) -> None:
        Image.fromarray(ROWS).convert(mode).save(folder / f"image{ending}")

    return write


def turned_by_exif(folder: Path) -> Scan:
    """Write a film lying on its side, whose EXIF data say how to turn it."""
    lying = Image.fromarray(ROWS).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    lying.save(folder / "image.png", exif=exif)
    return FILM.bare()


def two_frames(folder: Path) -> None:
    """Write an animation of two films."""
    first, second = Image.fromarray(ROWS), Image.fromarray(255 - ROWS)
    first.save(folder / "image.png", save_all=True, append_images=[second])


def as_jpeg(folder: Path) -> Scan:
    """Write a film as JPEG."""
    file = io.BytesIO()
    Image.fromarray(ROWS).save(file, "JPEG")
    (folder / "image.JPG").write_bytes(file.getvalue())
    return Scan({"": np.asarray(Image.open(file)).T}, {}, FILM_AFFINE)


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG without pixels, whose header says that there are many."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def npy_that_claims(shape: str) -> bytes:
    """Return an NPY file without numbers, whose header says that there are many."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header


def array(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Writer:
    """Write the film as an array, changed."""
    return film(np.asarray(change(ROWS)), ".npy")


def with_pixel(value: float) -> NDArray[np.uint16]:
    """Return the film with a hot pixel."""
    rows = ROWS.astype(np.uint16)
    rows[5, 5] = value
    return rows


NOISE = np.random.default_rng(0).integers(0, 256, ROWS.shape, dtype=np.uint8)

INPUTS = [
    right("PNG of 8 bits", film(label=EFFUSION)),
    right("PNG of 16 bits", film(ROWS * np.uint16(257))),
    right("JPEG with its ending in capitals", as_jpeg),
    right("array", array(lambda rows: rows)),
    right("array of half floats", array(lambda rows: rows.astype(np.float16))),
    right("array of truth values as label", several(film(ending=".npy", label=EFFUSION > 0))),
    right("array in the order of Fortran", array(lambda rows: np.asfortranarray(rows.astype(np.float32)))),
    right("turned by its EXIF data", turned_by_exif),
    right("empty label", film(label=0 * EFFUSION)),
    right("narrow film", film(ROWS[:, 20:70])),
    refused("colours", GREY, in_mode("RGB")),
    refused("colours and transparency", GREY, in_mode("RGBA")),
    refused("greys and transparency", GREY, in_mode("LA")),
    refused("palette", GREY, in_mode("P")),
    refused("black and white", GREY, in_mode("1")),
    refused("colours for print", GREY, in_mode("CMYK", ".jpg")),
    refused("two frames", "expected one picture, got 2 frames", two_frames),
    refused("picture cut off", UNREADABLE, damaged(film(), lambda b: b[: len(b) // 2], "image.png")),
    refused(
        "picture with a damaged byte",
        UNREADABLE,
        damaged(film(), lambda b: b[:900] + bytes([b[900] ^ 1]) + b[901:], "image.png"),
    ),
    refused("JPEG cut off", UNREADABLE, damaged(film(ending=".jpg"), lambda b: b[: len(b) // 2], "image.jpg")),
    refused("empty picture", UNREADABLE, content("image.png", "")),
    refused("page of a web server in its place", UNREADABLE, content("image.jpg", "<html>404: not found</html>")),
    refused("picture that claims to be huge", UNREADABLE, content("image.png", png_that_claims(99999, 99999))),
    refused("array that claims to be huge", UNREADABLE, content("image.npy", npy_that_claims("(9999999, 9999999)"))),
    refused("array of objects", UNREADABLE, array(lambda rows: rows.astype(object))),
    refused("array cut off", UNREADABLE, damaged(array(lambda rows: rows), lambda b: b[:-99], "image.npy")),
    refused("array with three axes", "expected a picture of rows and columns", array(lambda rows: rows[None])),
    refused("array without rows", "expected a picture of rows and columns", array(lambda rows: rows[:0])),
    refused("array of complex numbers", "expected one number a pixel", array(lambda rows: rows * 1j)),
    refused("array of texts", "expected one number a pixel", array(lambda rows: rows.astype(str))),
    refused("array of dates", "expected one number a pixel", array(lambda rows: rows.astype("M8[s]"))),
    refused("array with fields", "expected one number a pixel", array(lambda rows: rows.view([("grey", "u1")]))),
    refused("array with NaN", "pixels NaN or infinite", array(lambda rows: np.where(rows == rows.max(), np.nan, rows))),
    refused("array of more than float32 holds", "infinite in float32", array(lambda rows: rows * 1e300)),
    refused("one pixel", "the same value", film(ROWS[:1, :1])),
    refused("constant", "the same value 0 everywhere", film(0 * ROWS)),
    refused("label of another size", "expected the size of", film(label=EFFUSION[:, 1:])),
    refused("label of several greys", "expected a mask of the values 0, 1", film(label=EFFUSION // 2 + ROWS // 9)),
    refused("film in NIfTI", "an image of another kind", nifti(FILM.bare())),
    refused("film in TIFF", "an image of another kind", film(ending=".tif")),
    refused("film in DICOM", "DICOM, which is read of CT alone", content("image.dcm", bytes(128) + b"DICM")),
    warned("inverted", "as if its greys were inverted", film(255 - ROWS)),
    warned("hot pixel", "a few of its pixels are 65535", film(with_pixel(65535))),
    warned("noise", "looks like noise", film(NOISE)),
]
