"""Controls without a network: a method's own pipeline, with something simple in the place of its network's answer."""

import torch
from monai.utils import convert_to_numpy
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
        inside = batch.image.masked_fill(~batch.organ, float("nan")).flatten(2)
        return inside.nanmedian(2).values[..., None, None].expand_as(batch.image)


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


def with_map(image: Tensor, found: Tensor) -> Tensor:
    """Return images whose first channel differs by a map of shape (B, X, Y)."""
    changed = image.clone()
    changed[:, 0] += found.to(image)
    return changed
