"""Write data sets of phantoms: ``python -m common.phantoms abdomen_ct --dst DIR --testing 4``."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..files import write_text
from ..sequences import SEQUENCES
from .abdomen_ct import ORGANS
from .abdomen_ct import abdomen_ct as make_abdomen_ct
from .brain_mr import brain_mr as make_brain_mr
from .chest_xray import chest_xray as make_chest_xray

SPLITS = {"training": 100_000, "validation": 200_000, "testing": 300_000}
"""First seed of each split, so that no patient is in two."""


def abdomen_ct(
    dst: str,
    training: int = 0,
    validation: int = 0,
    testing: int = 0,
    healthy_share: float = 1.0,
    scanner: str = "a",
    shape: Sequence[int] = (120, 96, 16),
    spacing: Sequence[float] = (3.0, 3.0, 4.0),
    twins: bool = False,
    num_workers: int = 1,
) -> None:
    """Write abdominal CT as NIfTI with masks of liver and lesions, and ``dataset.json``.

    Args:
        dst: folder, made if it is not there.
        training: patients; patient i of a split is the same in every data set.
        validation: patients with lesions.
        testing: patients with lesions.
        healthy_share: of the training patients; the others have lesions.
        scanner: ``a`` or ``b``.
        shape: voxels to the right, front and head.
        spacing: mm a voxel.
        twins: also write ``<case>_twin.nii.gz``, the same patient without lesions.
        num_workers: processes.
    """
    write = partial(
        _write_abdomen_ct,
        organ="liver",
        healthy_share=healthy_share,
        with_lesions=testing,
        scanner=scanner,
        shape=tuple(shape),
        spacing=tuple(spacing),
        twins=twins,
    )
    counts = {"training": training, "validation": validation, "testing": testing}
    _write_data_set(dst, "abdominal CT phantoms", ["CT"], counts, write, num_workers)


def pancreas_ct(
    dst: str,
    training: int = 0,
    validation: int = 0,
    testing: int = 0,
    healthy_share: float = 0.0,
    healthy_testing: int = 0,
    scanner: str = "a",
    shape: Sequence[int] = (120, 96, 12),
    spacing: Sequence[float] = (2.0, 2.0, 5.0),
    twins: bool = False,
    num_workers: int = 1,
) -> None:
    """Write abdominal CT as NIfTI with masks of pancreas and tumours, and ``dataset.json``.

    Args:
        dst: folder, made if it is not there.
        training: patients; patient i of a split is the same in every data set.
        validation: patients with tumours.
        testing: patients with tumours.
        healthy_share: of the training patients; the others have tumours.
        healthy_testing: further testing patients, who have none and come last.
        scanner: ``a`` or ``b``.
        shape: voxels to the right, front and head.
        spacing: mm a voxel.
        twins: also write ``<case>_twin.nii.gz``, the same patient without tumours.
        num_workers: processes.
    """
    write = partial(
        _write_abdomen_ct,
        organ="pancreas",
        healthy_share=healthy_share,
        with_lesions=testing,
        scanner=scanner,
        shape=tuple(shape),
        spacing=tuple(spacing),
        twins=twins,
    )
    counts = {"training": training, "validation": validation, "testing": testing + healthy_testing}
    _write_data_set(dst, "abdominal CT phantoms with tumours of the pancreas", ["CT"], counts, write, num_workers)


def brain_mr(
    dst: str,
    training: int = 0,
    validation: int = 0,
    testing: int = 0,
    healthy_share: float = 0.5,
    healthy_testing: int = 0,
    scanner: str = "a",
    shape: Sequence[int] = (64, 76, 12),
    spacing: Sequence[float] = (3.0, 3.0, 5.0),
    twins: bool = False,
    num_workers: int = 1,
) -> None:
    """Write brain MR as NIfTI, one file a sequence, with the parts of tumours as labels, and ``dataset.json``.

    Args:
        dst: folder, made if it is not there.
        training: patients; the anatomy of patient i of a split is the same in every data set.
        validation: patients with tumours.
        testing: patients with tumours.
        healthy_share: of the training patients; the others have tumours.
        healthy_testing: further testing patients, who have none and come last; ``<case>_wanted.nii.gz`` is the mask of
            a tumour that they might have.
        scanner: ``a`` or ``b``.
        shape: voxels to the right, front and head.
        spacing: mm a voxel.
        twins: also write ``<case>_twin_<sequence>.nii.gz``, the same patient without tumours.
        num_workers: processes.
    """
    write = partial(
        _write_brain_mr,
        healthy_share=healthy_share,
        with_tumours=testing,
        scanner=scanner,
        shape=tuple(shape),
        spacing=tuple(spacing),
        twins=twins,
    )
    counts = {"training": training, "validation": validation, "testing": testing + healthy_testing}
    _write_data_set(dst, "brain MR phantoms", tuple(SEQUENCES), counts, write, num_workers)


def chest_xray(
    dst: str,
    training: int = 0,
    validation: int = 0,
    testing: int = 0,
    scanner: str = "a",
    shape: Sequence[int] = (96, 96),
    spacing: Sequence[float] = (4.0, 4.0),
    num_workers: int = 1,
) -> None:
    """Write chest films as 8-bit PNG with masks of pleural effusion, and ``dataset.json``.

    As on a light box, the patient's right is on the left of a picture. Half of each split's patients are healthy.

    Args:
        dst: folder, made if it is not there.
        training: patients; patient i of a split is the same in every data set.
        validation: patients.
        testing: patients.
        scanner: ``a`` or ``b``.
        shape: pixels to the right and head.
        spacing: mm a pixel.
        num_workers: processes.
    """
    write = partial(_write_chest_xray, scanner=scanner, shape=tuple(shape), spacing=tuple(spacing))
    counts = {"training": training, "validation": validation, "testing": testing}
    _write_data_set(dst, "chest X-ray phantoms", ["X-ray"], counts, write, num_workers)


def _write_data_set(
    dst: str,
    name: str,
    channels: Sequence[str],
    counts: Mapping[str, int],
    write: Callable[[Path, str, int], dict[str, Any]],
    num_workers: int,
) -> None:
    """Write all patients and ``dataset.json``; ``write`` takes folder, split and number, and returns an item."""
    folder = Path(dst)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(split, number) for split, count in counts.items() for number in range(count)]
    written = Parallel(num_workers, return_as="generator")(delayed(write)(folder, *job) for job in jobs)
    items = list(tqdm(written, total=len(jobs), desc="phantoms", unit="patient"))
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for (split, _), item in zip(jobs, items, strict=True):
        splits[split].append(item)
    content = {
        "name": name,
        "description": "synthetic, no patients",
        "modality": {str(i): channel for i, channel in enumerate(channels)},
        **splits,
    }
    write_text(folder / "dataset.json", json.dumps(content, indent=1) + "\n")


def _write_abdomen_ct(
    folder: Path,
    split: str,
    number: int,
    organ: str,
    healthy_share: float,
    with_lesions: int,
    scanner: str,
    shape: Sequence[int],
    spacing: Sequence[float],
    twins: bool,
) -> dict[str, Any]:
    """Write a patient; of the testing patients only the first ``with_lesions`` have lesions of the organ."""
    healthy = _without_lesions(split, number, healthy_share, with_lesions)
    phantom = make_abdomen_ct(SPLITS[split] + number, shape, spacing, 0 if healthy else None, scanner, organ)
    case = f"{split}_{scanner}_{number:03d}"
    mask = "liver" if organ == "liver" else "organ"
    volumes = {
        "": phantom.image,
        f"_{mask}": (phantom.organs == ORGANS[organ]).astype(np.uint8),
        "_label": (phantom.lesions > 0).astype(np.uint8),
        **({"_twin": phantom.healthy} if twins else {}),
    }
    _save_volumes(folder / case, volumes, phantom.affine)
    return {
        "image": f"{case}.nii.gz",
        "organ": f"{case}_{mask}.nii.gz",
        "label": f"{case}_label.nii.gz",
        "patient": case,
        "image_label": int(phantom.lesions.any()),
    }


def _write_brain_mr(
    folder: Path,
    split: str,
    number: int,
    healthy_share: float,
    with_tumours: int,
    scanner: str,
    shape: Sequence[int],
    spacing: Sequence[float],
    twins: bool,
) -> dict[str, Any]:
    """Write a patient; of the testing patients only the first ``with_tumours`` have tumours."""
    healthy = _without_lesions(split, number, healthy_share, with_tumours)
    phantom = make_brain_mr(SPLITS[split] + number, shape, spacing, not healthy, scanner)
    case = f"{split}_{scanner}_{number:03d}"
    volumes = {f"_{name}": image for name, image in zip(SEQUENCES, phantom.image, strict=True)}
    volumes["_label"] = phantom.tumour
    if twins:
        volumes |= {f"_twin_{name}": image for name, image in zip(SEQUENCES, phantom.healthy, strict=True)}
    wanted = {}
    if split == "testing" and healthy:
        volumes["_wanted"] = make_brain_mr(SPLITS[split] + number, shape, spacing, True, scanner).tumour
        wanted = {"wanted": f"{case}_wanted.nii.gz"}
    _save_volumes(folder / case, volumes, phantom.affine)
    return {
        "image": [f"{case}_{name}.nii.gz" for name in SEQUENCES],
        "label": f"{case}_label.nii.gz",
        "patient": case,
        "case": case,
        "image_label": int(phantom.tumour.any()),
        **wanted,
    }


def _write_chest_xray(
    folder: Path, split: str, number: int, scanner: str, shape: Sequence[int], spacing: Sequence[float]
) -> dict[str, Any]:
    phantom = make_chest_xray(SPLITS[split] + number, shape, spacing, not _is_healthy(number, 0.5), scanner)
    case = f"{split}_{scanner}_{number:03d}"
    for suffix, pixels in {"": phantom.image, "_label": 255 * phantom.effusion}.items():
        rows = pixels[::-1, ::-1].T  # from the head down, each from the patient's right to the left
        Image.fromarray(rows).save(folder / f"{case}{suffix}.png")
    return {
        "image": f"{case}.png",
        "label": f"{case}_label.png",
        "patient": case,
        "case": case,
        "image_label": int(phantom.effusion.any()),
    }


def _without_lesions(split: str, number: int, healthy_share: float, with_lesions: int) -> bool:
    """Return whether a patient has no lesions: a share in training, in testing those after the first so many."""
    return {"training": _is_healthy(number, healthy_share), "testing": number >= with_lesions}.get(split, False)


def _is_healthy(number: int, share: float) -> bool:
    """Spread a share of healthy patients evenly among all."""
    return (number + 0.5) * share % 1 < share


def _save_volumes(stem: Path, volumes: Mapping[str, NDArray[Any]], affine: NDArray[np.float64]) -> None:
    for suffix, voxels in volumes.items():
        nib.save(nib.Nifti1Image(voxels, affine), stem.with_name(f"{stem.name}{suffix}.nii.gz"))


if __name__ == "__main__":
    fire.Fire({"abdomen_ct": abdomen_ct, "pancreas_ct": pancreas_ct, "brain_mr": brain_mr, "chest_xray": chest_xray})
