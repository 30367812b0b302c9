"""Random draws that do not depend on how a batch is put together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoisePredictor = Callable[[Tensor, Tensor], Tensor]
Generators = torch.Generator | Sequence[torch.Generator] | None
Bounds = tuple[float, float] | tuple[Tensor, Tensor] | None
"""Lowest and highest clean image, as numbers or as tensors that broadcast to images; None does not clamp."""


def with_condition(model: NoisePredictor, condition: Tensor | None) -> NoisePredictor:
    """Return a model that is given a condition's channels before those of the noisy images; without one it is itself.

    Args:
        model: noise predictor.
        condition: shape (B, K, *spatial).
    """
    if condition is None:
        return model
    return lambda x_t, timesteps: model(torch.cat([condition, x_t], dim=1), timesteps)


def randn_like(image: Tensor, generator: Generators) -> Tensor:
    """Return standard normal noise of the shape, dtype and device of ``image``.

    Args:
        image: shape (B, C, *spatial).
        generator: one for the whole batch, or one for each image, which makes an image's noise independent of the rest.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(image.shape, generator=generator, dtype=image.dtype, device=image.device)
    draws = [torch.randn(image.shape[1:], generator=g, dtype=image.dtype, device=image.device) for g in generator]
    return torch.stack(draws)
