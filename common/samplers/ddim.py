"""From an image to noise and back along the DDIM trajectory, with guidance on the way back."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..schedulers import NoiseSchedule
from .guidance import Guide, total_guidance
from .noise import Bounds, Generators, NoisePredictor, randn_like

INDEX_MODES = ("paper", "paired", "authors")
CLIP_MODES = ("none", "authors")
KEEPS = ("device", "cpu", "bfloat16")


class Trajectory:
    """The way of images to noise, which ``decode`` then leaves only as far as it is pulled away: an exact inversion.

    Each step back is corrected by what the same step makes wrong of the way that is known, so that without guidance the
    image comes back whatever the number of steps. It costs one more call of the network, and the memory.

    Source: the correction is that of Ju et al. 2024, "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of
    Code", Algorithm 1, which makes it for the image alone; here it is made for what becomes of it too.

    Args:
        keep_on: where images and noises of all levels are kept: on their own ``device``, on the ``cpu``, or there in
            ``bfloat16``, which is exact to three digits.

    Raises:
        ValueError: for another place.
    """

    def __init__(self, keep_on: str = "device") -> None:
        _expect("keep_on", keep_on, KEEPS)
        half: dict[str, Any] = {"device": "cpu", "dtype": torch.bfloat16}
        self.place = {"device": {}, "cpu": {"device": "cpu"}, "bfloat16": half}[keep_on]
        self.levels: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, level: int, x_t: Tensor, epsilon: Tensor) -> None:
        """Keep images of a level, and the noise that was predicted in them."""
        self.levels[level] = (x_t.to(**self.place), epsilon.to(**self.place))

    def step(self, x_t: Tensor, epsilon: Tensor, level: int, next_level: int, schedule: NoiseSchedule) -> Tensor:
        """Return ``ddim_step``, corrected; as that is linear, the correction is a step of the differences."""
        (known, noise), (known_next, _) = ([x.to(x_t) for x in self.levels[k]] for k in (level, next_level))
        return known_next + ddim_step(x_t - known, epsilon - noise, level, next_level, schedule)


def encoding_levels(num_steps: int, index_mode: str = "paper") -> range:
    """Return the noise levels on the way to noise; those of fewer steps are their beginning.

    Level 0 is the clean image, level k + 1 has the alpha_bar of step k of the schedule, whose timestep the network is
    told there; at level 0, for which it has none, it is told 0. ``paper`` starts at level 0. ``paired`` takes the
    image for one of level 1, so that level and step always agree. ``authors`` is what the released program does: the
    image, with the noise of level 1 added, is taken for one of level 2.

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", Algorithm 1.

    Raises:
        ValueError: for another mode.
    """
    _expect("index_mode", index_mode, INDEX_MODES)
    first, last = {"paper": (0, num_steps), "paired": (1, num_steps + 1), "authors": (2, num_steps + 1)}[index_mode]
    return range(first, last + 1)


def decoding_levels(num_steps: int, index_mode: str = "paper") -> range:
    """Return the noise levels on the way back; ``authors`` takes the latent for one two levels below its own.

    Raises:
        ValueError: for another mode.
    """
    _expect("index_mode", index_mode, INDEX_MODES)
    return {
        "paper": range(num_steps, -1, -1),
        "paired": range(num_steps + 1, 0, -1),
        "authors": range(num_steps - 1, -1, -1),
    }[index_mode]


def steps_below(noise_level: int, schedule: NoiseSchedule, index_mode: str = "paper") -> int:
    """Return how many steps of a schedule lie below a training timestep.

    Raises:
        ValueError: if the timestep lies outside the schedule, or a mode needs a level above the last.
    """
    highest = schedule.num_train_timesteps
    if not 1 <= noise_level <= highest:
        raise ValueError(f"noise_level must lie in [1, {highest}], the timesteps of training, got {noise_level}.")
    num_steps = int((schedule.timesteps < noise_level).sum())
    if encoding_levels(num_steps, index_mode).stop > len(schedule) + 1:
        raise ValueError(f"noise_level {noise_level} needs all levels, which only index_mode 'paper' leaves; use that.")
    return num_steps


@torch.no_grad()
def encode(
    model: NoisePredictor,
    image: Tensor,
    schedule: NoiseSchedule,
    noise_level: int | Sequence[int],
    index_mode: str = "paper",
    clip_mode: str = "none",
    heun: bool = False,
    generator: Generators = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    trajectory: Trajectory | None = None,
) -> Any:
    """Carry images towards noise; one pass gives the latents of all noise levels.

    Nothing is drawn at random but the noise that ``authors`` starts with: the same image gives the same latent, and
    ``decode`` leads back to it up to the discretisation error.

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", Eq. 6.

    Args:
        model: noise predictor; what it says of the variance is left out.
        image: in the range that the model was trained on, shape (B, C, *spatial).
        schedule: all of the training timesteps, or some with ``trailing`` spacing, which ends at ``noise_level``.
        noise_level: training timestep of the latent, L in the paper, or several.
        index_mode: see ``encoding_levels``.
        clip_mode: see ``predict_noise``.
        heun: correct each step with the noise predicted at its end: twice the calls, an error of second order.
        generator: of the noise of ``authors``, see ``randn_like``.
        progress: wraps the loop over all transitions, for instance ``tqdm``.
        trajectory: is told all levels, for an exact way back.

    Returns:
        The latent, of the shape, dtype and device of ``image``; for several noise levels a list of them.

    Raises:
        ValueError: if a noise level lies outside the schedule, or a mode is unknown.

    Example:
        >>> def model(x_t, timesteps):
        ...     return 0 * x_t  # a network's noise prediction
        >>> schedule = NoiseSchedule(1000, num_inference_steps=100, spacing="trailing")
        >>> low, high = encode(model, torch.ones(1, 1, 8, 8), schedule, [200, 500])
        >>> bool((low > high).all())
        True
    """
    noise_levels = [noise_level] if isinstance(noise_level, int) else noise_level
    last_levels = [encoding_levels(steps_below(n, schedule, index_mode), index_mode)[-1] for n in noise_levels]
    levels = range(encoding_levels(1, index_mode)[0], max(last_levels) + 1)
    schedule = schedule.like(image)
    x_t = image
    if index_mode == "authors":
        x_t = schedule.add_noise(image, randn_like(image, generator), 0)
    latents = {levels[0]: x_t}
    for level, next_level in progress(list(pairwise(levels))):
        epsilon = predict_noise(model, x_t, level, schedule, clip_mode=clip_mode)
        if trajectory is not None:
            trajectory.add(level, x_t, epsilon)
        x_next = ddim_step(x_t, epsilon, level, next_level, schedule)
        if heun:
            at_the_end = predict_noise(model, x_next, next_level, schedule, clip_mode=clip_mode)
            x_next = ddim_step(x_t, (epsilon + at_the_end) / 2, level, next_level, schedule)
        x_t = latents[next_level] = x_next
    if trajectory is not None:
        trajectory.add(levels[-1], x_t, predict_noise(model, x_t, levels[-1], schedule, clip_mode=clip_mode))
    found = [latents[level] for level in last_levels]
    return found[0] if isinstance(noise_level, int) else found


@torch.no_grad()
def decode(
    model: NoisePredictor,
    latent: Tensor,
    schedule: NoiseSchedule,
    noise_level: int,
    guidance: Guide | Sequence[Guide] | None = None,
    index_mode: str = "paper",
    clip_mode: str = "none",
    bounds: Bounds = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    trajectory: Trajectory | None = None,
) -> Tensor:
    """Carry latents back to images, towards what the guides want.

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", Algorithm 1.

    Args:
        model: noise predictor.
        latent: from ``encode`` with the same schedule and modes, shape (B, C, *spatial).
        schedule: see ``encode``.
        noise_level: of the latent.
        guidance: the gradients of several guides are added up; None leads back to the image that was encoded.
        index_mode: see ``decoding_levels``.
        clip_mode: see ``predict_noise``.
        bounds: see ``ddim_step``; a latent that is drawn as noise, at the end of the schedule, needs those of images.
        progress: see ``encode``.
        trajectory: of the encoding, for an exact inversion.

    Returns:
        Images, of the shape, dtype and device of ``latent``.

    Raises:
        ValueError: if the noise level lies outside the schedule, a mode is unknown, or the trajectory has other levels.

    Example:
        >>> def model(x_t, timesteps):
        ...     return 0 * x_t  # a network's noise prediction
        >>> schedule, image = NoiseSchedule(1000), torch.rand(1, 1, 8, 8)
        >>> torch.allclose(decode(model, encode(model, image, schedule, 500), schedule, 500), image, atol=1e-4)
        True
    """
    levels = decoding_levels(steps_below(noise_level, schedule, index_mode), index_mode)
    if trajectory is not None and not set(levels) <= set(trajectory.levels):
        raise ValueError(f"the way back leaves the levels that were encoded, as with index_mode {index_mode!r}.")
    guides = [guidance] if callable(guidance) else list(guidance or ())
    schedule = schedule.like(latent)
    step = partial(ddim_step, bounds=bounds) if trajectory is None else trajectory.step
    x_t = latent
    for level, next_level in progress(list(pairwise(levels))):
        epsilon = predict_noise(model, x_t, level, schedule, guides, clip_mode)
        x_t = step(x_t, epsilon, level, next_level, schedule)
    return x_t


def predict_noise(
    model: NoisePredictor,
    x_t: Tensor,
    level: int,
    schedule: NoiseSchedule,
    guides: Sequence[Guide] = (),
    clip_mode: str = "none",
) -> Tensor:
    """Return the noise in images of a level, shifted by the guides.

    Sources: Dhariwal and Nichol 2021, Algorithm 2; Wolleb et al. 2022, Eq. 7.

    Args:
        model: noise predictor.
        x_t: shape (B, C, *spatial).
        level: see ``encoding_levels``.
        schedule: with tables on the device of ``x_t``.
        guides: their gradients are added up.
        clip_mode: ``authors`` clamps the clean image that the noise implies to [-1, 1] before the guides shift it, as
            the released program does, on the way to noise too, which then no longer leads back.

    Raises:
        ValueError: for another mode.
    """
    _expect("clip_mode", clip_mode, CLIP_MODES)
    timestep = schedule.timesteps[level - 1] if level > 0 else torch.zeros_like(schedule.timesteps[0])
    timesteps = timestep.expand(len(x_t))
    epsilon = model(x_t, timesteps)[:, : x_t.shape[1]]
    if clip_mode == "authors" and level > 0:
        x_0 = schedule.predict_x_0(x_t, epsilon, level - 1)
        epsilon = schedule.noise_in(x_t, x_0.clamp(-1, 1), level - 1)
    if guides and level > 0:  # at level 0 there is no noise to shift
        shift = total_guidance(guides, x_t, timesteps)
        epsilon = epsilon - schedule.sqrt_one_minus_alphas_cumprod[level - 1] * shift
    return epsilon


def ddim_step(
    x_t: Tensor, epsilon: Tensor, level: int, next_level: int, schedule: NoiseSchedule, bounds: Bounds = None
) -> Tensor:
    """Return images of another level with the same noise (Song et al. 2021, Eq. 12 with sigma 0).

    Args:
        x_t: shape (B, C, *spatial).
        epsilon: the noise in them.
        level: of ``x_t``, see ``encoding_levels``.
        next_level: of the result.
        schedule: with tables on the device of ``x_t``.
        bounds: the clean image's estimate is clamped to them ("static thresholding", Saharia et al. 2022, section 2.3):
            at the end of a linear schedule it has 160 times the error of the noise. The noise stays as it is predicted,
            as in MONAI's scheduler; computed anew from the clamped image, it would carry on what was cut off.
    """
    x_0 = schedule.predict_x_0(x_t, epsilon, level - 1) if level > 0 else x_t
    x_0 = x_0.clamp(*bounds) if bounds else x_0
    return schedule.add_noise(x_0, epsilon, next_level - 1) if next_level > 0 else x_0


def _expect(name: str, value: str, values: Sequence[str]) -> None:
    if value not in values:
        raise ValueError(f"{name} must be one of {', '.join(values)}, got {value!r}.")
