"""What is found in a downloaded data set, and what the readers of all body regions share."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...files import BadFileError
from ...transforms.channels import image_stem
from ..checks import check_ct, check_same_grid, refuse_other_values
from ..reading import read_nifti

T = TypeVar("T")


class Channel(NamedTuple):
    """One of the images of a case.

    Attributes:
        voxels: HU of a CT, grey values of anything else, float32, shape (X, Y[, Z]).
        file: where it lies, None where it must be converted.
        ending: what its name has after that of its case, where a case has several images.
    """

    voxels: NDArray[np.float32]
    file: Path | None = None
    ending: str = ""


class Volume(NamedTuple):
    """The images of a case, on one grid, and what is known about them.

    Attributes:
        channels: in the order in which they are stacked.
        affine: voxel to world in mm, RAS; ``FILM_AFFINE`` for a film.
        organ: true in the organ and its lesions; None where nobody has drawn it.
        label: true in the lesions, or 1 and more by their parts; None where nobody has drawn them.
        diseased: whether there are lesions, where this is known without a label.
    """

    channels: tuple[Channel, ...]
    affine: NDArray[np.float64]
    organ: NDArray[np.bool_] | None = None
    label: NDArray[np.bool_] | NDArray[np.uint8] | None = None
    diseased: bool | None = None

    @property
    def image_label(self) -> int | None:
        """0 for a healthy case, 1 for a diseased one, None where nobody knows."""
        diseased = self.diseased if self.label is None else self.label.any()
        return None if diseased is None else int(diseased)


@dataclass(frozen=True)
class Scan:
    """A case that was found and is not read yet.

    Attributes:
        case: its name.
        patient: whose it is.
        read: reads and checks its files, and raises BadFileError for the first that cannot be used.
        site: where it was made, empty where that is not known.
    """

    case: str
    patient: str
    read: Callable[[], Volume]
    site: str = ""


def decathlon(src: Path) -> list[tuple[str, Path, Path]]:
    """Return the training cases of a task of the Medical Segmentation Decathlon: name, image and label.

    ``imagesTs`` has no labels and is passed over: run on it as it is.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if two files have the same name.
    """
    images, labels = (by_name((src / folder).glob("*")) for folder in ("imagesTr", "labelsTr"))
    cases = []
    for case in sorted(images | labels):
        image = images.get(case, src / "imagesTr" / f"{case}.nii.gz")
        cases.append((case, image, labels.get(case, src / "labelsTr" / f"{case}.nii.gz")))
    return some(cases, src, "imagesTr/<case>.nii.gz and labelsTr/<case>.nii.gz")


def annotated_ct(case: str, image: Path, labels: Path, organ: str) -> Scan:
    """Return a CT with labels that are 1 in the organ and 2 in its lesions, a patient of its own."""
    return Scan(case, case, partial(_read_annotated_ct, image, labels, organ))


def read_ct(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the HU and the affine of a CT in NIfTI.

    Raises:
        BadFileError: if it cannot be used.
    """
    voxels, affine = read_nifti(path)
    check_ct(voxels, path)
    return voxels, affine


def not_empty(mask: NDArray[np.bool_], organ: str, path: Path) -> NDArray[np.bool_]:
    """Return the mask of an organ.

    Raises:
        BadFileError: if it is empty.
    """
    if not mask.any():
        raise BadFileError(f"{path}: expected a mask of the {organ}, got an empty one.")
    return mask


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Return NIfTI files by their names without ending; hidden files, as macOS leaves them, are passed over.

    Raises:
        ValueError: if two have the same name.
    """
    files: dict[str, Path] = {}
    for path in sorted(paths):
        if path.is_file() and re.fullmatch(r"[^.].*\.nii(\.gz)?", path.name):
            name = image_stem(path)
            if name in files:
                raise ValueError(f"expected one file called {name}, got {files[name]} and {path}.")
            files[name] = path
    return files


def some(found: list[T], src: Path, expected: str) -> list[T]:
    """Return what was found.

    Raises:
        FileNotFoundError: if it is nothing.
    """
    if not found:
        raise FileNotFoundError(f"{src}: expected {expected}, got none there.")
    return found


def _read_annotated_ct(image: Path, labels: Path, organ: str) -> Volume:
    voxels, affine = read_ct(image)
    values = check_same_grid(voxels.shape, affine, labels, image)
    refuse_other_values(values, (0, 1, 2), labels)
    return Volume((Channel(voxels, image),), affine, not_empty(values > 0, organ, labels), values == 2)
