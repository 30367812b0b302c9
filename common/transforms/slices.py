"""Which slices of a volume a network is trained on."""

import csv
import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import KeepLargestConnectedComponent, MapTransform, Randomizable, Transform
from monai.utils import convert_to_numpy, convert_to_tensor
from nibabel import io_orientation
from numpy.typing import NDArray
from torch import Tensor

from .grid import crop, to_slices

UNKNOWN = -1.0
"""Value of an organ mask that nobody has drawn: the container's organ part then finds the organ."""

logger = logging.getLogger(__name__)


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

    It says of each slice whether it shows a lesion of the ``label``, within the ``organ`` if there is one; without a
    label what the ``slice_labels`` say, a CSV with the columns ``slice``, counted from 0 along the file's own axial
    axis, and ``label``, 0 or 1; without that the ``image_label`` of a single slice or of a healthy patient. It comes
    before ``Orientationd``, which turns it as it turns the image.

    Args:
        image_key: MetaTensor of shape (C, X, Y[, Z]).
        required: demand that something tells the classes; else an item of which nothing is known stays as it is.
    """

    def __init__(self, image_key: str = "image", required: bool = True) -> None:
        self.image_key, self.required = image_key, required

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
            lesions = (convert_to_tensor(data["label"], track_meta=False) > 0).any(0, keepdim=True)
            if "organ" in data:
                lesions &= convert_to_tensor(data["organ"], track_meta=False) > 0
            classes = lesions.float().amax(others, keepdim=True)
        elif "slice_labels" in data:
            classes = torch.zeros(shape[axis + 1] if axis is not None else 1)
            for index, value in read_slice_labels(data["slice_labels"]).items():
                if index >= len(classes):
                    raise ValueError(f"{data['slice_labels']}: expected slices of {len(classes)}, got number {index}.")
                classes[index] = value
            classes = classes.view([-1 if i - 1 == axis else 1 for i in range(image.ndim)])
        elif data.get("image_label") == 0 or (data.get("image_label") == 1 and image.ndim == 3):
            classes = torch.full([1] * image.ndim, float(data["image_label"]))
        elif not self.required:
            return dict(data)
        else:
            raise ValueError(
                f"{data.get('case', 'a case')}: expected a label, slice_labels, or the image_label 0 "
                f"(or 1 of a slice), got {data.get('image_label')!r}."
            )
        return {**data, "slice_class": MetaTensor(classes.expand(shape).clone(), meta=image.meta)}


class OtherClassd(Transform):
    """Add ``other_class``: 1 all over slices that are not of the case's own class, see ``SliceClassesd``.

    So healthy slices of a diseased case can be left out, where a case is to stand for its class.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with it."""
        return {**data, "other_class": (data["slice_class"] != data["image_label"]).float()}


def axial_axis(affine: NDArray[np.float64], spatial_dims: int) -> int | None:
    """Return which axis of a volume points to the head or the feet, None for a slice."""
    return int(np.flatnonzero(io_orientation(affine)[:, 0] == 2)[0]) if spatial_dims == 3 else None


def read_slice_labels(path: str | Path) -> dict[int, int]:
    """Return the classes that a CSV with the columns ``slice`` and ``label`` gives slices.

    Raises:
        ValueError: if it cannot be read, a column is missing, a class is not 0 or 1, or a slice has two lines.
    """
    expected = f"{path}: expected a CSV with the columns 'slice' (0, 1, ...) and 'label' (0 or 1)"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{expected}, got a file that cannot be read ({error}).") from error
    if not {"slice", "label"} <= set(columns):
        raise ValueError(f"{expected}, got the columns {list(columns)}.")
    found: dict[int, int] = {}
    for row in rows:
        if row["label"] not in ("0", "1") or not (row["slice"] or "").isdecimal():
            raise ValueError(f"{expected}, got {row}.")
        if int(row["slice"]) in found:
            raise ValueError(f"{expected}, got two lines of slice {row['slice']}.")
        found[int(row["slice"])] = int(row["label"])
    return found


class KeepLargestPerSliced(MapTransform):
    """Keep the largest connected part of a mask in each axial slice.

    Args:
        keys: MetaTensors of shape (1, X, Y[, Z]), slices along the last axis.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its masks."""
        kept, largest = dict(data), KeepLargestConnectedComponent()
        for key in self.key_iterator(kept):
            mask = kept[key].clone()
            for part in convert_to_tensor(mask, track_meta=False).unbind(-1) if mask.ndim == 4 else [mask]:
                part.copy_(largest(part.clone()))
            kept[key] = mask
        return kept


class DropFaintLesionsd(Transform):
    """Take those slices out of a volume in which the lesions hardly stand out from the rest of the organ.

    How many they are is logged for each case. Slices without lesions or without a rest of the organ stay, and so do all
    of an image that would lose its last one.

    Source: Babaei et al. 2024, section 3.1, for training alone: slices "exhibiting a mean intensity deviation of less
    than 0.1 between the healthy and non-healthy region were excluded".

    Args:
        min_contrast: smallest difference of the means, in the image's intensities; of several channels one has it.
        keys: of what loses the slices, plain tensors of shape (C, X, Y[, Z]); where ``organ`` or ``label`` is missing,
            an item stays as it is.
    """

    def __init__(self, min_contrast: float, keys: Sequence[str] = ("image", "organ", "label", "slice_class")) -> None:
        self.min_contrast, self.keys = min_contrast, keys
        self.counts: dict[str, tuple[int, int]] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item without these slices."""
        if "organ" not in data or "label" not in data:
            return dict(data)
        image, organ, lesion = (to_slices(data[key]) for key in ("image", "organ", "label"))
        organ = organ > 0
        lesion = (lesion > 0).any(1, keepdim=True) & organ
        shown = lesion.flatten(1).any(1)
        difference = (_means(image, lesion) - _means(image, organ & ~lesion)).abs().amax(1)
        faint = shown & (difference < self.min_contrast)  # false where a mean is missing
        self._count(str(data.get("case", "a case")), int(faint.sum()), int(shown.sum()))
        if faint.all() or data["image"].ndim == 3:
            return dict(data)
        return {**data, **{key: data[key][..., ~faint] for key in self.keys if key in data}}

    def _count(self, case: str, faint: int, shown: int) -> None:
        if case in self.counts:
            return
        self.counts[case] = (faint, shown)
        if faint:
            sums = [sum(values) for values in zip(*self.counts.values(), strict=True)]
            logger.info(
                f"{case}: {faint} of {shown} slices with lesions are left out of training, as their contrast is below "
                f"{self.min_contrast:g}; {sums[0]} of {sums[1]} in {len(self.counts)} cases."
            )


def _means(image: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each channel within the mask of each slice, shape (S, C), NaN where that is empty."""
    return (image * mask).sum((2, 3)) / mask.sum((2, 3))


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
        label_key: above 0 where lesions are, or all over slices with lesions.
        kept_keys: of what each slice has as its volume has it.
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
        label_key: str = "label",
        kept_keys: Sequence[str] = (),
    ) -> None:
        self.kept_keys = kept_keys
        self.num_slices, self.canvas_size, self.min_organ_pixels = num_slices, canvas_size, min_organ_pixels
        self.healthy, self.random, self.slice_range = healthy, random, slice_range
        self.background, self.extra_keys, self.label_key = background, extra_keys, label_key

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
            for key in ("image", "organ", self.label_key, *self.extra_keys)
            if key in data
        }
        image, organ = plain["image"], plain.get("organ")
        lesions = plain.get(self.label_key) if self.healthy else None
        found = eligible_slices(organ, lesions, len(image), self.min_organ_pixels, self.slice_range)
        if len(found) == 0:
            raise ValueError(f"{data.get('case', 'a volume')}: expected slices without lesions to train on, got none.")
        if self.random:
            chosen = found[self.R.randint(0, len(found), self.num_slices)]
        else:
            chosen = found[torch.linspace(0, len(found) - 1, self.num_slices).round().long()]
        corner = [(size - canvas) // 2 for size, canvas in zip(image.shape[2:], self.canvas_size, strict=True)]
        unknown = image.new_full((1, *self.canvas_size), UNKNOWN)
        return [
            {
                "image": crop(image[i], corner, self.canvas_size, self.background),
                "organ": unknown if organ is None else crop((organ[i] > 0).float(), corner, self.canvas_size, 0.0),
                **{key: crop(plain[key][i], corner, self.canvas_size, 0.0) for key in self.extra_keys},
                **{key: data[key] for key in self.kept_keys},
            }
            for i in chosen.tolist()
        ]
