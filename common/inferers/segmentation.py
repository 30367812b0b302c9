"""Segmentations with their uncertainty: masks that are sampled many times."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..schedulers import NoiseSchedule
from ..transforms.grid import from_slices, resample_slices
from .grid import Grid
from .models import draw, noise_predictor, refuse_other_sampler
from .patches import Generators
from .slices import Progress, SlicewiseInferer, Stepwise

AVERAGES = ("samples", "masks")


class Segmenter(Stepwise, ABC):
    """Samples a segmentation of images; how is left to subclasses."""

    @abstractmethod
    def __call__(
        self, image: Tensor, num_regions: int, network: nn.Module, generators: Generators, progress: Progress
    ) -> Tensor:
        """Return a segmentation of each image, about 1 in a region, shape (B, num_regions, *patch_size).

        Args:
            image: in [0, 1], shape (B, C, *patch_size).
            num_regions: that are segmented.
            network: the container.
            generators: one for each image.
            progress: hands on the steps of a sampler.
        """


class EnsembleInferer(SlicewiseInferer):
    """Segment each slice several times, and say where the samples differ.

    Regions lie within one another, as whole tumour, core and enhancing tumour do. Outside the head all results are 0.

    Source: Wolleb et al. 2022, "Diffusion Models for Implicit Image Segmentation Ensembles".

    Args:
        grid: the network's.
        segmenter: makes a sample.
        num_regions: that are segmented.
        num_samples: the ensemble's members.
        average: of the ``samples`` as they are, or of the ``masks`` above the threshold.
        with_members: also return the samples.
        threshold: of the mean, and of the members with ``masks``.
        slice_batch_size: see ``SlicewiseInferer``.
        seed: see ``SlicewiseInferer``.
        amp: see ``SlicewiseInferer``.
        progress: see ``SlicewiseInferer``.

    Raises:
        ValueError: if ``average`` is unknown, or there is no region.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        segmenter: Segmenter,
        num_regions: int = 1,
        num_samples: int = 5,
        average: str = "samples",
        with_members: bool = False,
        threshold: float = 0.5,
        slice_batch_size: int = 16,
        seed: int = 0,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(
            grid=grid,
            threshold=threshold,
            num_samples=num_samples,
            slice_batch_size=slice_batch_size,
            seed=seed,
            amp=amp,
            progress=progress,
        )
        if average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}.")
        if num_regions < 1:
            raise ValueError(f"num_regions must be >= 1, got {num_regions}.")
        self.segmenter, self.num_regions, self.average, self.with_members = (
            segmenter,
            num_regions,
            average,
            with_members,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Mean and variance of each region, how many regions a voxel is in, binary head, perhaps all samples."""
        count = self.num_samples * self.num_regions if self.with_members else 0
        maps = (name for name in ("mean", "uncertainty") for _ in range(self.num_regions))
        return (*maps, "mask", "organ", *["members"] * count)

    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return the ``channels`` of one image; of the samples, all regions of the first, then of the second."""
        samples, regions = self.num_samples, self.num_regions
        view = self.grid.view(volume, pixel_mm, partial(self.segment_organ, network=network))

        def sampled(image: Tensor, generators: Any, progress: Progress) -> Tensor:
            return self.segmenter(image, regions, network, generators, progress)

        where = self.grid.patches(view)
        found = self.in_batches(sampled, [(view.coarse, 0.0)], where, self.segmenter.num_steps, apart=True)[0]
        members = found.unflatten(1, (samples, regions))
        if self.average == "masks":
            members = (members > self.threshold).float()
        maps = torch.cat([members.mean(1), members.var(1, correction=0)], dim=1)
        if self.with_members:
            maps = torch.cat([maps, found], dim=1)
        maps = torch.where(view.organ, resample_slices(maps, view.organ.shape[2:]), 0.0)
        mean, variance, kept = maps.split([regions, regions, maps.shape[1] - 2 * regions], dim=1)
        mask = (mean > self.threshold).float().sum(1, keepdim=True)
        return torch.cat([from_slices(x, volume.ndim - 1) for x in (mean, variance, mask, view.organ, kept)])


class DiffusionSegmenter(Segmenter):
    """Masks sampled from a diffusion model that sees the image beside the noisy mask.

    Args:
        schedule: of the steps to make.
        sampler: ``ddpm`` with the learned variance, as in the paper, or ``ddim``, where the first noise is all that is
            drawn, and the estimate of the mask is clamped to [0, 1] at each step.
        part: name of the diffusion model in the container.
        amp: bfloat16 autocast for it.
        compile: ``torch.compile`` for it.

    Raises:
        ValueError: if ``sampler`` is unknown.
    """

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        sampler: str = "ddpm",
        part: str = "diffusion",
        amp: bool = False,
        compile: bool = False,
    ) -> None:
        refuse_other_sampler(sampler)
        self.schedule, self.sampler, self.part, self.amp, self.compile = schedule, sampler, part, amp, compile

    def __call__(
        self, image: Tensor, num_regions: int, network: nn.Module, generators: Generators, progress: Progress
    ) -> Tensor:
        """Return samples."""
        model = noise_predictor(network.get_submodule(self.part), self.amp, self.compile)
        of_masks = (0.0, 1.0)
        return draw(model, image, num_regions, self.schedule, self.sampler, generators, progress, of_masks)

    @property
    def num_steps(self) -> int:
        """The steps of the schedule."""
        return len(self.schedule)
