"""Slices sampled from a diffusion model, and real ones to compare them with."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from ..progress import bar
from ..samplers.ancestral import sample
from ..schedulers import NoiseSchedule
from ..transforms.grid import crop, pixel_size_mm, resample_slices, size_at, to_slices
from ..transforms.intensity import unscale_hu
from ..transforms.slices import eligible_slices
from .models import finite, noise_predictor


def generate_slices(
    network: nn.Module,
    schedule: NoiseSchedule,
    patch_size: Sequence[int],
    window: Sequence[float],
    count: int = 6,
    seed: int = 0,
    amp: bool = False,
) -> Tensor:
    """Return slices sampled from a diffusion model, HU, shape (count, *patch_size).

    Args:
        network: diffusion model.
        schedule: respaced to the steps to make.
        patch_size: pixels along X and Y.
        window: HU at -1 and 1.
        count: slices, sampled in one batch.
        seed: of the samples.
        amp: bfloat16 autocast for the network.

    Raises:
        ValueError: if they are not finite.
    """
    device = next(network.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    network.eval()
    model, shape = noise_predictor(network, amp), (count, 1, *patch_size)
    generated = sample(model, shape, schedule, generator=generator, progress=bar)
    return unscale_hu(finite(generated)[:, 0], window).cpu()


def real_slices(dataset: Any, pixel_mm: float, patch_size: Sequence[int], count: int = 6) -> Tensor:
    """Return healthy slices of a data set on the network's grid, the organ in their middle, HU, (count, *patch_size).

    Args:
        dataset: items with ``image`` (image and organ as channels, HU) and perhaps ``label``, oriented.
        pixel_mm: size of the network's pixels.
        patch_size: pixels along X and Y.
        count: slices, from as many cases as there are.
    """
    patches: list[Tensor] = []
    each = -(-count // len(dataset))
    for item in dataset:
        volume = item["image"]
        size = size_at(volume.shape[1:], pixel_size_mm(volume), pixel_mm)
        slices = resample_slices(to_slices(convert_to_tensor(volume, track_meta=False).float()), size)
        image, organ = slices[:, :1], slices[:, 1:2]
        if not (organ > 0).any():
            organ = torch.ones_like(image)
        label = to_slices(item["label"]) if "label" in item else None
        eligible = eligible_slices(organ, label, len(image))
        if len(eligible) == 0:
            continue
        for k in eligible[torch.linspace(0, len(eligible) - 1, each).round().long()].tolist():
            inside = (organ[k, 0] > 0).nonzero()
            middle = (inside.amin(0) + inside.amax(0)) // 2
            corner = [int(m) - n // 2 for m, n in zip(middle, patch_size, strict=True)]
            patches.append(crop(image[k, 0], corner, patch_size, -1000.0))
    return torch.stack(patches[:count])
