"""Write data sets of phantoms: ``python -m common.phantoms abdomen_ct --dst DIR --testing 4``."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fire
import nibabel as nib
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image

from ..files import write_text
from ..progress import bar
from ..sequences import SEQUENCES
from .abdomen_ct import PARTS, abdomen_ct
from .brain_mr import brain_mr
from .chest_xray import chest_xray
from .ellipses import ellipses
from .multisite_brain import Cells, cases_of, multisite_brain

SPLITS = {"training": 100_000, "validation": 200_000, "testing": 300_000}
"""First seed of each split, so that no patient is in two."""


class Patient(NamedTuple):
    """What is written of a patient.

    Attributes:
        images: by what their names have after that of the case.
        healthy: the same without lesions.
        masks: by their keys in ``dataset.json``.
        affine: voxel to world in mm, RAS.
    """

    images: Mapping[str, NDArray[Any]]
    healthy: Mapping[str, NDArray[Any]]
    masks: Mapping[str, NDArray[Any]]
    affine: NDArray[np.float64]


def _draw_abdomen(
    organ: str,
    seed: int,
    shape: Sequence[int],
    spacing: Sequence[float],
    scanner: str,
    diseased: bool,
    close: bool = False,
    step_hu: int = 1,
) -> Patient:
    ct = abdomen_ct(seed, shape, spacing, None if diseased else 0, scanner, organ, close)
    image, healthy = (step_hu * (volume // step_hu) for volume in (ct.image, ct.healthy))
    masks = {"organ": ct.organ(organ), "label": ct.lesions > 0}
    return Patient({"": image}, {"": healthy}, {k: v.astype(np.uint8) for k, v in masks.items()}, ct.affine)


def _draw_brain(seed: int, shape: Sequence[int], spacing: Sequence[float], scanner: str, diseased: bool) -> Patient:
    mr = brain_mr(seed, shape, spacing, diseased, scanner)
    images, healthy = (
        {f"_{name}": channel for name, channel in zip(SEQUENCES, channels, strict=True)}
        for channels in (mr.image, mr.healthy)
    )
    return Patient(images, healthy, {"label": mr.tumour}, mr.affine)


def _draw_chest(seed: int, shape: Sequence[int], spacing: Sequence[float], scanner: str, diseased: bool) -> Patient:
    film = chest_xray(seed, shape, spacing, diseased, scanner)
    return Patient({"": film.image}, {"": film.healthy}, {"label": 255 * film.effusion}, film.affine)


def _draw_ellipses(seed: int, shape: Sequence[int], spacing: Sequence[float], scanner: str, diseased: bool) -> Patient:
    if len(set(shape)) > 1 or scanner not in ELLIPSE_MODES:
        raise ValueError(f"ellipses are square, and of scanner a or b, got {list(shape)} and {scanner!r}.")
    drawn = ellipses(seed, diseased, shape[0], ELLIPSE_MODES[scanner])
    affine = np.diag([*spacing, 1.0, 1.0])
    return Patient({"": drawn.image}, {"": drawn.healthy}, {"label": drawn.shrunk.astype(np.uint8)}, affine)


ELLIPSE_MODES = {"a": "paper", "b": "code"}


def _save_nifti(voxels: NDArray[Any], affine: NDArray[np.float64], path: Path) -> None:
    nib.save(nib.Nifti1Image(voxels, affine), path)


def _save_film(pixels: NDArray[Any], affine: NDArray[np.float64], path: Path) -> None:
    rows = pixels[::-1, ::-1].T  # from the head down, each from the patient's right to the left
    Image.fromarray(rows).save(path)


class Phantom(NamedTuple):
    """What can be written.

    Attributes:
        draw: (seed, shape, spacing, scanner, diseased) -> patient.
        name: of the data set.
        modality: of each channel.
        shape: voxels to the right, front and head, or pixels to the right and head, unless others are asked for.
        spacing: mm along these.
        healthy_share: of the patients, those for training or all.
        keys: of an item of ``dataset.json``, in their order; healthy testing patients are given the tumour that they
            might have if ``wanted`` is one.
        mixed: healthy are some of each split, not of those for training alone.
        endings: of the names of masks, where these are not their keys.
        ending: of all files.
        save: (voxels, affine, path) -> None, writes an image.
    """

    draw: Callable[[int, Sequence[int], Sequence[float], str, bool], Patient]
    name: str
    modality: Sequence[str]
    shape: Sequence[int]
    spacing: Sequence[float]
    healthy_share: float
    keys: Sequence[str]
    mixed: bool = False
    endings: Mapping[str, str] = {}
    ending: str = ".nii.gz"
    save: Callable[[NDArray[Any], NDArray[np.float64], Path], None] = _save_nifti


PHANTOMS = {
    "abdomen_ct": Phantom(
        partial(_draw_abdomen, "liver"),
        name="abdominal CT phantoms",
        modality=("CT",),
        shape=(120, 96, 16),
        spacing=(3.0, 3.0, 4.0),
        healthy_share=1.0,
        keys=("image", "organ", "label", "patient", "image_label"),
        endings={"organ": "liver"},
    ),
    "pancreas_ct": Phantom(
        partial(_draw_abdomen, "pancreas"),
        name="abdominal CT phantoms with tumours of the pancreas",
        modality=("CT",),
        shape=(120, 96, 12),
        spacing=(2.0, 2.0, 5.0),
        healthy_share=0.0,
        keys=("image", "organ", "label", "patient", "image_label"),
    ),
    **{
        f"{organ}_tumour_ct": Phantom(
            partial(_draw_abdomen, organ, close=True, step_hu=4),
            name=f"CT phantoms around the {organ}, with tumours in it",
            modality=("CT",),
            shape=(96, 80, 48),
            spacing=(2.0, 2.0, 2.0),
            healthy_share=0.5,
            keys=("image", "organ", "label", "patient", "image_label"),
        )
        for organ in PARTS
    },
    "brain_mr": Phantom(
        _draw_brain,
        name="brain MR phantoms",
        modality=tuple(SEQUENCES),
        shape=(64, 76, 12),
        spacing=(3.0, 3.0, 5.0),
        healthy_share=0.5,
        keys=("image", "label", "patient", "case", "image_label", "wanted"),
    ),
    "chest_xray": Phantom(
        _draw_chest,
        name="chest X-ray phantoms",
        modality=("X-ray",),
        shape=(96, 96),
        spacing=(4.0, 4.0),
        healthy_share=0.5,
        keys=("image", "label", "patient", "case", "image_label"),
        mixed=True,
        ending=".png",
        save=_save_film,
    ),
    "ellipses": Phantom(
        _draw_ellipses,
        name="ellipses on waves, of which one may have shrunk",
        modality=("synthetic",),
        shape=(64, 64),
        spacing=(1.0, 1.0),
        healthy_share=0.5,
        keys=("image", "label", "twin", "patient", "case", "image_label"),
        mixed=True,
    ),
}


def write_phantoms(
    phantom: str,
    dst: str,
    training: int = 0,
    validation: int = 0,
    testing: int = 0,
    healthy_share: float | None = None,
    healthy_testing: int = 0,
    scanner: str = "a",
    shape: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    twins: bool = False,
    both_labels: bool = False,
    cells: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
    cohort: int = 0,
    fold: int | None = None,
    folds: int = 5,
    num_workers: int = 1,
) -> None:
    """Write images of patients who do not exist, with masks, and ``dataset.json``.

    CT, MR and ellipses are NIfTI, of MR a file for each sequence; films are 8-bit PNG, with the patient's right on the
    left as on a light box. Labels are 0 and 1 in CT and of ellipses, the parts of tumours in MR, 0 and 255 in films.

    Args:
        phantom: ``abdomen_ct``, with lesions of the liver; ``pancreas_ct``; ``liver_tumour_ct``, ``pancreas_tumour_ct``
            and ``kidney_tumour_ct``, smaller and of cubic voxels, in steps of 4 HU; ``brain_mr``; ``chest_xray``, with
            pleural effusions; ``ellipses``, the synthetic images of DeScarGAN; or ``multisite_brain``, healthy and
            diseased brains of eight sites in numbers of its own.
        dst: folder, made if it is not there.
        training: patients; patient i of a split is the same in every data set.
        validation: patients, all of them with lesions; of films and ellipses a share is healthy.
        testing: the same.
        healthy_share: of the training patients, of films and ellipses of all; the others have lesions. Default 1 for
            ``abdomen_ct``, 0 for ``pancreas_ct``, else 0.5.
        healthy_testing: further testing patients, who have no lesions and come last; in MR, ``<case>_wanted.nii.gz`` is
            the mask of a tumour that they might have.
        scanner: ``a`` or ``b``, of ``brain_mr`` also ``c``; ellipses are drawn as in the paper, or as by its program.
        shape: voxels to the right, front and head, or pixels to the right and head; default: those of the phantom.
        spacing: mm along these; default: that of the phantom.
        twins: also write ``<case>_twin``, the same patient without lesions; of ellipses, ``dataset.json`` names it.
        both_labels: of CT, the labels are 1 in the organ and 2 in its lesions, and there is no mask of the organ.
        cells: how many healthy and diseased cases there are, by split and site, as ``{"training": {"S1": [16, 55]}}``;
            of ``multisite_brain`` the paper's by default. Of other phantoms the sites are the scanners, and the numbers
            above do not count.
        cohort: of ``multisite_brain``, which patients; cohorts share none.
        fold: of a cross-validation, from 0: every ``folds``-th training patient from this one on is for testing.
        folds: of it.
        num_workers: processes.

    Raises:
        ValueError: if there is no such phantom, scanner or fold, or its labels have no organ.
    """
    if fold is not None and not 0 <= fold < folds:
        raise ValueError(f"fold must be one of 0 to {folds - 1}, got {fold}.")
    tested = None if fold is None else slice(fold, None, folds)
    if phantom == SITES_PHANTOM:
        write_sites(Path(dst), cells, cohort, num_workers, tested)
        return
    if phantom not in PHANTOMS:
        raise ValueError(f"phantom must be one of {', '.join([*PHANTOMS, SITES_PHANTOM])}, got {phantom!r}.")
    plan, folder = PHANTOMS[phantom], Path(dst)
    if both_labels and "organ" not in plan.keys:
        raise ValueError(f"both_labels is for phantoms of an organ with lesions, got {phantom}.")
    plan = plan._replace(
        shape=tuple(shape or plan.shape),
        spacing=tuple(spacing or plan.spacing),
        healthy_share=plan.healthy_share if healthy_share is None else healthy_share,
    )
    if cells is None:
        counts = {"training": training, "validation": validation, "testing": testing + healthy_testing}
        jobs = [
            (split, number, scanner, _is_healthy(plan, split, number, testing))
            for split, count in counts.items()
            for number in range(count)
        ]
    else:
        jobs, plan = _of_cells(cells), plan._replace(keys=(*plan.keys, "site"))
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_patient, folder, plan, twins=twins, both_labels=both_labels)
    content = {
        "name": plan.name,
        "description": "synthetic, no patients",
        "modality": {str(i): channel for i, channel in enumerate(plan.modality)},
        **({"labels": {"0": "background", "1": "organ", "2": "tumour"}} if both_labels else {}),
    }
    _write_all(folder, content, jobs, write, num_workers, tested)


def _of_cells(cells: Cells) -> list[tuple[str, int, str, bool]]:
    """Return split, number, scanner and health of all patients, of each split numbered through."""
    return [
        (split, number, scanner, healthy)
        for split, sites in cells.items()
        for number, (scanner, healthy) in enumerate(
            (scanner, k == 0) for scanner, counts in sites.items() for k in (0, 1) for _ in range(counts[k])
        )
    ]


def _write_all(
    folder: Path,
    content: Mapping[str, Any],
    jobs: Sequence[tuple[Any, ...]],
    write: Callable[..., dict[str, Any]],
    num_workers: int,
    tested: slice | None = None,
) -> None:
    """Write patients, and ``dataset.json`` with the lists of them behind its ``content``.

    Args:
        folder: where they go.
        content: what else ``dataset.json`` says.
        jobs: arguments of ``write``, the split first.
        write: writes a patient and returns the item.
        num_workers: processes.
        tested: which of the patients for training are for testing instead.
    """
    written = Parallel(num_workers, return_as="generator")(delayed(write)(*job) for job in jobs)
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for (split, *_), item in zip(jobs, bar(written, total=len(jobs), desc="phantoms", unit="patient"), strict=True):
        splits[split].append(item)
    if tested is not None:
        splits["testing"] += splits["training"][tested]
        del splits["training"][tested]
    write_text(folder / "dataset.json", json.dumps({**content, **splits}, indent=1) + "\n")


SITES_PHANTOM = "multisite_brain"


def write_sites(folder: Path, cells: Cells | None, cohort: int, num_workers: int, tested: slice | None = None) -> None:
    """Write brains of several sites, with their ``site`` and ``image_label``, and masks of their lesions."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(split, *case) for split, cases in cases_of(cells, cohort).items() for case in cases]
    content = {"name": "brains of several sites", "description": "synthetic, no patients", "modality": {"0": "T1"}}
    _write_all(folder, content, jobs, partial(_write_brain, folder), num_workers, tested)


def _write_brain(folder: Path, split: str, site: str, diseased: bool, seed: int) -> dict[str, Any]:
    brain = multisite_brain(seed, site, diseased)
    case = f"{split}_{site}_{'diseased' if diseased else 'healthy'}_{seed % 10_000:03d}"
    _save_nifti(np.rint(brain.image).astype(np.int16), brain.affine, folder / f"{case}.nii.gz")
    _save_nifti(brain.lesions, brain.affine, folder / f"{case}_label.nii.gz")
    known = {"image": f"{case}.nii.gz", "label": f"{case}_label.nii.gz", "patient": case, "case": case}
    return {**known, "site": site, "image_label": int(diseased)}


def _write_patient(
    folder: Path, phantom: Phantom, split: str, number: int, scanner: str, healthy: bool, twins: bool, both_labels: bool
) -> dict[str, Any]:
    """Write a patient and return the item."""
    draw = partial(phantom.draw, SPLITS[split] + number, phantom.shape, phantom.spacing, scanner)
    patient, case = draw(not healthy), f"{split}_{scanner}_{number:03d}"
    masks = dict(patient.masks)
    diseased = masks["label"].any()
    if both_labels:
        masks["label"] = masks.pop("organ") + masks["label"]
    if "wanted" in phantom.keys and split == "testing" and healthy:
        masks["wanted"] = draw(True).masks["label"]

    def save(ending: str, voxels: NDArray[Any]) -> str:
        name = f"{case}{ending}{phantom.ending}"
        phantom.save(voxels, patient.affine, folder / name)
        return name

    images = [save(ending, voxels) for ending, voxels in patient.images.items()]
    without = [save(f"_twin{ending}", voxels) for ending, voxels in patient.healthy.items() if twins]
    known = {
        "image": images if len(images) > 1 else images[0],
        **{key: save(f"_{phantom.endings.get(key, key)}", voxels) for key, voxels in masks.items()},
        **({"twin": without[0]} if without else {}),
        "patient": case,
        "case": case,
        "image_label": int(diseased),
        "site": scanner,
    }
    return {key: known[key] for key in phantom.keys if key in known}


def _is_healthy(phantom: Phantom, split: str, number: int, with_lesions: int) -> bool:
    """Return whether a patient has no lesions; the share that has none is spread evenly among the patients."""
    if split == "testing" and number >= with_lesions:
        return True
    share = phantom.healthy_share if phantom.mixed or split == "training" else 0.0
    return (number + 0.5) * share % 1 < share


if __name__ == "__main__":
    fire.Fire(write_phantoms, name="python -m common.phantoms")
