"""Networks as samplers call them, and what may be made of their answers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..samplers.ancestral import sample
from ..samplers.ddim import decode
from ..samplers.noise import NoisePredictor, randn_like, with_condition
from ..schedulers import NoiseSchedule
from .patches import Generators

MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the rank of a tensor of weights, the layout that convolutions are fastest with."""


def noise_predictor(
    network: nn.Module, amp: bool = False, compile: bool = False, label: int | None = None
) -> Callable[..., Tensor]:
    """Return a MONAI diffusion network as samplers call it: of the images' dtype, whatever it computes in.

    Samplers that tell it conditions themselves give them as a third argument.

    Args:
        network: ``DiffusionModelUNet`` of 2 or 3 dimensions.
        amp: bfloat16 autocast.
        compile: ``torch.compile`` for it.
        label: class that a class-conditional network is told.

    Example:
        >>> from monai.networks.nets import DiffusionModelUNet
        >>> unet = DiffusionModelUNet(3, 1, 1, 1, (8,), (False,), norm_num_groups=4, num_head_channels=8)
        >>> noise_predictor(unet)(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, dtype=torch.long)).shape
        torch.Size([1, 1, 8, 8, 8])
    """
    for weight in network.parameters():
        if weight.ndim in MEMORY_FORMATS:
            weight.data = weight.data.to(memory_format=MEMORY_FORMATS[weight.ndim])
    if compile and network._compiled_call_impl is None:
        network.compile()

    def predict(x_t: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        if label is not None:
            condition = torch.full_like(timesteps, label)
        classes = {} if condition is None else {"class_labels": condition}
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=amp):
            return network(x_t, timesteps, **classes).to(x_t.dtype)

    return predict


SAMPLERS = ("ddpm", "ddim")
"""Ancestral sampling, with the learned variance where there is one, and DDIM, where the first noise is all that is
drawn."""


def draw(
    model: NoisePredictor,
    condition: Tensor,
    channels: int,
    schedule: NoiseSchedule,
    sampler: str,
    generators: Generators,
    progress: Callable,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Tensor:
    """Return images that a model draws when it is shown a condition.

    Args:
        model: noise predictor, see ``with_condition``.
        condition: shape (B, K, *spatial).
        channels: of what is drawn.
        schedule: all of its steps are made.
        sampler: one of ``SAMPLERS``.
        generators: one for each image.
        progress: hands on the steps.
        bounds: of the clean image's estimate in DDIM; ancestral sampling has those of its own.
    """
    shape = (len(condition), channels, *condition.shape[2:])
    if sampler == "ddpm":
        return sample(model, shape, schedule, condition, generators, progress=progress)
    noise, highest = randn_like(condition.new_empty(shape), generators), schedule.num_train_timesteps
    return decode(with_condition(model, condition), noise, schedule, highest, bounds=bounds, progress=progress)


def refuse_other_sampler(sampler: str) -> None:
    """Check the name of a sampler.

    Raises:
        ValueError: if it is none of ``SAMPLERS``.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}.")


def finite(answer: Tensor) -> Tensor:
    """Return what networks answered, all of which must be numbers: compared with a threshold, NaN is an empty mask.

    Raises:
        ValueError: for NaN or infinite values.
    """
    if not all_finite(answer):
        raise ValueError("the networks' answer holds NaN or infinite values: look at the weights, and try without amp.")
    return answer


def all_finite(values: Tensor) -> bool:
    """Return whether there is neither NaN nor infinity; least and most say so without a mask as large as the values."""
    return not values.numel() or all(bool(end.isfinite()) for end in values.aminmax())
