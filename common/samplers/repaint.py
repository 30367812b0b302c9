"""Inpainting with an unconditional diffusion model: RePaint, as GDPI uses it."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..schedulers import NoiseSchedule
from .ancestral import ancestral_step
from .noise import Bounds, Generators, NoisePredictor, randn_like


def jump_schedule(num_inference_steps: int, jump_length: int, num_resamples: int) -> list[int]:
    """Return the noise levels that RePaint visits, from N - 1 down to -1, the clean image.

    At each multiple of ``jump_length`` below N - ``jump_length`` the way down is interrupted by going ``jump_length``
    up and down again, ``num_resamples`` - 1 times. A pair (t, t - 1) is a call of the network, (t, t + 1) adds noise.

    Source: Lugmayr et al. 2022, section 4.2 and appendix; N = 250, 10, 10 is the paper's schedule.

    Args:
        num_inference_steps: N.
        jump_length: levels to go back at a time.
        num_resamples: how often each stretch is denoised, r in GDPI; 1 is a plain descent.

    Raises:
        ValueError: if one of them is below 1.

    Example:
        >>> jump_schedule(4, jump_length=2, num_resamples=2)
        [3, 2, 1, 0, 1, 2, 1, 0, -1]
    """
    if min(num_inference_steps, jump_length, num_resamples) < 1:
        raise ValueError(
            "num_inference_steps, jump_length and num_resamples must be >= 1, "
            f"got {num_inference_steps}, {jump_length} and {num_resamples}."
        )
    levels = [num_inference_steps - 1]
    for turn in reversed(range(0, num_inference_steps - jump_length, jump_length)):
        levels += range(levels[-1] - 1, turn - 1, -1)
        up, down = range(turn + 1, turn + jump_length + 1), range(turn + jump_length - 1, turn - 1, -1)
        levels += [*up, *down] * (num_resamples - 1)
    return [*levels, *range(levels[-1] - 1, -2, -1)]


@torch.no_grad()
def repaint(
    model: NoisePredictor,
    image: Tensor,
    hole: Tensor,
    schedule: NoiseSchedule,
    jump_length: int = 10,
    num_resamples: int = 10,
    generator: Generators = None,
    bounds: Bounds = (-1.0, 1.0),
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Tensor:
    """Fill holes with what the model expects there, given the rest.

    The known part joins at level t - 1, after the step (GDPI's Eq. 14), so the result equals ``image`` exactly outside
    the hole; the authors of RePaint merge before the step instead, which leaves a trace of noise there.

    Sources: Lugmayr et al. 2022, https://arxiv.org/abs/2201.09865, Algorithm 1; Shi et al. 2024 (GDPI), Eq. 12-14.

    Args:
        model: noise predictor.
        image: known pixels, in [-1, 1], shape (B, C, *spatial); what is in the hole is not looked at.
        hole: true where the image is to be filled, bool, broadcastable to ``image``.
        schedule: respaced to the steps to make.
        jump_length: see ``jump_schedule``.
        num_resamples: see ``jump_schedule``.
        generator: see ``randn_like``.
        bounds: the clean image's estimate is clamped to them at each step; those of what is known beforehand of the
            hole's content keep the model from drawing other things there.
        progress: wraps the loop over all transitions, for instance ``tqdm``.

    Returns:
        Filled images, of the shape, dtype and device of ``image``.

    Example:
        >>> def model(x_t, timesteps):
        ...     return x_t  # a network's noise prediction
        >>> image, hole = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        >>> hole[..., 2:4, 2:4] = True
        >>> filled = repaint(model, image, hole, NoiseSchedule(1000, num_inference_steps=5), 1, 2)
        >>> bool((filled == image)[~hole].all())
        True
    """
    schedule = schedule.like(image)
    levels = jump_schedule(len(schedule), jump_length, num_resamples)
    x_t = randn_like(image, generator)
    for level, next_level in progress(list(pairwise(levels))):
        if next_level < level:
            unknown = ancestral_step(model, x_t, level, schedule, generator, bounds)
            x_t = torch.where(hole, unknown, _known_part(image, next_level, schedule, generator))
        else:
            # One step of the forward process; beta belongs to the level it reaches.
            beta = schedule.betas[next_level]
            x_t = (1 - beta).sqrt() * x_t + beta.sqrt() * randn_like(image, generator)
    return x_t


def _known_part(image: Tensor, level: int, schedule: NoiseSchedule, generator: Generators) -> Tensor:
    """Return the image, as noisy as the level says (GDPI's Eq. 12)."""
    if level < 0:
        return image
    return schedule.add_noise(image, randn_like(image, generator), level)
