"""Which slices of a volume a network is trained on."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Randomizable, ResizeWithPadOrCrop, Transform
from torch import Tensor

from .grid import to_slices

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
        self.num_slices, self.min_organ_pixels = num_slices, min_organ_pixels
        self.healthy, self.random = healthy, random
        self.fit_image = ResizeWithPadOrCrop(canvas_size, value=-1)
        self.fit_organ = ResizeWithPadOrCrop(canvas_size, value=0)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[str, Tensor]]:
        """Return the slices.

        Raises:
            ValueError: if all slices have lesions.
        """
        image = to_slices(data["image"])
        organ, label = (to_slices(data[key]) if key in data else None for key in ("organ", "label"))
        found = torch.arange(len(image))
        if self.healthy:
            found = eligible_slices(organ, label, len(image), self.min_organ_pixels)
        if len(found) == 0:
            raise ValueError(f"{data.get('case', 'a volume')}: expected slices without lesions to train on, got none.")
        if self.random:
            chosen = found[self.R.randint(0, len(found), self.num_slices)]
        else:
            chosen = found[torch.linspace(0, len(found) - 1, self.num_slices).round().long()]
        unknown = torch.full_like(image[0, :1], UNKNOWN)
        return [
            {
                "image": self.fit_image(image[i]),
                "organ": self.fit_organ((organ[i] > 0).float()) if organ is not None else self._unknown(unknown),
            }
            for i in chosen.tolist()
        ]

    def _unknown(self, blank: Tensor) -> Tensor:
        return torch.full_like(self.fit_organ(blank), UNKNOWN)
