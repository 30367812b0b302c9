"""What inferers share that look at an image slice by slice, patch by patch."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor, ensure_tuple
from numpy.typing import NDArray
from scipy.ndimage import label
from torch import Tensor, nn

from ..transforms.grid import network_pixel_mm, pixel_size_mm, to_canvas
from ..transforms.organ import fill_holes

ORGAN_MULTIPLE = 16
"""Organ segmenters halve their input up to four times."""

logger = logging.getLogger(__name__)


class SliceInferer(Inferer):
    """Examine images one after another; what is looked for is left to subclasses.

    Args:
        pixel_mm: size of the network's pixels, mm; None see ``network_pixel_mm``.
        threshold: of the mask in the map's unit, used with a warning where the weights bring none.
        median_radius: of the map's filter (see ``smooth``), pixels of the network; on a finer image as wide in mm.
        slice_batch_size: slices or patches in a batch.
        amp: bfloat16 autocast for the networks.
        progress: show a progress bar for each image.
    """

    patch_size: Sequence[int] = ()
    """The networks' input, pixels along X and Y; inferers without one need ``pixel_mm``."""

    def __init__(
        self,
        pixel_mm: float | None,
        threshold: float,
        median_radius: int | Sequence[int] = 0,
        slice_batch_size: int = 16,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.pixel_mm, self.threshold, self.median_radius = pixel_mm, threshold, median_radius
        self.slice_batch_size, self.amp, self.progress = slice_batch_size, amp, progress

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D417
        """Return what ``examine`` says of each image, stacked.

        Args:
            inputs: MetaTensor, shape (B, C, X, Y[, Z]), oriented with slices along the last axis.
            network: container with the parts that the method needs.

        Raises:
            ValueError: if the organ is empty, the image not finite, or its pixel size unknown.
        """
        pixel_mm = pixel_size_mm(inputs)
        plain = convert_to_tensor(inputs, track_meta=False).float()
        if not plain.isfinite().all():
            raise ValueError("the image holds NaN or infinite values.")
        return torch.stack([self.examine(image, pixel_mm, network) for image in plain])

    @property
    @abstractmethod
    def channels(self) -> tuple[str, ...]:
        """What each channel of the result is; channels of one name belong together."""

    @abstractmethod
    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return the channels of one image.

        Args:
            volume: shape (C, X, Y[, Z]), finite.
            pixel_mm: of its pixels along X and Y.
            network: the container.
        """

    def segment_organ(self, slices: Tensor, network: nn.Module, background: float = -1.0) -> Tensor:
        """Return where the container's part ``organ`` sees the organ: the largest connected part, its holes filled."""
        segmenter, (x, y) = network.get_submodule("organ"), slices.shape[2:]
        canvas = to_canvas(slices, ORGAN_MULTIPLE, background)
        with torch.autocast(slices.device.type, torch.bfloat16, enabled=self.amp):
            logits = torch.cat([segmenter(batch) for batch in canvas.split(self.slice_batch_size)])
        return per_slice(_largest_without_holes, logits[..., :x, :y] > 0)

    def network_mm(self, shape: Sequence[int], pixel_mm: tuple[float, float]) -> float:
        """Return the size of the network's pixels for an image, see ``network_pixel_mm``."""
        return network_pixel_mm(self.pixel_mm, shape, pixel_mm, self.patch_size)

    def filter_radius(self, shape: Sequence[int], pixel_mm: tuple[float, float]) -> list[int]:
        """Return ``median_radius`` in pixels of an image."""
        finer = self.network_mm(shape, pixel_mm) / min(pixel_mm)
        return [max(round(r * finer), min(r, 1)) for r in ensure_tuple(self.median_radius)]

    def mask_threshold(self, network: nn.Module) -> float:
        """Return the threshold that came with the weights, or the key's."""
        fitted = float(getattr(network, "threshold", torch.tensor(float("nan"))))
        if np.isfinite(fitted):
            return fitted
        logger.warning(f"the weights bring no threshold: masks are made with {self.threshold:g}.")
        return self.threshold


def per_slice(function: Callable[..., NDArray[Any]], *slices: Tensor, **options: Any) -> Tensor:
    """Call a function of arrays with slices along the last axis on tensors of shape (S, 1, X, Y)."""
    arrays = [x[:, 0].movedim(0, -1).cpu().numpy() for x in slices]
    result = torch.from_numpy(np.ascontiguousarray(function(*arrays, **options)))
    return result.movedim(-1, 0)[:, None].to(slices[0].device)


def _largest_without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components, count = label(mask)
    if count == 0:
        return mask
    return fill_holes(components == np.bincount(components.ravel())[1:].argmax() + 1)
