"""Slabs of scans in which no lesion is outlined: what lesions of known place can be put into."""

import json
from itertools import groupby
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..files import write_text


def write_slabs(src: Path, dst: Path, min_slices: int) -> None:
    """Write the thickest slab of each testing case, with its organ, as a data set of testing cases.

    A slab is made of neighbouring axial slices that show the organ and no lesion.

    Args:
        src: data set whose cases have masks of the organ.
        dst: folder, made if it is not there.
        min_slices: cases whose slabs have fewer are left out.

    Raises:
        ValueError: if all are.
    """
    items = []
    for item in json.loads((src / "dataset.json").read_text())["testing"]:
        files = {key: nib.as_closest_canonical(nib.load(src / item[key])) for key in ("image", "organ", "label")}
        organ, label = (np.any(files[key].dataobj, axis=(0, 1)) for key in ("organ", "label"))
        slab = thickest(organ & ~label)
        if slab.stop - slab.start < min_slices:
            continue
        dst.mkdir(parents=True, exist_ok=True)
        named = {key: f"{item['case']}{'' if key == 'image' else '_organ'}.nii.gz" for key in ("image", "organ")}
        for key, name in named.items():
            nib.save(files[key].slicer[:, :, slab], dst / name)
        items.append({"case": item["case"], "patient": item["patient"], **named, "image_label": 0})
    if not items:
        raise ValueError(f"expected a case in {src} with {min_slices} neighbouring slices without lesion, has none.")
    content = {"name": "slabs without lesion", "description": f"at least {min_slices} slices", "testing": items}
    write_text(dst / "dataset.json", json.dumps(content, indent=1) + "\n")


def thickest(free: NDArray[np.bool_]) -> slice:
    """Return the longest run of slices that are true, the first of several; an empty one where there is none."""
    best, start = slice(0, 0), 0
    for value, run in groupby(free):
        stop = start + len(list(run))
        if value and stop - start > best.stop - best.start:
            best = slice(start, stop)
        start = stop
    return best
