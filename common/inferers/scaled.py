"""What inferers share that examine an organ in images of scaled intensities."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..transforms.grid import resample_slices, size_at, to_slices
from ..transforms.intensity import intensity_range, scale_range
from ..transforms.organ import foreground, right_part
from .patches import Patch, patches_around
from .slices import SliceInferer

ORGANS = ("foreground", "network", "image")
"""Where to search without an organ mask: where a channel is above 0, what the part ``organ`` finds, or everywhere."""


class Slices(NamedTuple):
    """An image as the networks are to see it, and where they are to look.

    Attributes:
        coarse: slices of the image in [0, 1] on the network's grid, shape (S, C, x, y).
        organ: where to search, on the image's own grid, bool, shape (S, 1, X, Y).
        coarse_organ: the same on the network's grid.
        low: intensity that is 0, for each channel of the image, shape (C, 1, ...).
        high: intensity that is 1.
    """

    coarse: Tensor
    organ: Tensor
    coarse_organ: Tensor
    low: Tensor
    high: Tensor


class ScaledSliceInferer(SliceInferer):
    """Scale intensities to [0, 1], resample slices to the network's pixels and find the organ.

    The inputs are the channels of an image, then those that a subclass needs, then the organ's mask if there is one.

    Args:
        patch_size: the networks' input, pixels along X and Y.
        num_channels: of the image.
        normalize: see ``intensity_range``.
        percentile: see ``intensity_range``.
        organ: where to search without an organ mask, one of ``ORGANS``.
        only_organ: set what lies outside the organ to 0 for the networks.
        right_share: of the organ, however it was found, the ``right_part`` is searched.
        slice_range: first and last slice that are examined, counted from the feet; None examines all.
        margin: pixels that a patch shows around the organ at least, if ``pixel_mm`` is given; else it shows the image.
        seed: of all draws.
        options: see ``SliceInferer``.

    Raises:
        ValueError: if ``organ`` is none of ``ORGANS``.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        num_channels: int = 1,
        normalize: str | Sequence[float] = "volume",
        percentile: float = 99.0,
        organ: str = "foreground",
        only_organ: bool = False,
        right_share: float = 1.0,
        slice_range: Sequence[int] | None = None,
        margin: int = 2,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if organ not in ORGANS:
            raise ValueError(f"organ must be one of {', '.join(ORGANS)}, got {organ!r}.")
        self.patch_size, self.num_channels, self.margin, self.seed = patch_size, num_channels, margin, seed
        self.intensity_range = partial(intensity_range, normalize=normalize, percentile=percentile)
        self.organ, self.only_organ, self.right_share = organ, only_organ, right_share
        self.slice_range = slice_range

    def slices(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module, more: str = "") -> Slices:
        """Return an image on the network's grid, and its organ.

        Args:
            volume: the inputs, shape (C, X, Y[, Z]).
            pixel_mm: of its pixels along X and Y.
            network: the container.
            more: what the one channel between image and organ is, empty without one.

        Raises:
            ValueError: if there are fewer channels than the network needs, or no organ to search in.
        """
        c = self.num_channels
        expected = range(c + bool(more), c + bool(more) + 2)
        if len(volume) not in expected:
            raise ValueError(
                f"expected an image of {c} channels{f' and {more}' if more else ''}, "
                f"perhaps an organ mask; got {len(volume)} channels."
            )
        low, high = self.intensity_range(volume[:c])
        image = to_slices(scale_range(volume[:c], low, high))
        size = image.shape[2:]
        coarse_size = size_at(size, pixel_mm, self.network_mm(size, pixel_mm))
        coarse = resample_slices(image, coarse_size)
        drawn = len(volume) == expected[-1]
        organ = to_slices(volume[-1:] > 0) if drawn else self.find_organ(image, coarse, network)
        organ = right_part(organ, self.right_share, axis=2)
        if self.slice_range is not None:
            first, last = self.slice_range
            organ[:first], organ[last + 1 :] = False, False
        if not organ.any():
            raise ValueError("there is nothing to search in: the organ is empty in all slices of slice_range.")
        coarse_organ = resample_slices(organ.float(), coarse_size) > 0.5
        if self.only_organ:
            coarse = torch.where(coarse_organ, coarse, 0.0)
        return Slices(coarse, organ, coarse_organ, low, high)

    def find_organ(self, image: Tensor, coarse: Tensor, network: nn.Module) -> Tensor:
        """Return where to search, bool, shape (S, 1, X, Y).

        Args:
            image: in [0, 1], shape (S, C, X, Y).
            coarse: the same on the network's grid.
            network: the container.
        """
        if self.organ == "image":
            return torch.ones_like(image[:, :1], dtype=torch.bool)
        if self.organ == "foreground":
            return to_slices(foreground(image.movedim(0, -1)))
        return resample_slices(self.segment_organ(coarse, network, 0.0).float(), image.shape[2:]) > 0.5

    def patches(self, slices: Slices) -> list[Patch]:
        """Return the patches that cover the organ."""
        margin = 0 if self.pixel_mm is None else self.margin
        return list(patches_around(slices.coarse_organ, slices.coarse_organ, self.patch_size, margin))
