"""Where an image depends on its class: the difference of two denoising chains with different conditions."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..schedulers import NoiseSchedule
from .ddim import ddim_step, predict_noise
from .guidance import Guide
from .noise import Generators, randn_like

INDEX_MODES = ("paper", "authors")

ConditionalModel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t, timesteps, shares of the classes, shape (B, classes)) -> noise prediction; the condition is the mean of the
classes' embeddings by these shares."""


@torch.no_grad()
def condition_difference(
    model: ConditionalModel,
    image: Tensor,
    schedule: NoiseSchedule,
    noise_level: int,
    num_steps: int,
    tau: float = 0.95,
    classes: tuple[int, int] = (0, 1),
    num_classes: int = 2,
    guide: Callable[[Tensor], Guide] | None = None,
    index_mode: str = "paper",
    clip_mode: str = "none",
    divide: bool = True,
    generator: Generators = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Tensor:
    """Return the signed difference of an image's chain under its class and that under nearly the same condition.

    Both chains start from the same noisy image and go through the network in one batch.

    Source: Hu et al. 2023, "Conditional Diffusion Models for Weakly Supervised Medical Image Segmentation",
    Algorithm 1.

    Args:
        model: noise predictor with a condition; what it says of the variance is left out.
        image: in the range that the model was trained on, shape (B, C, *spatial).
        schedule: all of the training timesteps.
        noise_level: timestep that the image is noised to, Q in the paper.
        num_steps: consecutive timesteps Q, Q - 1, ... that differences are summed over, R in the paper.
        tau: share of the image's class in the other chain's condition.
        classes: y0, the class without what is looked for, and y1, that of the images.
        num_classes: that the model knows.
        guide: makes a guide towards the class of each image of a batch, shape (2 B,): y1 in the first half, y0 in the
            second, as in CG-CDM.
        index_mode: ``authors`` noises the image to one level more than it is then taken for, as the released program.
        clip_mode: see ``predict_noise``.
        divide: by 1 - tau; the released program does not.
        generator: of the noise, see ``randn_like``.
        progress: wraps the loop, for instance ``tqdm``.

    Returns:
        Difference summed over the steps, of the shape, dtype and device of ``image``.

    Raises:
        ValueError: if the steps do not fit below ``noise_level``, the schedule has fewer steps than in training,
            ``tau`` is not in [0, 1), or a class or mode is unknown.

    Example:
        >>> def model(x_t, timesteps, condition):
        ...     return 0.1 * condition[:, 1].view(-1, 1, 1, 1) * torch.ones_like(x_t)  # class 1 has noise of its own
        >>> image = torch.zeros(1, 1, 8, 8)
        >>> difference = condition_difference(model, image, NoiseSchedule(1000), noise_level=50, num_steps=10)
        >>> bool(difference.abs().min() > 0)
        True
    """
    _check(schedule, noise_level, num_steps, tau, classes, num_classes, index_mode)
    schedule = schedule.like(image)
    noisy = schedule.add_noise(image, randn_like(image, generator), noise_level - (index_mode == "paper"))
    healthy, diseased = torch.eye(num_classes, dtype=image.dtype, device=image.device)[list(classes)]
    conditions = torch.stack([diseased, tau * diseased + (1 - tau) * healthy]).repeat_interleave(len(image), dim=0)
    targets = torch.tensor(classes[::-1], device=image.device).repeat_interleave(len(image))
    guides = [guide(targets)] if guide else []

    x_t, total = torch.cat([noisy, noisy]), torch.zeros_like(image)
    for level, next_level in progress(list(pairwise(range(noise_level, noise_level - num_steps - 1, -1)))):
        epsilon = predict_noise(lambda x, t: model(x, t, conditions), x_t, level, schedule, guides, clip_mode)
        x_t = ddim_step(x_t, epsilon, level, next_level, schedule)
        ours, other = x_t.chunk(2)
        total += ours - other
    return total / (1 - tau) if divide else total


def _check(
    schedule: NoiseSchedule,
    noise_level: int,
    num_steps: int,
    tau: float,
    classes: Sequence[int],
    num_classes: int,
    index_mode: str,
) -> None:
    highest = schedule.num_train_timesteps - (index_mode != "paper")
    if index_mode not in INDEX_MODES:
        raise ValueError(f"index_mode must be one of {', '.join(INDEX_MODES)}, got {index_mode!r}.")
    if len(schedule) != schedule.num_train_timesteps:
        raise ValueError(f"expected a schedule of all {schedule.num_train_timesteps} timesteps, got {len(schedule)}.")
    if not 1 <= noise_level <= highest:
        raise ValueError(f"noise_level must lie in [1, {highest}], got {noise_level}.")
    if not 1 <= num_steps <= noise_level:
        raise ValueError(f"the number of steps must lie in [1, {noise_level}], the noise_level, got {num_steps}.")
    if not 0 <= tau < 1:
        raise ValueError(f"tau must lie in [0, 1), got {tau}.")
    if not all(0 <= c < num_classes for c in classes):
        raise ValueError(f"classes must lie in [0, {num_classes - 1}], got {tuple(classes)}.")
