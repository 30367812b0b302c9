"""What inferers share that look at an image slice by slice, patch by patch."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor, ensure_tuple
from numpy.typing import NDArray
from scipy.ndimage import label
from torch import Tensor, nn
from tqdm import tqdm

from ..transforms.grid import add_patch, crop, network_pixel_mm, patch_corners, pixel_size_mm, to_canvas
from ..transforms.organ import fill_holes

ORGAN_MULTIPLE = 16
"""Organ segmenters halve their input up to four times."""

logger = logging.getLogger(__name__)

Generators = list[torch.Generator]


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


class Patch(NamedTuple):
    """Where a patch lies.

    Attributes:
        slice_index: which slice.
        corner: its first pixel along X and Y; may be negative, see ``crop``.
    """

    slice_index: int
    corner: list[int]


def patches_around(organ: Tensor, wanted: Tensor, patch_size: Sequence[int], margin: int) -> Iterator[Patch]:
    """Yield the patches that cover the organ in each slice and show something of what is wanted.

    Args:
        organ: bool, shape (S, 1, X, Y).
        wanted: bool, of the same shape, inside the organ.
        patch_size: pixels along X and Y; an organ that is larger gets several.
        margin: pixels that a patch shows around the organ at least.
    """
    for index in wanted.flatten(1).any(1).nonzero().flatten().tolist():
        inside = organ[index, 0].nonzero()
        low, high = inside.amin(0).tolist(), inside.amax(0).tolist()
        for corner in patch_corners(low, high, patch_size, margin):
            if crop(wanted[index, 0], corner, patch_size, 0).any():
                yield Patch(index, corner)


def in_patches(
    function: Callable[..., Tensor],
    images: Sequence[tuple[Tensor, float]],
    patches: Sequence[Patch],
    patch_size: Sequence[int],
    batch_size: int,
    num_samples: int = 1,
    seed: int = 0,
    apart: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return what a function says of patches, put together to slices, and where patches lie.

    Args:
        function: takes the patches of all images, shape (B, C, *patch_size) each, and a generator for each patch;
            returns shape (B, K, *patch_size).
        images: shape (S, C, X, Y), each with the value that stands beyond its border.
        patches: where they lie.
        patch_size: pixels along X and Y.
        batch_size: patches in a batch.
        num_samples: how often each patch is done, with other generators; they share batches.
        seed: of all generators; those of a patch do not depend on the other patches of its batch.
        apart: keep what the samples give apart instead of taking their mean. Where patches overlap, the one of the
            nearest centre then answers alone, as a mean of two draws is none.

    Returns:
        Mean of all answers, shape (S, K, X, Y), 0 where there is no patch, K 1 without any; apart each sample's answer,
        shape (S, num_samples * K, X, Y). Whether there is a patch, bool, shape (S, 1, X, Y).
    """
    first = images[0][0]
    total = count = torch.zeros_like(first[:, :1])
    draws = [(patch, sample) for patch in patches for sample in range(num_samples)]
    for start in range(0, len(draws), batch_size):
        batch = draws[start : start + batch_size]
        cropped = [
            torch.stack([crop(x[p.slice_index], p.corner, patch_size, beyond) for p, _ in batch])
            for x, beyond in images
        ]
        generators = [_generator(first.device, seed, k, p.slice_index, *p.corner) for p, k in batch]
        answers = function(*cropped, generators)
        channels = answers.shape[1]
        if start == 0:
            total = total.repeat(1, channels * (num_samples if apart else 1), 1, 1)
        for (p, k), answer in zip(batch, answers, strict=True):
            own = k * channels if apart else 0
            weight = _nearest(p, patches, patch_size).to(answer) if apart else torch.ones_like(answer[:1])
            add_patch(total[p.slice_index, own : own + channels], weight * answer, p.corner)
            if not (apart and k):
                add_patch(count[p.slice_index], weight, p.corner)
    return total / count.clamp(min=1), count > 0


def _nearest(patch: Patch, patches: Sequence[Patch], patch_size: Sequence[int]) -> Tensor:
    """Return which pixels of a patch lie nearer to its centre than to that of any other of its slice, (1, X, Y)."""
    corners = [other.corner for other in patches if other.slice_index == patch.slice_index]
    x, y = (torch.arange(first, first + size) for first, size in zip(patch.corner, patch_size, strict=True))
    centres = [[c + (size - 1) / 2 for c, size in zip(corner, patch_size, strict=True)] for corner in corners]
    away = [(x - left)[:, None].square() + (y - front).square() for left, front in centres]
    return (torch.stack(away).argmin(0) == corners.index(patch.corner))[None]


def _generator(device: torch.device, seed: int, *key: int) -> torch.Generator:
    entropy = [seed, *(k + 2**16 for k in key)]  # corners may be negative, entropy may not
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def noise_predictor(
    network: nn.Module, amp: bool = False, compile: bool = False, label: int | None = None
) -> Callable[..., Tensor]:
    """Return a MONAI diffusion network as samplers call it: of the images' dtype, whatever it computes in.

    Samplers that tell it conditions themselves give them as a third argument.

    Args:
        network: ``DiffusionModelUNet``.
        amp: bfloat16 autocast.
        compile: ``torch.compile`` for it.
        label: class that a class-conditional network is told.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile and network._compiled_call_impl is None:
        network.compile()

    def predict(x_t: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        if label is not None:
            condition = torch.full_like(timesteps, label)
        classes = {} if condition is None else {"class_labels": condition}
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=amp):
            return network(x_t, timesteps, **classes).to(x_t.dtype)

    return predict


def ticking(bar: tqdm, transitions: Iterable[Any]) -> Iterator[Any]:
    """Yield what is given and move a progress bar on after each."""
    for transition in transitions:
        yield transition
        bar.update()


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
