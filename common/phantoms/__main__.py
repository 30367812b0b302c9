"""Write data sets of phantoms: ``python -m common.phantoms abdomen_ct --dst DIR --testing 4``."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from .abdomen_ct import ORGANS
from .abdomen_ct import abdomen_ct as make_abdomen_ct

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
    folder = Path(dst)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"training": training, "validation": validation, "testing": testing}
    jobs = [(split, number) for split, count in counts.items() for number in range(count)]
    write = partial(
        _write_patient,
        folder=folder,
        healthy_share=healthy_share,
        scanner=scanner,
        shape=tuple(shape),
        spacing=tuple(spacing),
        twins=twins,
    )
    written = Parallel(num_workers, return_as="generator")(delayed(write)(job) for job in jobs)
    items = list(tqdm(written, total=len(jobs), desc="phantoms", unit="patient"))
    splits: dict[str, list[dict[str, str | int]]] = {split: [] for split in SPLITS}
    for (split, _), item in zip(jobs, items, strict=True):
        splits[split].append(item)
    content = {
        "name": "abdominal CT phantoms",
        "description": "synthetic, no patients",
        "modality": {"0": "CT"},
        **splits,
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n")


def _write_patient(
    job: tuple[str, int],
    folder: Path,
    healthy_share: float,
    scanner: str,
    shape: Sequence[int],
    spacing: Sequence[float],
    twins: bool,
) -> dict[str, str | int]:
    split, number = job
    healthy = split == "training" and (number + 0.5) * healthy_share % 1 < healthy_share
    num_lesions = 0 if healthy else None
    phantom = make_abdomen_ct(SPLITS[split] + number, shape, spacing, num_lesions, scanner)
    case = f"{split}_{scanner}_{number:03d}"
    volumes = {
        "": phantom.image,
        "_liver": (phantom.organs == ORGANS["liver"]).astype(np.uint8),
        "_label": (phantom.lesions > 0).astype(np.uint8),
        **({"_twin": phantom.healthy} if twins else {}),
    }
    for suffix, voxels in volumes.items():
        nib.save(nib.Nifti1Image(voxels, phantom.affine), folder / f"{case}{suffix}.nii.gz")
    return {
        "image": f"{case}.nii.gz",
        "organ": f"{case}_liver.nii.gz",
        "label": f"{case}_label.nii.gz",
        "patient": case,
        "image_label": int(phantom.lesions.any()),
    }


if __name__ == "__main__":
    fire.Fire({"abdomen_ct": abdomen_ct})
