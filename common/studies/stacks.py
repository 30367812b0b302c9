"""Axial slices of real stacks of several sites, as if each site had patients of one class alone."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from ..data.prepare import PARTS
from ..data.sites import in_drawn_order
from ..files import write_text
from .folds import image_of
from .painted import PIXELS, write_array

Item = dict[str, Any]
MIN_SHARE = 0.01
"""Of the brain that is labelled in a slice of class 1; in one of class 0 nothing is."""


def write_stacks(
    src: str,
    dst: str,
    lists: Sequence[str],
    sequence: str,
    target: Sequence[str],
    healthy: Sequence[str],
    diseased: Sequence[str],
    fold: int,
    num_folds: int = 3,
    num_validation: int = 2,
    even: bool = False,
    left_out: Sequence[str] = (),
    max_slices: int | None = None,
    seed: int = 0,
) -> None:
    """Write a data set of slices of the middle half of stacks; patients of all sites are dealt into folds.

    A slice is of class 1 from 1 % of labelled brain on and of class 0 without any; others are left out. It is a crop
    around the brain, at most 1 at its 99th percentile. ``position`` in an item is its place in the stack, 0 to 1.
    Patients of ``fold`` are for testing, with both classes. Of the target's others ``num_validation`` of each site are
    for validation, and the rest for training; of the other sites slices of one class are.

    Args:
        src: folder with the data sets.
        dst: folder, made if it is not there.
        lists: of cases, such as ``lgg/dataset.json``.
        sequence: what the image's name ends with.
        target: sites of both classes.
        healthy: sites of class 0 alone.
        diseased: sites of class 1 alone.
        fold: from 0.
        num_folds: of all patients.
        num_validation: patients of each site of the target who have both classes.
        even: the other sites have both classes, of each half as many slices as they would have of one.
        left_out: patients.
        max_slices: of a patient, spread over those that there are.
        seed: of the deal and of the draws.

    Raises:
        ValueError: if a site has no patients, or a part of the target lacks a class.
    """
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    rng, found = np.random.default_rng(seed), list(_stacks(Path(src), lists, sequence))
    for site in (*target, *healthy, *diseased):
        own = [item for item in found if item["site"] == site and item["patient"] not in left_out]
        if not own:
            raise ValueError(f"expected patients of site {site} in {', '.join(lists)}, got none.")
        slices = {item["patient"]: _spread(list(_slices(item)), max_slices) for item in own}
        order = in_drawn_order(slices, seed)
        tested = order[fold::num_folds]
        known = [patient for patient in order if patient not in tested]
        both = [patient for patient in known if {label for _, label, _ in slices[patient]} == {0, 1}]
        judged = both[:num_validation] if site in target else []
        taught = [(patient, each) for patient in known if patient not in judged for each in slices[patient]]
        if site not in target:
            wanted = 0 if site in healthy else 1
            count = sum(each[1] == wanted for _, each in taught)
            classes = [[one for one in taught if one[1][1] == k] for k in ((0, 1) if even else (wanted,))]
            size = count // len(classes)
            draws = [rng.permutation(len(ones))[:size] for ones in classes]
            taught = [ones[n] for ones, drawn in zip(classes, draws, strict=True) for n in sorted(drawn)]
        parts["training"] += _written(dst, site, taught)
        parts["validation"] += _written(dst, site, [(one, each) for one in judged for each in slices[one]])
        parts["testing"] += _written(dst, site, [(one, each) for one in tested for each in slices[one]])
    for part, items in parts.items():
        if {item["image_label"] for item in items if item["site"] in target} != {0, 1}:
            raise ValueError(f"expected slices of both classes of {', '.join(target)} for {part}.")
    name = f"slices of {sequence}, {', '.join(target)} of both classes"
    content = {"name": name, "description": f"real patients of {', '.join(lists)}, fold {fold}", **parts}
    write_text(Path(dst) / "dataset.json", json.dumps(content, indent=1) + "\n")


def _stacks(src: Path, lists: Iterable[str], sequence: str) -> Iterable[Item]:
    """Yield the patients of all lists, with the paths of their images and labels."""
    for name in lists:
        content = json.loads((src / name).read_text())
        for item in (item for part in PARTS for item in content.get(part, [])):
            folder, image = (src / name).parent, image_of(item, sequence)
            label = folder / item["label"] if "label" in item else None
            yield {"patient": item["patient"], "site": item["site"], "image": folder / image, "label": label}


def _slices(item: Item) -> Iterable[tuple[float, int, NDArray[np.float32]]]:
    """Yield position, class and pixels of the slices of a patient, rows from front to back."""
    volume = _voxels(item["image"])
    label = np.zeros(volume.shape) if item["label"] is None else _voxels(item["label"])
    scaled = np.clip(volume / np.percentile(volume[volume > 0], 99), 0, 1)
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in np.nonzero(volume.any(2)))
    depth = volume.shape[2]
    for z in range(depth // 4, depth - depth // 4):
        share = (label[..., z] > 0).sum() / max(1, (volume[..., z] > 0).sum())
        if share == 0 or share >= MIN_SHARE:
            yield z / max(depth - 1, 1), int(share > 0), _square(scaled[..., z][box].T[::-1])


def _spread(slices: list[Any], count: int | None) -> list[Any]:
    """Return some of the slices, from the first to the last."""
    if count is None or len(slices) <= count:
        return slices
    return [slices[n] for n in np.linspace(0, len(slices) - 1, count).round().astype(int)]


def _voxels(path: Path) -> NDArray[np.float32]:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj, dtype=np.float32)


def _square(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a plane in the middle of a square, of ``PIXELS`` along both sides."""
    margins = [(max(plane.shape) - side) for side in plane.shape]
    padded = np.pad(plane, [(margin // 2, margin - margin // 2) for margin in margins])
    return resize(padded, (PIXELS, PIXELS), anti_aliasing=True).astype(np.float32)


def _written(dst: str, site: str, slices: Iterable[tuple[str, tuple[float, int, NDArray[np.float32]]]]) -> list[Item]:
    """Write slices and return their items."""
    items = []
    for patient, (position, label, plane) in slices:
        case = f"{patient}_{round(1000 * position):03d}"
        write_array(Path(dst) / f"{case}.npy", plane)
        known = {"patient": patient, "case": case, "site": site, "image_label": label, "position": round(position, 4)}
        items.append({"image": f"{case}.npy", **known})
    return items
