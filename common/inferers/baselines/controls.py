"""Controls without a network: a method's own pipeline, with something simple in the place of its network's answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers import GaussianFilter
from monai.transforms import LoadImage
from monai.utils import convert_to_numpy, convert_to_tensor
from skimage.exposure import equalize_hist
from torch import Tensor, nn

from ..inpainting import Holes, Inpainter
from ..patches import Generators
from ..slices import Progress
from ..translation import Batch, Translator


class MedianInpainter(Inpainter):
    """The organ's median in each slice fills the holes."""

    def __call__(self, holes: Holes, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return the medians."""
        return holes.median


class MedianTranslator(Translator):
    """The organ's median in each slice and channel takes the image's place."""

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return constant images."""
        return medians(batch).expand_as(batch.image)


class BlurTranslator(Translator):
    """The image without its detail takes its place; not blurred at all, nothing changes.

    Args:
        sigma: of a Gaussian, pixels of the network.
    """

    def __init__(self, *, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return blurred images."""
        return GaussianFilter(2, self.sigma).to(batch.image.device)(batch.image) if self.sigma else batch.image


class MeanChangeTranslator(Translator):
    """Every image changes by as much as others did in the mean: what their places alone tell.

    Args:
        items: of cases on the network's grid, with their ``image`` and its ``twin`` without lesions.
        intensity_range: that is [0, 1] to the network.
    """

    def __init__(self, *, items: Sequence[Mapping[str, Any]], intensity_range: Sequence[float]) -> None:
        load, (low, high) = LoadImage(image_only=True), intensity_range
        changes = [(load(item["twin"]) - load(item["image"])).abs() for item in items]
        changed = [convert_to_tensor(change, track_meta=False) for change in changes if change.any()]
        self.change = torch.stack(changed).mean(0) / (high - low)

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return images that are brighter by the mean change."""
        return batch.image + self.change.to(batch.image)


class ChannelTranslator(Translator):
    """The map is one channel, or what it is above its median within the organ of each slice.

    Args:
        channel: in which lesions are bright.
        above_median: take the median away; what is below it is 0.
    """

    def __init__(self, *, channel: int, above_median: bool = False) -> None:
        self.channel, self.above_median = channel, above_median

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return images that differ from the given ones by the map."""
        shown = (batch.image - medians(batch)).clamp(min=0) if self.above_median else batch.image
        return with_map(batch.image, shown[:, self.channel])


class EqualizedTranslator(Translator):
    """The map is one channel, its histogram equalised within the organ of each slice.

    Source: Meissen et al. 2021, "Challenging current semi-supervised anomaly segmentation methods for brain MRI".

    Args:
        channel: in which lesions are bright.
    """

    def __init__(self, *, channel: int) -> None:
        self.channel = channel

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return images that differ from the given ones by the map."""
        pairs = zip(convert_to_numpy(batch.image[:, self.channel]), convert_to_numpy(batch.organ[:, 0]), strict=True)
        equalized = torch.stack([torch.from_numpy(equalize_hist(image, mask=organ)) for image, organ in pairs])
        return with_map(batch.image, equalized)


def medians(batch: Batch) -> Tensor:
    """Return the organ's median in each slice and channel, shape (B, C, 1, 1)."""
    inside = batch.image.masked_fill(~batch.organ, float("nan")).flatten(2)
    return inside.nanmedian(2).values[..., None, None]


def with_map(image: Tensor, found: Tensor) -> Tensor:
    """Return images whose first channel differs by a map of shape (B, X, Y)."""
    changed = image.clone()
    changed[:, 0] += found.to(image)
    return changed
