"""DDPM sampling, with fixed or learned variance."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..schedulers import NoiseSchedule, at
from .guidance import Guide, total_guidance
from .noise import Bounds, Generators, NoisePredictor, randn_like, with_condition


def mean_and_log_variance(
    model: NoisePredictor, x_t: Tensor, step: int, schedule: NoiseSchedule, bounds: Bounds = (-1.0, 1.0)
) -> tuple[Tensor, Tensor]:
    """Return the Gaussian p(x_{t-1} | x_t) of the reverse process.

    The variance is the posterior's ("fixed small") or, where the model predicts it, interpolated in the logarithm.

    Sources: Ho et al. 2020, Eq. 7 and 11; Nichol and Dhariwal 2021, Eq. 15.

    Args:
        model: noise predictor.
        x_t: noisy images, shape (B, C, *spatial).
        step: of the schedule, in [0, N - 1].
        schedule: with tables on the device of ``x_t``.
        bounds: the clean image's estimate is clamped to them.
    """
    output = model(x_t, schedule.timesteps[step].expand(len(x_t)))
    epsilon, v = output.split(x_t.shape[1], dim=1) if output.shape[1] > x_t.shape[1] else (output, None)
    x_0 = schedule.predict_x_0(x_t, epsilon, step)
    mean = schedule.posterior_mean(x_0.clamp(*bounds) if bounds else x_0, x_t, step)
    if v is None:
        return mean, at(schedule.posterior_log_variance, step, x_t)
    return mean, schedule.learned_log_variance(v, step)


def ancestral_step(
    model: NoisePredictor,
    x_t: Tensor,
    step: int,
    schedule: NoiseSchedule,
    generator: Generators = None,
    bounds: Bounds = (-1.0, 1.0),
    guides: Sequence[Guide] = (),
) -> Tensor:
    """Sample x_{t-1} ~ p(x_{t-1} | x_t); the last one, at step 0, is the mean.

    Guides shift the mean by the variance times their gradients (Dhariwal and Nichol 2021, Algorithm 1).
    """
    mean, log_variance = mean_and_log_variance(model, x_t, step, schedule, bounds)
    if guides:
        timesteps = schedule.timesteps[step].expand(len(x_t))
        mean = mean + log_variance.exp() * total_guidance(guides, x_t, timesteps)
    if step == 0:
        return mean
    return mean + (0.5 * log_variance).exp() * randn_like(x_t, generator)


@torch.no_grad()
def sample(
    model: NoisePredictor,
    shape: Sequence[int],
    schedule: NoiseSchedule,
    condition: Tensor | None = None,
    generator: Generators = None,
    **options: Any,
) -> Tensor:
    """Sample images from the model.

    Source: Ho et al. 2020, Algorithm 2, on the steps of a respaced schedule.

    Args:
        model: noise predictor; with a condition it is given condition and noisy images as channels, in this order.
        shape: of the images, (B, C, *spatial).
        schedule: all its steps are made.
        condition: images, shape (B, K, *spatial), on the device of the noise; without it that is the generator's.
        generator: see ``randn_like``.
        options: see ``denoise``.

    Returns:
        Images in [-1, 1], of the condition's dtype and device.

    Example:
        >>> def model(x_t, timesteps):
        ...     return x_t  # a network's noise prediction, perhaps with the variance as further channels
        >>> schedule = NoiseSchedule(1000, num_inference_steps=10)
        >>> sample(model, (2, 1, 8, 8), schedule, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 8, 8])
    """
    first = generator[0] if isinstance(generator, Sequence) else generator
    empty = torch.empty(0, device=None if first is None else first.device) if condition is None else condition
    noise = randn_like(empty.new_empty(shape), generator)
    return denoise(with_condition(model, condition), noise, schedule, generator, **options)


@torch.no_grad()
def denoise(
    model: NoisePredictor,
    noisy: Tensor,
    schedule: NoiseSchedule,
    generator: Generators = None,
    bounds: Bounds = (-1.0, 1.0),
    guides: Sequence[Guide] = (),
    num_steps: int | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Tensor:
    """Sample the images that noisy ones may come from.

    Args:
        model: noise predictor.
        noisy: x_t before the steps that are made, shape (B, C, *spatial).
        schedule: all its steps are made, or the last ones.
        generator: see ``randn_like``.
        bounds: the clean image's estimate is clamped to them at each step.
        guides: see ``ancestral_step``.
        num_steps: how many of the schedule's steps are made; all by default.
        progress: wraps the loop, for instance ``tqdm``.

    Returns:
        Images in [-1, 1], of the shape, dtype and device of ``noisy``.
    """
    schedule = schedule.like(noisy)
    x_t = noisy
    for step in progress(range((num_steps or len(schedule)) - 1, -1, -1)):
        x_t = ancestral_step(model, x_t, step, schedule, generator, bounds, guides)
    return x_t
