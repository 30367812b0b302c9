"""Which slices of a volume a network is trained on."""

import csv
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_numpy, convert_to_tensor
from nibabel import io_orientation
from numpy.typing import NDArray
from torch import Tensor

from .grid import crop, to_slices

UNKNOWN = -1.0
"""Value of an organ mask that nobody has drawn: the container's organ part then finds the organ."""


def eligible_slices(
    organ: Tensor | None,
    label: Tensor | None,
    count: int,
    min_organ_pixels: int = 1,
    slice_range: Sequence[int] | None = None,
) -> Tensor:
    """Return the slices without lesions that show the organ; all without lesions if none of them shows it.

    Source: Shi et al. 2024 (GDPI), section III A: training slices are liver slices "which do not include any tumors".

    Args:
        organ: slices (S, C, X, Y), or None where it is not known.
        label: slices of lesions, above 0 in them, or None where there are none, or where they do not matter.
        count: S.
        min_organ_pixels: smallest area of the organ in a slice.
        slice_range: first and last slice to take, None for all.

    Returns:
        int64, increasing, empty if all slices have lesions.
    """
    first, last = slice_range or (0, count - 1)
    healthy = torch.ones(count, dtype=torch.bool) if label is None else ~(label > 0).flatten(1).any(1)
    healthy[:first], healthy[last + 1 :] = False, False
    if organ is not None:
        shown = healthy & ((organ > 0).flatten(1).sum(1) >= min_organ_pixels)
        healthy = shown if shown.any() else healthy
    return healthy.nonzero().flatten()


class SliceClassesd(Transform):
    """Add ``slice_class``: an image of 0 in healthy axial slices and 1 in diseased ones.

    It says of each slice whether it shows a lesion of the ``label``; without that what the ``slice_labels`` say, a CSV
    with the columns ``slice``, counted from 0 along the file's own axial axis, and ``label``, 0 or 1; without that the
    ``image_label`` of a single slice or of a healthy patient. It comes before ``Orientationd``, which turns it as it
    turns the image.

    Args:
        image_key: MetaTensor of shape (C, X, Y[, Z]).
    """

    def __init__(self, image_key: str = "image") -> None:
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its classes.

        Raises:
            ValueError: if nothing tells them, or a class is not 0 or 1, or a slice does not exist.
        """
        image = data[self.image_key]
        axis = axial_axis(convert_to_numpy(image.affine), image.ndim - 1)
        shape = [1, *image.shape[1:]]
        if "label" in data:
            others = [i for i in range(1, image.ndim) if i - 1 != axis]
            classes = (convert_to_tensor(data["label"], track_meta=False) > 0).any(0).float()
            classes = classes[None].amax(others, keepdim=True) if others else classes
        elif "slice_labels" in data:
            classes = torch.zeros(shape[axis + 1] if axis is not None else 1)
            for index, value in read_slice_labels(data["slice_labels"]).items():
                if index >= len(classes):
                    raise ValueError(f"{data['slice_labels']}: expected slices of {len(classes)}, got number {index}.")
                classes[index] = value
            classes = classes.view([-1 if i - 1 == axis else 1 for i in range(image.ndim)])
        elif data.get("image_label") == 0 or (data.get("image_label") == 1 and image.ndim == 3):
            classes = torch.full([1] * image.ndim, float(data["image_label"]))
        else:
            raise ValueError(
                f"{data.get('case', 'a case')}: expected a label, slice_labels, or the image_label 0 "
                f"(or 1 of a slice), got {data.get('image_label')!r}."
            )
        return {**data, "slice_class": MetaTensor(classes.expand(shape).clone(), meta=image.meta)}


def axial_axis(affine: NDArray[np.float64], spatial_dims: int) -> int | None:
    """Return which axis of a volume points to the head or the feet, None for a slice."""
    return int(np.flatnonzero(io_orientation(affine)[:, 0] == 2)[0]) if spatial_dims == 3 else None


def read_slice_labels(path: str | Path) -> dict[int, int]:
    """Return the classes that a CSV with the columns ``slice`` and ``label`` gives slices.

    Raises:
        ValueError: if a column is missing, or a class is not 0 or 1.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[int, int] = {}
    for row in rows:
        if row.get("label") not in ("0", "1") or not (row.get("slice") or "").isdigit():
            raise ValueError(f"{path}: expected columns 'slice' (0, 1, ...) and 'label' (0 or 1), got {row}.")
        found[int(row["slice"])] = int(row["label"])
    return found


class SampleSlicesd(Randomizable, Transform):
    """Turn a volume into a list of slices of one size, as ``list_data_collate`` batches them.

    Each slice has ``image`` (C, X, Y) and ``organ`` (1, X, Y): 0 and 1, or ``UNKNOWN`` all over without an ``organ``.

    Args:
        num_slices: how many; drawn with replacement, or spread evenly if not ``random``.
        canvas_size: pixels along X and Y, padded or cropped in the middle.
        min_organ_pixels: smallest area of the organ in a slice, see ``eligible_slices``.
        healthy: leave out slices with lesions; false takes any slice.
        random: false for validation, where the same slices come every time.
        slice_range: see ``eligible_slices``.
        background: value of the padding.
        extra_keys: of further images that a slice has, padded with 0.
    """

    def __init__(
        self,
        num_slices: int,
        canvas_size: Sequence[int],
        min_organ_pixels: int = 1,
        healthy: bool = True,
        random: bool = True,
        slice_range: Sequence[int] | None = None,
        background: float = -1.0,
        extra_keys: Sequence[str] = (),
    ) -> None:
        self.num_slices, self.canvas_size, self.min_organ_pixels = num_slices, canvas_size, min_organ_pixels
        self.healthy, self.random, self.slice_range = healthy, random, slice_range
        self.background, self.extra_keys = background, extra_keys

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[str, Tensor]]:
        """Return the slices.

        Raises:
            ValueError: if all slices have lesions, or an extra key is missing.
        """
        missing = [key for key in self.extra_keys if key not in data]
        if missing:
            raise ValueError(f"{data.get('case', 'a volume')}: expected {', '.join(missing)} to train on, got none.")
        plain = {
            key: to_slices(convert_to_tensor(data[key], track_meta=False))
            for key in ("image", "organ", "label", *self.extra_keys)
            if key in data
        }
        image, organ = plain["image"], plain.get("organ")
        lesions = plain.get("label") if self.healthy else None
        found = eligible_slices(organ, lesions, len(image), self.min_organ_pixels, self.slice_range)
        if len(found) == 0:
            raise ValueError(f"{data.get('case', 'a volume')}: expected slices without lesions to train on, got none.")
        if self.random:
            chosen = found[self.R.randint(0, len(found), self.num_slices)]
        else:
            chosen = found[torch.linspace(0, len(found) - 1, self.num_slices).round().long()]
        corner = [(size - wanted) // 2 for size, wanted in zip(image.shape[2:], self.canvas_size, strict=True)]
        unknown = image.new_full((1, *self.canvas_size), UNKNOWN)
        return [
            {
                "image": crop(image[i], corner, self.canvas_size, self.background),
                "organ": unknown if organ is None else crop((organ[i] > 0).float(), corner, self.canvas_size, 0.0),
                **{key: crop(plain[key][i], corner, self.canvas_size, 0.0) for key in self.extra_keys},
            }
            for i in chosen.tolist()
        ]
