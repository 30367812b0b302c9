"""Networks that look at noisy images, as they are trained."""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from ..schedulers import NoiseSchedule


class NoisyInferer(Inferer):
    """Call a network on noisy versions of its inputs; MONAI's ``DiffusionInferer`` has no class labels.

    Args:
        schedule: all timesteps of the training.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def __call__(
        self,
        inputs: Tensor,
        network: Any,
        noise: Tensor,
        timesteps: Tensor,
        class_labels: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Return what the network says of x_t.

        Args:
            inputs: x_0, shape (B, C, *spatial).
            network: takes x_t and timesteps, and ``class_labels`` if they are given.
            noise: standard normal, of the same shape.
            timesteps: of the schedule, shape (B,).
            class_labels: shape (B,), for a class-conditional network.
            condition: images that the network sees beside x_t, as its first channels, shape (B, K, *spatial).
        """
        x_t = self.schedule.add_noise(inputs, noise, timesteps)
        x_t = x_t if condition is None else torch.cat([condition, x_t], dim=1)
        classes = {} if class_labels is None else {"class_labels": class_labels}
        return network(x_t, timesteps, **classes)
