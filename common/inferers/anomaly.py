"""Anomaly maps by comparing an organ with what it would look like in health, slice by slice."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor, ensure_tuple
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label
from torch import Tensor, nn
from tqdm import tqdm

from ..samplers.ancestral import Bounds
from ..samplers.noise import NoisePredictor
from ..samplers.repaint import jump_schedule, repaint
from ..schedulers import NoiseSchedule
from ..transforms.adaptive_mask import organ_median
from ..transforms.anomaly import anomaly_map
from ..transforms.grid import (
    add_patch,
    crop,
    from_slices,
    patch_corners,
    pixel_size_mm,
    resample_slices,
    size_at,
    to_canvas,
    to_slices,
)
from ..transforms.intensity import scale_hu, unscale_hu

CHANNELS = ("anomaly", "healthy", "mask", "organ")
"""Channels of the result: map in HU, image in HU, binary lesions, binary organ."""

ORGAN_MULTIPLE = 16
"""Organ segmenters halve their input up to four times."""

logger = logging.getLogger(__name__)


class AnomalyInferer(Inferer):
    """Compare an organ in a CT with its healthy version; what makes that version is left to subclasses.

    The slices are resampled to the network's pixels, holes are cut where the organ looks suspicious, ``fill`` heals
    them, and what it put into the holes is brought to the image's own grid and compared with the image there.

    Args:
        window: HU at -1 and 1 for the networks.
        pixel_mm: size of the network's pixels, mm.
        hole: ``adaptive_mask`` with its options: (image in HU, organ) -> what is to be healed.
        median_radius: of the final filter (see ``smooth``), pixels of ``pixel_mm``; on a finer image as wide in mm.
        threshold: of the mask in HU, used with a warning where the weights bring none.
        slice_batch_size: slices or patches in a batch.
        amp: bfloat16 autocast for the networks.
        progress: show a progress bar for each image.
    """

    def __init__(
        self,
        window: Sequence[float],
        pixel_mm: float,
        hole: Callable[..., NDArray[np.bool_]],
        median_radius: int | Sequence[int] = 2,
        threshold: float = 20.0,
        slice_batch_size: int = 16,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.window, self.pixel_mm, self.hole, self.median_radius = window, pixel_mm, hole, median_radius
        self.threshold, self.slice_batch_size, self.amp, self.progress = threshold, slice_batch_size, amp, progress

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D417
        """Return the channels ``CHANNELS`` for each image.

        Args:
            inputs: MetaTensor in HU, shape (B, 1 or 2, X, Y[, Z]), oriented with slices along the last axis; a second
                channel is the organ's mask, else the container's part ``organ`` finds the organ.
            network: container with the parts that the method needs.

        Returns:
            Shape (B, 4, X, Y[, Z]), float32.

        Raises:
            ValueError: if the organ is empty, the image not finite, or its pixel size unknown.
        """
        pixel_mm = pixel_size_mm(inputs)
        plain = convert_to_tensor(inputs, track_meta=False).float()
        return torch.stack([self.examine(image, pixel_mm, network) for image in plain])

    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return the channels of one image, shape (4, X, Y[, Z])."""
        slices = to_slices(volume)
        if not slices.isfinite().all():
            raise ValueError("the image holds NaN or infinite values.")
        image, size = slices[:, :1], slices.shape[2:]
        coarse_size = size_at(size, pixel_mm, self.pixel_mm)
        coarse = resample_slices(image, coarse_size)
        if slices.shape[1] > 1:
            organ = slices[:, 1:2] > 0
            coarse_organ = resample_slices(organ.float(), coarse_size) > 0.5
        else:
            coarse_organ = self.find_organ(scale_hu(coarse, self.window), network)
            organ = resample_slices(coarse_organ.float(), size) > 0.5
        if not organ.any():
            raise ValueError("there is no organ to search in: its mask is empty, or the network found none.")

        holes = _per_slice(self.hole, coarse, coarse_organ)
        filled = self.fill(coarse, coarse_organ, holes, network)
        hole = (resample_slices(holes.float(), size, "nearest") > 0) & organ
        healthy = torch.where(hole, resample_slices(filled, size), image)

        finer = self.pixel_mm / min(pixel_mm)
        radius = [max(round(r * finer), min(r, 1)) for r in ensure_tuple(self.median_radius)]
        anomaly = _per_slice(anomaly_map, image, healthy, organ, radius=radius)
        mask = (anomaly >= self.mask_threshold(network)) & organ
        return from_slices(torch.cat([anomaly, healthy, mask.float(), organ.float()], dim=1), volume.ndim - 1)

    def find_organ(self, slices: Tensor, network: nn.Module) -> Tensor:
        """Return where the container's part ``organ`` sees the organ: the largest connected part, its holes filled."""
        segmenter, (x, y) = network.get_submodule("organ"), slices.shape[2:]
        canvas = to_canvas(slices, ORGAN_MULTIPLE, -1.0)
        with torch.autocast(slices.device.type, torch.bfloat16, enabled=self.amp):
            logits = torch.cat([segmenter(batch) for batch in canvas.split(self.slice_batch_size)])
        return _per_slice(_largest_without_holes, logits[..., :x, :y] > 0)

    @abstractmethod
    def fill(self, image: Tensor, organ: Tensor, holes: Tensor, network: nn.Module) -> Tensor:
        """Return slices with their holes healed.

        Args:
            image: HU on the network's grid, shape (S, 1, X, Y).
            organ: bool, of the same shape.
            holes: what is to be healed, bool.
            network: the container.
        """

    def mask_threshold(self, network: nn.Module) -> float:
        """Return the threshold that came with the weights, or the key's."""
        fitted = float(getattr(network, "threshold", torch.tensor(float("nan"))))
        if np.isfinite(fitted):
            return fitted
        logger.warning(f"the weights bring no threshold: masks are made with {self.threshold:g} HU.")
        return self.threshold


class MedianAnomalyInferer(AnomalyInferer):
    """The control without a network: the organ's median in each slice takes the place of what a network would say."""

    def fill(self, image: Tensor, organ: Tensor, holes: Tensor, network: nn.Module) -> Tensor:
        """Return slices with the median in their holes."""
        return torch.where(holes, _per_slice(_median_everywhere, image, organ), image)


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
        median = scale_hu(_per_slice(_median_everywhere, image, organ), self.window)
        jobs = list(self.patches_with_holes(organ, holes))
        total, count = torch.zeros_like(scaled), torch.zeros_like(scaled)
        with tqdm(total=self.num_steps(len(jobs)), disable=not self.progress, leave=False) as bar:
            for start in range(0, len(jobs), self.slice_batch_size):
                batch = jobs[start : start + self.slice_batch_size]
                patches = Patches(
                    *(
                        torch.stack([crop(x[index], corner, self.patch_size, beyond) for index, corner in batch])
                        for x, beyond in ((scaled, -1.0), (holes, 0), (median, 0.0))
                    )
                )
                for sample in range(self.num_samples):
                    generators = [self.generator(image.device, sample, index, *corner) for index, corner in batch]
                    healed = self.heal(patches, network, generators, bar)
                    for (index, corner), patch in zip(batch, healed, strict=True):
                        add_patch(total[index], patch, corner)
                        add_patch(count[index], torch.ones_like(patch), corner)
        return torch.where(holes & (count > 0), unscale_hu(total / count.clamp(min=1), self.window), image)

    def patches_with_holes(self, organ: Tensor, holes: Tensor) -> Iterator[tuple[int, list[int]]]:
        """Yield slice and corner of each patch that has something to heal."""
        for index in holes.flatten(1).any(1).nonzero().flatten().tolist():
            inside = organ[index, 0].nonzero()
            low, high = inside.amin(0).tolist(), inside.amax(0).tolist()
            for corner in patch_corners(low, high, self.patch_size, self.margin):
                if crop(holes[index, 0], corner, self.patch_size, 0).any():
                    yield index, corner

    def generator(self, device: torch.device, *key: int) -> torch.Generator:
        """Return the source of all draws for one patch."""
        entropy = [self.seed, *(k + 2**16 for k in key)]  # corners may be negative, entropy may not
        return torch.Generator(device).manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

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


def noise_predictor(network: nn.Module, amp: bool = False, compile: bool = False) -> NoisePredictor:
    """Return a MONAI diffusion network as samplers call it: of the images' dtype, whatever it computes in."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile and network._compiled_call_impl is None:
        network.compile()

    def predict(x_t: Tensor, timesteps: Tensor) -> Tensor:
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=amp):
            return network(x_t, timesteps).to(x_t.dtype)

    return predict


def _largest_without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components, count = label(mask)
    if count == 0:
        return mask
    largest = components == np.bincount(components.ravel())[1:].argmax() + 1
    return np.stack([binary_fill_holes(largest[..., k]) for k in range(largest.shape[-1])], axis=-1)


def _median_everywhere(image: NDArray[Any], organ: NDArray[np.bool_]) -> NDArray[Any]:
    return np.broadcast_to(organ_median(image, organ), image.shape).astype(image.dtype)


def _per_slice(function: Callable[..., NDArray[Any]], *slices: Tensor, **options: Any) -> Tensor:
    """Call a function of arrays with slices along the last axis on tensors of shape (S, 1, X, Y)."""
    arrays = [x[:, 0].movedim(0, -1).cpu().numpy() for x in slices]
    result = torch.from_numpy(np.ascontiguousarray(function(*arrays, **options)))
    return result.movedim(-1, 0)[:, None].to(slices[0].device)
