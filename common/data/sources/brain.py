"""MR of the brain: where the four sequences of a case lie, and what its segmentation means.

Labels become 1 in the necrotic or non-enhancing core of the tumour, 2 in the oedema, 3 in the enhancing part. Every
patient has a tumour; the organ, for the count of slices alone, is where a sequence is not 0.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...sequences import SEQUENCES, known_sequence
from ..checks import check_mr, check_same_grid, refuse_other_values
from ..reading import read_nifti, read_nifti_channels
from .scans import Channel, Scan, Volume, by_name, decathlon, some


class Edition(NamedTuple):
    """How a year of BraTS names its files and numbers the parts of tumours.

    Attributes:
        case: pattern of its names of cases, with the patient as group.
        sequences: how the names of ``SEQUENCES`` go on after that of their case.
        segmentation: the same for the segmentation.
        parts: our number of each part of a tumour, by its own.
    """

    case: str
    sequences: tuple[str, str, str, str]
    segmentation: str
    parts: Mapping[int, int]


EDITIONS = {
    "BraTS 2020": Edition(
        r"(?P<patient>BraTS20_(Training|Validation)_\d+)", ("_t1", "_t1ce", "_t2", "_flair"), "_seg", {1: 1, 2: 2, 4: 3}
    ),
    "BraTS 2021": Edition(r"(?P<patient>BraTS2021_\d+)", ("_t1", "_t1ce", "_t2", "_flair"), "_seg", {1: 1, 2: 2, 4: 3}),
    "BraTS 2023": Edition(
        r"(?P<patient>BraTS-GLI-\d+)-\d+",  # the second number is the time point
        ("-t1n", "-t1c", "-t2w", "-t2f"),
        "-seg",
        {1: 1, 2: 2, 3: 3},
    ),
}

MISNAMED = {"W39_1998.09.19_Segm": "BraTS20_Training_355_seg"}
"""A segmentation that BraTS 2020 was published with, and what it should be called."""

MSD_SEQUENCES = ["flair", "t1", "t1ce", "t2"]
"""Order of the sequences in Task01_BrainTumour."""

MSD_PARTS = {1: 2, 2: 1, 3: 3}
"""Our number of each part of a tumour, by that of Task01_BrainTumour."""


def find_brats(src: Path) -> list[Scan]:
    """Return the cases of BraTS 2020, 2021 or 2023 (adult glioma), in any folders.

    They are told apart by their names: ``BraTS20_Training_001_t1ce.nii``, ``BraTS2021_00000_t1ce.nii.gz``,
    ``BraTS-GLI-00000-000-t1c.nii.gz``. Cases without a segmentation, as those for validation, have no label.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if two files have the same name, or there are cases of several years, as later ones contain
            patients of earlier ones under other names.
    """
    files = by_name(path for pattern in ("BraTS*", *(f"{name}*" for name in MISNAMED)) for path in src.rglob(pattern))
    for name, intended in MISNAMED.items():
        if name in files:
            files.setdefault(intended, files.pop(name))
    found = {year: scans for year, edition in EDITIONS.items() if (scans := _scans(files, edition))}
    if len(found) > 1:
        raise ValueError(f"{src}: expected one edition of BraTS, as they share patients, got {' and '.join(found)}.")
    scans = next(iter(found.values()), [])
    return some(scans, src, "BraTS20_*_t1.nii, BraTS2021_*_t1.nii.gz or BraTS-GLI-*-t1n.nii.gz and their like")


def find_msd_brain(src: Path) -> list[Scan]:
    """Return the training cases of the Medical Segmentation Decathlon's Task01_BrainTumour.

    Each file holds the four sequences. The label is 1 in the oedema, 2 in the non-enhancing and 3 in the enhancing
    tumour. Names do not tell which cases are of one patient, so each is taken for a patient of its own.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if two files have the same name, or ``dataset.json`` names other sequences.
    """
    order = _msd_order(src / "dataset.json")
    return [Scan(case, case, partial(_read_msd, image, label, order)) for case, image, label in decathlon(src)]


def _scans(files: Mapping[str, Path], edition: Edition) -> list[Scan]:
    """Return the cases of an edition of which there is a file at least."""
    name_of_file = re.compile(f"(?P<case>{edition.case})({'|'.join((*edition.sequences, edition.segmentation))})")
    matches = [(name_of_file.fullmatch(name), path.parent) for name, path in files.items()]
    cases = {match["case"]: (match["patient"], folder) for match, folder in matches if match}
    scans = []
    for case, (patient, folder) in sorted(cases.items()):
        names = [case + sequence for sequence in edition.sequences]
        images = [files.get(name, folder / f"{name}.nii.gz") for name in names]
        segmentation = files.get(case + edition.segmentation)
        scans.append(Scan(case, patient, partial(_read_brats, images, segmentation, edition.parts)))
    return scans


def _read_brats(images: Sequence[Path], segmentation: Path | None, parts: Mapping[int, int]) -> Volume:
    first, affine = read_nifti(images[0])
    voxels = [first, *(check_same_grid(first.shape, affine, image, images[0]) for image in images[1:])]
    for sequence, image in zip(voxels, images, strict=True):
        check_mr(sequence, image)
    label = None if segmentation is None else _read_parts(segmentation, parts, first.shape, affine, images[0])
    return _volume(voxels, images, affine, label)


def _read_msd(image: Path, label: Path, order: Sequence[str]) -> Volume:
    stacked, affine = read_nifti_channels(image, len(SEQUENCES))
    voxels = [stacked[..., order.index(sequence)] for sequence in SEQUENCES]
    for name, sequence in zip(SEQUENCES, voxels, strict=True):
        check_mr(sequence, f"{image}, {name}")
    files = [None] * len(SEQUENCES)
    return _volume(voxels, files, affine, _read_parts(label, MSD_PARTS, stacked.shape[:3], affine, image))


def _read_parts(
    path: Path, parts: Mapping[int, int], shape: Sequence[int], affine: NDArray[np.float64], image: Path
) -> NDArray[np.uint8]:
    """Read a segmentation on the grid of an image, and number the parts of the tumour as we do."""
    values = check_same_grid(shape, affine, path, image)
    refuse_other_values(values, (0, *parts), path)
    label = np.zeros(values.shape, np.uint8)
    for theirs, ours in parts.items():
        label[values == theirs] = ours
    return label


def _volume(
    voxels: Sequence[NDArray[np.float32]],
    files: Sequence[Path | None],
    affine: NDArray[np.float64],
    label: NDArray[np.uint8] | None,
) -> Volume:
    endings = [f"_{sequence}" for sequence in SEQUENCES]
    brain = np.any([sequence != 0 for sequence in voxels], axis=0)
    return Volume(tuple(map(Channel, voxels, files, endings)), affine, brain, label, diseased=True)


def _msd_order(path: Path) -> list[str]:
    """Return the order of the sequences within a file, as ``dataset.json`` has it if it is there."""
    if not path.is_file():
        return MSD_SEQUENCES
    modality: Any = None
    order: list[str] = []
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        modality = json.loads(path.read_text(encoding="utf-8-sig"))["modality"]
        order = [known_sequence(modality[str(i)]) or "" for i in range(len(SEQUENCES))]
    if sorted(order) != sorted(SEQUENCES):
        raise ValueError(f"{path}: expected the modalities 0 to 3 to be FLAIR, T1w, t1gd and T2w, got {modality}.")
    return order
