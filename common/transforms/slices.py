"""Which slices of a volume a network is trained on."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_tensor
from torch import Tensor

from .grid import crop, to_slices

UNKNOWN = -1.0
"""Value of an organ mask that nobody has drawn: the container's organ part then finds the organ."""


def eligible_slices(organ: Tensor | None, label: Tensor | None, count: int, min_organ_pixels: int = 1) -> Tensor:
    """Return the slices without lesions that show the organ; all without lesions if none of them shows it.

    Source: Shi et al. 2024 (GDPI), section III A: training slices are liver slices "which do not include any tumors".

    Args:
        organ: slices (S, C, X, Y), or None where it is not known.
        label: slices of lesions, above 0 in them, or None where there are none.
        count: S.
        min_organ_pixels: smallest area of the organ in a slice.

    Returns:
        int64, increasing, empty if all slices have lesions.
    """
    healthy = torch.ones(count, dtype=torch.bool) if label is None else ~(label > 0).flatten(1).any(1)
    if organ is not None:
        shown = healthy & ((organ > 0).flatten(1).sum(1) >= min_organ_pixels)
        healthy = shown if shown.any() else healthy
    return healthy.nonzero().flatten()


class SampleSlicesd(Randomizable, Transform):
    """Turn a volume into a list of slices of one size, as ``list_data_collate`` batches them.

    Each slice has ``image`` (C, X, Y) and ``organ`` (1, X, Y): 0 and 1, or ``UNKNOWN`` all over without an ``organ``.

    Args:
        num_slices: how many; drawn with replacement, or spread evenly if not ``random``.
        canvas_size: pixels along X and Y, padded with -1 or cropped in the middle.
        min_organ_pixels: smallest area of the organ in a slice, see ``eligible_slices``.
        healthy: leave out slices with lesions and prefer those that show the organ; false takes any slice.
        random: false for validation, where the same slices come every time.
    """

    def __init__(
        self,
        num_slices: int,
        canvas_size: Sequence[int],
        min_organ_pixels: int = 1,
        healthy: bool = True,
        random: bool = True,
    ) -> None:
        self.num_slices, self.canvas_size, self.min_organ_pixels = num_slices, canvas_size, min_organ_pixels
        self.healthy, self.random = healthy, random

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[str, Tensor]]:
        """Return the slices.

        Raises:
            ValueError: if all slices have lesions.
        """
        plain = {
            key: to_slices(convert_to_tensor(data[key], track_meta=False))
            for key in ("image", "organ", "label")
            if key in data
        }
        image, organ, label = plain["image"], plain.get("organ"), plain.get("label")
        found = torch.arange(len(image))
        if self.healthy:
            found = eligible_slices(organ, label, len(image), self.min_organ_pixels)
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
                "image": crop(image[i], corner, self.canvas_size, -1.0),
                "organ": unknown if organ is None else crop((organ[i] > 0).float(), corner, self.canvas_size, 0.0),
            }
            for i in chosen.tolist()
        ]
