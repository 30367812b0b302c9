"""The network's grid: an image as the networks see it, and where they are to look."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from monai.utils import ensure_tuple
from torch import Tensor

from ..transforms.grid import MAX_VOXELS, network_pixel_mm, resample_slices, size_at, to_slices
from ..transforms.intensity import intensity_range, scale_range
from ..transforms.organ import foreground, right_part
from .patches import Patch, patches_around

ORGANS = {"foreground": "all above 0", "network": "found by the network", "image": "the whole image"}
"""Where to search without an organ mask: where a channel is above 0, what the part ``organ`` finds, or everywhere."""


class View(NamedTuple):
    """An image as the networks are to see it, and where they are to look.

    Attributes:
        coarse: slices of the image on the network's grid, shape (S, C, x, y).
        organ: where to search, on the image's own grid, bool, shape (S, 1, X, Y).
        coarse_organ: the same on the network's grid.
        low: intensity of the image that ``coarse`` has as 0, for each channel, shape (C, 1, ...).
        high: intensity that it has as 1.
        finer: how many pixels of the image, at the most, a pixel of the network's grid is wide.
    """

    coarse: Tensor
    organ: Tensor
    coarse_organ: Tensor
    low: Tensor
    high: Tensor
    finer: float


class Grid:
    """Scales intensities, finds the organ, and resamples slices to the network's pixels.

    What it is given are the channels of an image, then those that an inferer needs besides, then the organ's mask if
    there is one.

    Args:
        pixel_mm: size of the network's pixels; None see ``network_pixel_mm``.
        patch_size: the networks' input, pixels along X and Y; an organ that is larger gets several patches.
        num_channels: of the image.
        normalize: see ``intensity_range``; None leaves intensities as they are.
        percentile: see ``intensity_range``.
        organ: where to search without an organ mask, one of ``ORGANS``.
        only_organ: set what lies outside the organ to 0 for the networks.
        right_share: of the organ, however it was found, the ``right_part`` is searched.
        slice_range: first and last slice that are searched, counted from the feet; None searches all.
        margin: pixels that a patch shows around the organ at least, if ``pixel_mm`` is given; else it shows the image.
        max_voxels: see ``resample_slices``.

    Raises:
        ValueError: if ``organ`` is none of ``ORGANS``, there are no pixels, or no slices in ``slice_range``.
    """

    def __init__(
        self,
        *,
        pixel_mm: float | None,
        patch_size: Sequence[int],
        num_channels: int = 1,
        normalize: str | Sequence[float] | None = "volume",
        percentile: float = 99.0,
        organ: str = "foreground",
        only_organ: bool = False,
        right_share: float = 1.0,
        slice_range: Sequence[int] | None = None,
        margin: int = 2,
        max_voxels: int = MAX_VOXELS,
    ) -> None:
        if organ not in ORGANS:
            raise ValueError(f"organ must be one of {', '.join(ORGANS)}, got {organ!r}.")
        if min(patch_size) < 1 or (pixel_mm is not None and not pixel_mm > 0):
            raise ValueError(f"patch_size must be >= 1, and pixel_mm > 0, got {patch_size} and {pixel_mm}.")
        if slice_range is not None and not 0 <= slice_range[0] <= slice_range[1]:
            raise ValueError(f"slice_range must be a first and a last slice, counted from 0, got {slice_range}.")
        self.pixel_mm, self.patch_size, self.num_channels = pixel_mm, patch_size, num_channels
        self.scaled, self.organ, self.only_organ = normalize is not None, organ, only_organ
        self.intensity_range = partial(
            intensity_range, normalize="none" if normalize is None else normalize, percentile=percentile
        )
        self.right_share, self.slice_range = right_share, slice_range
        self.max_voxels = max_voxels
        self.margin = 0 if pixel_mm is None else margin

    def view(
        self, volume: Tensor, pixel_mm: tuple[float, float], find_organ: Callable[[Tensor], Tensor], more: str = ""
    ) -> View:
        """Return an image on the network's grid, and its organ.

        Args:
            volume: channels, shape (C, X, Y[, Z]).
            pixel_mm: of its pixels along X and Y.
            find_organ: says of coarse slices where a network sees the organ, bool, shape (S, 1, x, y).
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
        image = to_slices(scale_range(volume[:c], low, high) if self.scaled else volume[:c])
        size = image.shape[2:]
        network_mm = network_pixel_mm(self.pixel_mm, size, pixel_mm, self.patch_size)
        coarse_size = size_at(size, pixel_mm, network_mm)
        coarse, coarse_organ = resample_slices(image, coarse_size, max_voxels=self.max_voxels), None
        if len(volume) == expected[-1]:
            organ = to_slices(volume[-1:] > 0)
        elif self.organ == "network":
            coarse_organ = find_organ(coarse)
            organ = resample_slices(coarse_organ.float(), size) > 0.5
        elif self.organ == "image":
            organ = torch.ones_like(image[:, :1], dtype=torch.bool)
        else:
            organ = to_slices(foreground(image.movedim(0, -1)))
        if self.right_share != 1:
            organ, coarse_organ = right_part(organ, self.right_share, axis=2), None
        if self.slice_range is not None:
            first, last = self.slice_range
            organ[:first], organ[last + 1 :], coarse_organ = False, False, None
        if not organ.any():
            raise ValueError(
                "there is no organ to search in: its mask is empty, the network found none, or slice_range leaves none."
            )
        if coarse_organ is None:
            coarse_organ = resample_slices(organ.float(), coarse_size) > 0.5
        if self.only_organ:
            coarse = torch.where(coarse_organ, coarse, 0.0)
        return View(coarse, organ, coarse_organ, low, high, network_mm / min(pixel_mm))

    def patches(self, view: View, shown: Tensor | None = None) -> list[Patch]:
        """Return the patches that cover the organ, or those of them that show something of a part of it.

        Args:
            view: of an image.
            shown: bool, shape (S, 1, x, y), inside the organ.
        """
        return list(
            patches_around(
                view.coarse_organ, view.coarse_organ if shown is None else shown, self.patch_size, self.margin
            )
        )


def filter_radius(median_radius: int | Sequence[int], view: View) -> list[int]:
    """Return the radius of a median filter, given in pixels of the network, in those of an image; as wide in mm."""
    return [max(round(radius * view.finer), min(radius, 1)) for radius in ensure_tuple(median_radius)]
