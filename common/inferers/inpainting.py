"""Anomaly maps by translation to health within holes: an organ's suspicious parts are inpainted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..transforms.adaptive_mask import organ_median
from ..transforms.anomaly import anomaly_map
from ..transforms.grid import resample_slices, to_slices
from ..transforms.intensity import scale_hu, unscale_hu
from .grid import Grid, filter_radius
from .patches import Generators
from .slices import Progress, SlicewiseInferer, Stepwise, per_slice


class Holes(NamedTuple):
    """What is to be inpainted, shape (B, 1, *patch_size) each.

    Attributes:
        image: in [-1, 1].
        hole: what will be taken from the answer, bool.
        median: of the organ in the slice of each patch, scaled as the image.
        organ: bool.
    """

    image: Tensor
    hole: Tensor
    median: Tensor
    organ: Tensor


class Inpainter(Stepwise, ABC):
    """Makes a healthy version of images with holes; how is left to subclasses."""

    @abstractmethod
    def __call__(self, holes: Holes, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return healthy versions, in [-1, 1]; what is outside the holes is not used.

        Args:
            holes: what is to be inpainted.
            network: the container.
            generators: one for each image.
            progress: hands on the steps of a sampler.
        """


def chosen_inpainter(sampler: str, conditioned: Inpainter, repaint: Inpainter) -> Inpainter:
    """Return one of two inpainters.

    Args:
        sampler: ``conditioned`` or ``repaint``.
        conditioned: a network that has learned to fill holes.
        repaint: a diffusion model of images without any.

    Raises:
        ValueError: for another name.
    """
    known = {"conditioned": conditioned, "repaint": repaint}
    if sampler not in known:
        raise ValueError(f"sampler must be one of {', '.join(known)}, got {sampler!r}.")
    return known[sampler]


class InpaintingInferer(SlicewiseInferer):
    """Compare an organ in a CT with its healthy version, where it looks suspicious.

    The slices are resampled to the network's pixels, holes are cut where the organ looks suspicious, and what is
    inpainted there is brought to the image's own grid and compared with the image.

    Args:
        grid: the network's, of an image in HU whose intensities it leaves as they are.
        inpainter: fills the holes.
        window: HU at -1 and 1 for the networks.
        hole: ``adaptive_mask`` with its options: (image in HU, organ) -> what is inpainted.
        threshold: of the mask in HU, see ``SlicewiseInferer``.
        default_threshold: see ``SlicewiseInferer``.
        median_radius: of the map's filter (see ``smooth``), pixels of the network; on a finer image as wide in mm.
        num_samples: healthy versions that are averaged.
        slice_batch_size: see ``SlicewiseInferer``.
        seed: see ``SlicewiseInferer``.
        amp: see ``SlicewiseInferer``.
        progress: see ``SlicewiseInferer``.
    """

    channels = ("anomaly", "healthy", "mask", "organ")
    """Map in HU, image in HU, binary lesions, binary organ."""

    def __init__(
        self,
        *,
        grid: Grid,
        inpainter: Inpainter,
        window: Sequence[float],
        hole: Callable[..., NDArray[np.bool_]],
        threshold: float | None = None,
        default_threshold: float = 20.0,
        median_radius: int | Sequence[int] = 2,
        num_samples: int = 1,
        slice_batch_size: int = 16,
        seed: int = 0,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(
            grid=grid,
            threshold=threshold,
            default_threshold=default_threshold,
            num_samples=num_samples,
            slice_batch_size=slice_batch_size,
            seed=seed,
            amp=amp,
            progress=progress,
        )
        self.inpainter, self.window, self.hole, self.median_radius = inpainter, window, hole, median_radius

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers that the values of a map depend on."""
        return {**self.inpainter.settings, **super().settings, "median_radius": self.median_radius}

    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return map, healthy image, mask and organ of one image, shape (4, X, Y[, Z])."""

        def find_organ(coarse: Tensor) -> Tensor:
            return self.segment_organ(scale_hu(coarse, self.window), network, -1.0)

        view = self.grid.view(volume, pixel_mm, find_organ)
        holes = per_slice(self.hole, view.coarse, view.coarse_organ)
        inpainted = self.inpaint(view.coarse, view.coarse_organ, holes, self.grid.patches(view, holes), network)

        image, size = to_slices(volume[:1]), view.organ.shape[2:]
        radius, threshold = filter_radius(self.median_radius, view), self.said_threshold(network)
        result = volume.new_empty(len(self.channels), *volume.shape[1:])
        for first in range(0, len(image), self.slice_batch_size):  # so that only the result is in memory whole
            some = slice(first, first + self.slice_batch_size)
            part, organ = image[some], view.organ[some]
            hole = (resample_slices(holes[some].float(), size, "nearest") > 0) & organ
            healthy = torch.where(hole, resample_slices(inpainted[some], size), part)
            anomaly = per_slice(anomaly_map, part, healthy, organ, radius=radius)
            to_slices(result)[some] = torch.cat([anomaly, healthy, (anomaly >= threshold) & organ, organ], dim=1)
        return result

    def inpaint(self, image: Tensor, organ: Tensor, holes: Tensor, where: Any, network: nn.Module) -> Tensor:
        """Return slices with their holes inpainted.

        Args:
            image: HU on the network's grid, shape (S, 1, x, y).
            organ: bool, of the same shape.
            holes: what is inpainted, bool.
            where: patches that show something of them.
            network: the container.
        """
        scaled = scale_hu(image, self.window)
        median = scale_hu(per_slice(_median_everywhere, image, organ), self.window)

        def fill(*patches: Any, progress: Progress) -> Tensor:
            *batch, generators = patches
            return self.inpainter(Holes(*batch), network, generators, progress)

        images = [(scaled, -1.0), (holes, 0), (median, 0.0), (organ, 0)]
        filled, covered = self.in_batches(fill, images, where, self.inpainter.num_steps)
        return torch.where(holes & covered, unscale_hu(filled, self.window), image)


def _median_everywhere(image: NDArray[Any], organ: NDArray[np.bool_]) -> NDArray[Any]:
    return np.broadcast_to(organ_median(image, organ), image.shape).astype(image.dtype)
