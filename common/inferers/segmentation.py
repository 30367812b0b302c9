"""Segmentations with their uncertainty: masks that a diffusion model, or what it is compared with, draws many times."""

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..samplers.ancestral import sample
from ..samplers.ddim import decode
from ..samplers.noise import randn_like, with_condition
from ..schedulers import NoiseSchedule
from ..transforms.grid import from_slices, resample_slices
from .models import noise_predictor, ticking
from .patches import Generators, in_patches
from .scaled import ScaledSliceInferer

AVERAGES = ("samples", "masks")
SAMPLERS = ("ddpm", "ddim")


class EnsembleInferer(ScaledSliceInferer):
    """Segment each slice several times; what draws a segmentation is left to subclasses.

    The result has the mean and the variance over the draws for each region, then one mask, then the head, where alone
    there is something. Regions lie within one another, as whole tumour, core and enhancing tumour do: the mask counts
    those that a voxel belongs to.

    Source: Wolleb et al. 2022, "Diffusion Models for Implicit Image Segmentation Ensembles".

    Args:
        num_regions: that are segmented.
        num_samples: draws, the ensemble's members.
        average: of the ``samples`` as they are drawn, or of the ``masks`` above the threshold.
        with_members: also return the draws.
        part: name of the network in the container.
        options: see ``ScaledSliceInferer``; ``threshold`` is that of the mean.

    Raises:
        ValueError: if ``average`` is unknown.
    """

    def __init__(
        self,
        num_regions: int = 1,
        num_samples: int = 5,
        average: str = "samples",
        with_members: bool = False,
        part: str = "diffusion",
        threshold: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(threshold=threshold, **options)
        if average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}.")
        self.num_regions, self.num_samples, self.average, self.part = num_regions, num_samples, average, part
        self.with_members = with_members

    @property
    def channels(self) -> tuple[str, ...]:
        """Mean and variance of each region, how many regions a voxel is in, binary head, perhaps all draws."""
        draws = self.num_samples * self.num_regions if self.with_members else 0
        maps = (name for name in ("mean", "uncertainty") for _ in range(self.num_regions))
        return (*maps, "mask", "organ", *["members"] * draws)

    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return mean and variance of each region, the mask, the head, and perhaps all draws, each with its regions."""
        slices = self.slices(volume, pixel_mm, network)
        where, (samples, regions) = self.patches(slices), (self.num_samples, self.num_regions)
        batches = -(-len(where) * samples // self.slice_batch_size)
        with tqdm(total=batches * self.num_steps(), disable=not self.progress, leave=False) as bar:

            def draw(image: Tensor, generators: Generators) -> Tensor:
                return self.draw(image, network, generators, bar)

            images, draws = [(slices.coarse, 0.0)], (self.slice_batch_size, samples, self.seed)
            drawn = in_patches(draw, images, where, self.patch_size, *draws, apart=True)[0]
        members = drawn.unflatten(1, (samples, regions))
        if self.average == "masks":
            members = (members > self.threshold).float()
        maps = torch.cat([members.mean(1), members.var(1, correction=0)], dim=1)
        if self.with_members:
            maps = torch.cat([maps, drawn], dim=1)
        maps = torch.where(slices.organ, resample_slices(maps, slices.organ.shape[2:]), 0.0)
        mean, variance, kept = maps.split([regions, regions, maps.shape[1] - 2 * regions], dim=1)
        mask = (mean > self.threshold).float().sum(1, keepdim=True)
        return from_slices(torch.cat([mean, variance, mask, slices.organ.float(), kept], dim=1), volume.ndim - 1)

    def num_steps(self) -> int:
        """Return how often ``draw`` will update the progress bar."""
        return 1

    @abstractmethod
    def draw(self, image: Tensor, network: nn.Module, generators: Generators, bar: tqdm) -> Tensor:
        """Return a segmentation of each image, about 1 in a region, shape (B, num_regions, *patch_size).

        Args:
            image: in [0, 1], shape (B, C, *patch_size).
            network: the container.
            generators: one for each image.
            bar: to be updated after each step.
        """


class DiffusionEnsembleInferer(EnsembleInferer):
    """Masks drawn by a diffusion model that sees the image beside the noisy mask.

    Args:
        schedule: of the steps to make.
        sampler: ``ddpm`` with the learned variance, as in the paper, or ``ddim``, where the first noise is all that is
            drawn.
        compile: ``torch.compile`` for the network.
        options: see ``EnsembleInferer``.

    Raises:
        ValueError: if ``sampler`` is unknown.
    """

    def __init__(self, schedule: NoiseSchedule, sampler: str = "ddpm", compile: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}.")
        self.schedule, self.sampler, self.compile = schedule, sampler, compile

    def draw(self, image: Tensor, network: nn.Module, generators: Generators, bar: tqdm) -> Tensor:
        """Return samples."""
        model = noise_predictor(network.get_submodule(self.part), self.amp, self.compile)
        shape, progress = (len(image), self.num_regions, *image.shape[2:]), partial(ticking, bar)
        if self.sampler == "ddpm":
            return sample(model, shape, self.schedule, image, generators, progress=progress)
        noise, highest = randn_like(image.new_empty(shape), generators), self.schedule.num_train_timesteps
        return decode(with_condition(model, image), noise, self.schedule, highest, progress=progress)

    def num_steps(self) -> int:
        """Return the steps of the schedule."""
        return len(self.schedule)


class SegmenterEnsembleInferer(EnsembleInferer):
    """Probabilities of a network without diffusion, with one of two other sources of uncertainty, or with none.

    Sources: Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation"; Kendall and Gal 2017, "What Uncertainties
    Do We Need in Bayesian Deep Learning for Computer Vision?", Eq. 12.

    Args:
        dropout: the network's dropout stays on; a seed gives the same draws for the same batches.
        options: see ``EnsembleInferer``. A network with twice as many outputs as there are regions gives logits and
            logarithms of their variances; each draw is one of such logits.
    """

    def __init__(self, dropout: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.dropout = dropout

    def draw(self, image: Tensor, network: nn.Module, generators: Generators, bar: tqdm) -> Tensor:
        """Return probabilities."""
        segmenter = network.get_submodule(self.part)
        switched = [m for m in segmenter.modules() if self.dropout and isinstance(m, nn.modules.dropout._DropoutNd)]
        training = [module.training for module in switched]
        bar.update()
        with torch.random.fork_rng(devices=[image.device] if image.device.type == "cuda" else []):
            torch.manual_seed(generators[0].initial_seed())  # dropout draws from the global generator
            for module in switched:
                module.train()
            with torch.autocast(image.device.type, torch.bfloat16, enabled=self.amp):
                output = segmenter(image).float()
            for module, was in zip(switched, training, strict=True):
                module.train(was)
        if output.shape[1] > self.num_regions:
            output, log_variance = output.split(self.num_regions, dim=1)
            noise = randn_like(output, generators)
            output = output + (0.5 * log_variance).exp() * noise
        return output.sigmoid()
