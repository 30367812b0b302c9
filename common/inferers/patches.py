"""Images of any dimension as patches, in batches, and back."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..transforms.grid import add_patch, crop, patch_corners

Generators = list[torch.Generator]


class Patch(NamedTuple):
    """Where a patch lies.

    Attributes:
        item: which slice or volume.
        corner: its first pixel along each axis; may be negative, see ``crop``.
    """

    item: int
    corner: list[int]


def patches_around(organ: Tensor, target: Tensor, patch_size: Sequence[int], margin: int) -> Iterator[Patch]:
    """Yield the patches that cover the organ in each slice or volume and show something of a target.

    Args:
        organ: bool, shape (S, 1, *spatial).
        target: bool, of the same shape, inside the organ.
        patch_size: pixels along each axis; an organ that is larger gets several.
        margin: pixels that a patch shows around the organ at least.
    """
    for index in target.flatten(1).any(1).nonzero().flatten().tolist():
        inside = organ[index, 0].nonzero()
        low, high = inside.amin(0).tolist(), inside.amax(0).tolist()
        for corner in patch_corners(low, high, patch_size, margin):
            if crop(target[index, 0], corner, patch_size, 0).any():
                yield Patch(index, corner)


def in_patches(
    function: Callable[..., Tensor],
    images: Sequence[tuple[Tensor, float]],
    patches: Sequence[Patch],
    patch_size: Sequence[int],
    batch_size: int,
    num_samples: int = 1,
    seed: int | Sequence[int] = 0,
    apart: bool = False,
) -> tuple[Tensor, Tensor]:
    """Call a function on patches, in batches, and put its answers together again.

    Args:
        function: takes the patches of all images, shape (B, C, *patch_size) each, and a generator for each patch;
            returns shape (B, K, *patch_size).
        images: shape (S, C, *spatial), each with the value that stands beyond its border.
        patches: where they lie.
        patch_size: pixels along each axis.
        batch_size: patches in a batch.
        num_samples: how often each patch is sampled, with other generators; samples share batches.
        seed: of all generators; those of a patch do not depend on the other patches of its batch. With one for each
            item, neither do they depend on which items there are.
        apart: keep the samples as channels of their own instead of their mean. Where patches overlap, the one of the
            nearest centre then answers alone, since a mean of two samples is not one.

    Returns:
        The mean over samples and overlapping patches, shape (S, K, *spatial), or with ``apart`` the samples one after
        another, shape (S, num_samples * K, *spatial); 0 where there is no patch, and K is 1 if there is none at all.
        Then whether there is a patch, bool, shape (S, 1, *spatial).
    """
    first = images[0][0]
    total = count = torch.zeros_like(first[:, :1])
    samples = [(patch, sample) for patch in patches for sample in range(num_samples)]
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        cropped = [
            torch.stack([crop(image[patch.item], patch.corner, patch_size, beyond) for patch, _ in batch])
            for image, beyond in images
        ]
        generators = [_generator(first.device, seed, sample, patch) for patch, sample in batch]
        answers = function(*cropped, generators)
        channels = answers.shape[1]
        if start == 0:
            total = total.repeat_interleave(channels * (num_samples if apart else 1), 1)
        for (patch, sample), answer in zip(batch, answers, strict=True):
            own = sample * channels if apart else 0
            weight = _nearest(patch, patches, patch_size).to(answer) if apart else torch.ones_like(answer[:1])
            add_patch(total[patch.item, own : own + channels], weight * answer, patch.corner)
            if not (apart and sample):
                add_patch(count[patch.item], weight, patch.corner)
    return total / count.clamp(min=1), count > 0


def _nearest(patch: Patch, patches: Sequence[Patch], patch_size: Sequence[int]) -> Tensor:
    """Return which pixels of a patch lie nearer to its centre than to that of any other, shape (1, *patch_size)."""
    corners = [other.corner for other in patches if other.item == patch.item]
    axes = [torch.arange(first, first + size) for first, size in zip(patch.corner, patch_size, strict=True)]
    places = torch.meshgrid(*axes, indexing="ij")
    centres = [[c + (size - 1) / 2 for c, size in zip(corner, patch_size, strict=True)] for corner in corners]
    squares = ([(x - c).square() for x, c in zip(places, centre, strict=True)] for centre in centres)
    away = [sum(each, torch.zeros(())) for each in squares]
    return (torch.stack(away).argmin(0) == corners.index(patch.corner))[None]


def _generator(device: torch.device, seed: int | Sequence[int], sample: int, patch: Patch) -> torch.Generator:
    own, item = (seed, patch.item) if isinstance(seed, int) else (seed[patch.item], 0)
    entropy = [own, *(k + 2**16 for k in (sample, item, *patch.corner))]  # corners may be negative, entropy may not
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
