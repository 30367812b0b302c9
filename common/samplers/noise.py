"""Random draws that do not depend on how a batch is put together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoisePredictor = Callable[[Tensor, Tensor], Tensor]
Generators = torch.Generator | Sequence[torch.Generator] | None
Bounds = tuple[float, float] | tuple[Tensor, Tensor] | None
"""Lowest and highest clean image, as numbers or as tensors that broadcast to images; None does not clamp."""


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
