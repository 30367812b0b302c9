"""What an odd input is, and how one is written."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from common.phantoms.__main__ import PHANTOMS


class Scan(NamedTuple):
    """Images of a patient and their masks, on one grid.

    Attributes:
        images: voxels, by what the names of their files have after ``image``.
        masks: the same; ``_liver`` or ``_organ``, and ``_label``.
        affine: voxel to world in mm, RAS.
    """

    images: Mapping[str, NDArray[Any]]
    masks: Mapping[str, NDArray[Any]]
    affine: NDArray[np.float64]

    def changed(self, change: Callable[[NDArray[Any]], Any], *which: str) -> "Scan":
        """Return a scan whose images, or some of them, are changed; masks are as they were."""
        images = {k: np.asarray(change(v)) if k in which or not which else v for k, v in self.images.items()}
        return self._replace(images=images)

    def masked(self, change: Callable[[NDArray[Any]], Any], *which: str) -> "Scan":
        """Return a scan whose masks, or some of them, are changed."""
        masks = {k: np.asarray(change(v)) if k in which or not which else v for k, v in self.masks.items()}
        return self._replace(masks=masks)

    def reshaped(self, change: Callable[[NDArray[Any]], NDArray[Any]], affine: NDArray[np.float64]) -> "Scan":
        """Return a scan whose images and masks are changed alike, with another affine."""
        return self.changed(change).masked(change)._replace(affine=affine)

    def bare(self) -> "Scan":
        """Return a scan without masks."""
        return self._replace(masks={})

    def at(self, affine: NDArray[np.float64]) -> "Scan":
        """Return the same voxels elsewhere."""
        return self._replace(affine=affine)

    def turned(self, codes: str) -> "Scan":
        """Return the same scan stored along other axes, as ``LPS``."""
        turn = ornt_transform(io_orientation(self.affine), axcodes2ornt(codes))
        affine = self.affine @ inv_ornt_aff(turn, next(iter(self.images.values())).shape[:3])
        return self.reshaped(lambda voxels: apply_orientation(voxels, turn), affine)


FOUND, LISTED = TOGETHER = "found", "listed"
"""Where inputs lie that are one data set: a folder that is looked through, and one with ``dataset.json``."""

Writer = Callable[[Path], Scan | None]
"""Writes an input into a folder, and returns what it is in truth; nothing where it is to be refused."""


class Input(NamedTuple):
    """An odd input.

    Attributes:
        name: what is odd about it.
        outcome: ``refused`` with a sentence, ``right``, or ``warned``: done, with a remark.
        says: a part of the sentence or of the remark.
        write: see ``Writer``; each has a folder of its own.
        items: of a ``dataset.json`` that is shared with others, with paths in the input's own folder; without any, the
            folder is looked through, together with those of others.
        alone: the folder is a data set of its own, which has to be refused as a whole or not at all.
        settings: of the bundle, of one that is alone.
    """

    name: str
    outcome: str
    says: str
    write: Writer
    items: Sequence[Mapping[str, Any]] = ()
    alone: bool = False
    settings: Mapping[str, Any] = {}

    @property
    def place(self) -> str:
        """Where it lies: with others that are found, with others that are listed, or alone."""
        return "alone" if self.alone else LISTED if self.items else FOUND


def refused(name: str, says: str, write: Writer, **more: Any) -> Input:
    """Return an input that cannot be used."""
    return Input(name, "refused", says, write, **more)


def right(name: str, write: Writer, **more: Any) -> Input:
    """Return an input that is odd, and good."""
    return Input(name, "right", "", write, **more)


def warned(name: str, says: str, write: Writer, **more: Any) -> Input:
    """Return an input that can be used, with a remark."""
    return Input(name, "warned", says, write, **more)


def phantom(name: str, shape: Sequence[int], spacing: Sequence[float], endings: Mapping[str, str] = {}) -> Scan:
    """Return a patient who does not exist, with a lesion, see ``common.phantoms``."""
    patient = PHANTOMS[name].draw(300_000, shape, spacing, "a", True)
    affine = np.diag([*spacing, 1, 1][:4]).astype(float)
    affine[:3, 3] = np.round(patient.affine[:3, 3])
    return Scan(patient.images, {endings.get(k, f"_{k}"): v for k, v in patient.masks.items()}, affine)


def nifti(scan: Scan, truth: Scan | None = None, ending: str = ".nii.gz", name: str = "image") -> Writer:
    """Write a scan as NIfTI, each image and mask a file; it is the truth itself, unless another one is given."""

    def write(folder: Path) -> Scan:
        for suffix, voxels in [*scan.images.items(), *scan.masks.items()]:
            save(voxels, folder / f"{name}{suffix}{ending}", scan.affine)
        return truth or scan

    return write


def save(voxels: NDArray[Any], path: Path, affine: NDArray[np.float64]) -> None:
    """Write a NIfTI file with sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(content_of(voxels, affine), path))


def content_of(voxels: NDArray[Any], affine: NDArray[np.float64], kind: Any = nib.Nifti1Image) -> bytes:
    """Return a NIfTI file without compression."""
    image = kind(voxels, affine, dtype=voxels.dtype)
    image.set_sform(affine, 1)
    if np.isclose(affine[:3, :3].T @ affine[:3, :3], np.diag(image.header["pixdim"][1:4] ** 2), atol=1e-3).all():
        image.set_qform(affine, 1)  # which cannot be sheared
    content: bytes = image.to_bytes()
    return content


def packed(content: bytes | bytearray, path: Path) -> bytes:
    """Return what a file of that name holds, the same each time."""
    return gzip.compress(content, 0, mtime=0) if path.name.lower().endswith("gz") else bytes(content)


def patched(scan: Scan, truth: Scan | None = None, ending: str = ".nii.gz", **fields: Any) -> Writer:
    """Write a scan as NIfTI whose headers say something else in some of their fields."""

    def write(folder: Path) -> Scan | None:
        for suffix, voxels in [*scan.images.items(), *scan.masks.items()]:
            content = bytearray(content_of(voxels, scan.affine))
            header = np.frombuffer(content, nib.nifti1.header_dtype, count=1)
            for field, value in fields.items():
                header[field] = value
            path = folder / f"image{suffix}{ending}"
            path.write_bytes(packed(content, path))
        return truth

    return write


def damaged(
    write: Writer, change: Callable[[bytes], bytes], name: str = "image.nii.gz", truth: Scan | None = None
) -> Writer:
    """Write an input, and then change the bytes of one of its files."""

    def damage(folder: Path) -> Scan | None:
        write(folder)
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return truth

    return damage


def content(name: str, what: bytes | str) -> Writer:
    """Write one file."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes(what if isinstance(what, bytes) else what.encode())

    return write


def several(*writers: Writer) -> Writer:
    """Write one after the other; the last one says what the input is in truth."""

    def write(folder: Path) -> Scan | None:
        truth = None
        for each in writers:
            truth = each(folder)
        return truth

    return write
