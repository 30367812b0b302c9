"""Anomaly maps by comparing an organ with what it would look like in health, slice by slice."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ..samplers.ancestral import Bounds
from ..samplers.repaint import jump_schedule, repaint
from ..schedulers import NoiseSchedule
from ..transforms.adaptive_mask import organ_median
from ..transforms.anomaly import anomaly_map
from ..transforms.grid import from_slices, resample_slices, size_at, to_slices
from ..transforms.intensity import scale_hu, unscale_hu
from .models import noise_predictor
from .patches import in_patches, patches_around
from .slices import SliceInferer, per_slice


class AnomalyInferer(SliceInferer):
    """Compare an organ in a CT with its healthy version; what makes that version is left to subclasses.

    The slices are resampled to the network's pixels, holes are cut where the organ looks suspicious, ``fill`` heals
    them, and what it put into the holes is brought to the image's own grid and compared with the image there.

    The inputs are in HU; a second channel is the organ's mask, else the container's part ``organ`` finds the organ.

    Args:
        window: HU at -1 and 1 for the networks.
        hole: ``adaptive_mask`` with its options: (image in HU, organ) -> what is to be healed.
        threshold: of the mask in HU, used with a warning where the weights bring none.
        median_radius: see ``SliceInferer``.
        options: see ``SliceInferer``.
    """

    channels = ("anomaly", "healthy", "mask", "organ")
    """Map in HU, image in HU, binary lesions, binary organ."""

    def __init__(
        self,
        window: Sequence[float],
        hole: Callable[..., NDArray[np.bool_]],
        threshold: float = 20.0,
        median_radius: int | Sequence[int] = 2,
        **options: Any,
    ) -> None:
        super().__init__(threshold=threshold, median_radius=median_radius, **options)
        self.window, self.hole = window, hole

    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return map, healthy image, mask and organ of one image, shape (4, X, Y[, Z])."""
        slices = to_slices(volume)
        image, size = slices[:, :1], slices.shape[2:]
        coarse_size = size_at(size, pixel_mm, self.network_mm(size, pixel_mm))
        coarse = resample_slices(image, coarse_size)
        if slices.shape[1] > 1:
            organ = slices[:, 1:2] > 0
            coarse_organ = resample_slices(organ.float(), coarse_size) > 0.5
        else:
            coarse_organ = self.segment_organ(scale_hu(coarse, self.window), network)
            organ = resample_slices(coarse_organ.float(), size) > 0.5
        if not organ.any():
            raise ValueError("there is no organ to search in: its mask is empty, or the network found none.")

        holes = per_slice(self.hole, coarse, coarse_organ)
        filled = self.fill(coarse, coarse_organ, holes, network)
        hole = (resample_slices(holes.float(), size, "nearest") > 0) & organ
        healthy = torch.where(hole, resample_slices(filled, size), image)

        anomaly = per_slice(anomaly_map, image, healthy, organ, radius=self.filter_radius(size, pixel_mm))
        mask = (anomaly >= self.mask_threshold(network)) & organ
        return from_slices(torch.cat([anomaly, healthy, mask.float(), organ.float()], dim=1), volume.ndim - 1)

    @abstractmethod
    def fill(self, image: Tensor, organ: Tensor, holes: Tensor, network: nn.Module) -> Tensor:
        """Return slices with their holes healed.

        Args:
            image: HU on the network's grid, shape (S, 1, X, Y).
            organ: bool, of the same shape.
            holes: what is to be healed, bool.
            network: the container.
        """


class MedianAnomalyInferer(AnomalyInferer):
    """The control without a network: the organ's median in each slice takes the place of what a network would say."""

    def fill(self, image: Tensor, organ: Tensor, holes: Tensor, network: nn.Module) -> Tensor:
        """Return slices with the median in their holes."""
        return torch.where(holes, per_slice(_median_everywhere, image, organ), image)


class Patches(NamedTuple):
    """What a network is to heal, shape (B, 1, *patch_size) each.

    Attributes:
        image: in [-1, 1].
        hole: what will be taken from the answer, bool.
        median: of the organ in the slice of each patch, scaled as the image.
    """

    image: Tensor
    hole: Tensor
    median: Tensor


class PatchAnomalyInferer(AnomalyInferer):
    """A network heals patches around the organ, in batches.

    Args:
        patch_size: the network's input, pixels along X and Y; an organ that is larger gets several.
        num_samples: healthy versions that are averaged.
        margin: pixels that a patch shows around the organ at least.
        seed: of all draws; those of a patch do not depend on the other patches of its batch.
        options: see ``AnomalyInferer``.
    """

    def __init__(
        self, patch_size: Sequence[int], num_samples: int = 1, margin: int = 8, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.patch_size, self.num_samples, self.margin, self.seed = patch_size, num_samples, margin, seed

    def fill(self, image: Tensor, organ: Tensor, holes: Tensor, network: nn.Module) -> Tensor:
        """Return slices with their holes healed by the network."""
        scaled = scale_hu(image, self.window)
        median = scale_hu(per_slice(_median_everywhere, image, organ), self.window)
        images = [(scaled, -1.0), (holes, 0), (median, 0.0)]
        where = list(patches_around(organ, holes, self.patch_size, self.margin))
        with tqdm(total=self.num_steps(len(where)), disable=not self.progress, leave=False) as bar:

            def heal(scaled: Tensor, hole: Tensor, median: Tensor, generators: list[torch.Generator]) -> Tensor:
                return self.heal(Patches(scaled, hole, median), network, generators, bar)

            draws = (self.slice_batch_size, self.num_samples, self.seed)
            healed, covered = in_patches(heal, images, where, self.patch_size, *draws)
        return torch.where(holes & covered, unscale_hu(healed, self.window), image)

    def num_steps(self, num_patches: int) -> int:
        """Return how often ``heal`` will update the progress bar."""
        return -(-num_patches // self.slice_batch_size) * self.num_samples

    @abstractmethod
    def heal(self, patches: Patches, network: nn.Module, generators: list[torch.Generator], bar: tqdm) -> Tensor:
        """Return healthy versions of patches.

        Args:
            patches: a batch of B.
            network: the container.
            generators: one for each patch.
            bar: to be updated after each step.

        Returns:
            In [-1, 1], shape (B, 1, *patch_size); what is outside the holes is not used.
        """


class RepaintAnomalyInferer(PatchAnomalyInferer):
    """GDPI: a diffusion model of healthy slices inpaints the suspicious parts of the organ.

    Source: Shi et al. 2024, "CT-based Anomaly Detection of Liver Tumors Using Generative Diffusion Prior".

    Args:
        schedule: respaced to the steps to make.
        jump_length: see ``jump_schedule``.
        num_resamples: see ``jump_schedule``.
        fill_range: HU that a filling may lie below and above the organ's median, as (-30, 100): what fills the organ
            is the organ, not the fat beside it. None, as in the paper, lets the model draw what it likes.
        part: name of the diffusion model in the container.
        compile: ``torch.compile`` for it.
        options: see ``PatchAnomalyInferer``.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        jump_length: int = 10,
        num_resamples: int = 10,
        fill_range: Sequence[float] | None = None,
        part: str = "diffusion",
        compile: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.schedule, self.jump_length, self.num_resamples = schedule, jump_length, num_resamples
        self.fill_range, self.part, self.compile = fill_range, part, compile

    def heal(self, patches: Patches, network: nn.Module, generators: list[torch.Generator], bar: tqdm) -> Tensor:
        """Return the patches with their holes inpainted."""

        def ticking(transitions: Iterable[Any]) -> Iterator[Any]:
            for transition in transitions:
                yield transition
                bar.update()

        model = noise_predictor(network.get_submodule(self.part), self.amp, self.compile)
        jumps = (self.jump_length, self.num_resamples)
        bounds: Bounds = (-1.0, 1.0)
        if self.fill_range is not None:
            scaled = [2 * hu / (self.window[1] - self.window[0]) for hu in self.fill_range]
            limits = [(patches.median + hu).clamp(-1, 1) for hu in scaled]
            bounds = (limits[0].where(patches.hole, -1.0), limits[1].where(patches.hole, 1.0))
        return repaint(model, patches.image, patches.hole, self.schedule, *jumps, generators, bounds, ticking)

    def num_steps(self, num_patches: int) -> int:
        """Return the transitions of all batches."""
        levels = jump_schedule(len(self.schedule), self.jump_length, self.num_resamples)
        return super().num_steps(num_patches) * (len(levels) - 1)


class ReconstructionAnomalyInferer(PatchAnomalyInferer):
    """Autoencoders: the healthy version is the reconstruction of the patch.

    Args:
        part: name of the autoencoder in the container.
        options: see ``PatchAnomalyInferer``; its ``hole`` should be the whole organ.
    """

    def __init__(self, part: str, **options: Any) -> None:
        super().__init__(**options)
        self.part = part

    def heal(self, patches: Patches, network: nn.Module, generators: list[torch.Generator], bar: tqdm) -> Tensor:
        """Return the reconstructions."""
        with torch.autocast(patches.image.device.type, torch.bfloat16, enabled=self.amp):
            output = network.get_submodule(self.part)(patches.image)
        bar.update()
        reconstruction = output[0] if isinstance(output, tuple) else output  # a variational one also returns its code
        return reconstruction.float()


def _median_everywhere(image: NDArray[Any], organ: NDArray[np.bool_]) -> NDArray[Any]:
    return np.broadcast_to(organ_median(image, organ), image.shape).astype(image.dtype)
