"""The objective of DDPM, and of improved DDPM where the network predicts its variance too."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from ..schedulers import NoiseSchedule


class HybridVLBLoss(_Loss):
    """L_simple, plus the variational bound of the variance if the network predicts it.

    A network with as many output channels as the image gets the mean squared error of the noise alone. One with twice
    as many also gets the term L_t of the bound, in bits per dimension, through its variance only, as the noise
    prediction is detached in it. 0.001 T L_t of Nichol and Dhariwal 2021, Eq. 16, is L_t at T = 1000, which is what
    guided-diffusion adds for any T; ``rescale`` follows the equation.

    ``p2_gamma`` above 0 gives less weight to small noise, which in a noisy image cannot be told from the image's own,
    and so more to the levels at which structures form: (1 - alpha_bar)^gamma is 1 / (1 + signal to noise)^gamma.

    Sources: Ho et al. 2020, Eq. 14; Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672, Eq. 14-16;
    Choi et al. 2022, https://arxiv.org/abs/2204.00227, Eq. 8 with k = 1.

    Args:
        schedule: of training, not respaced.
        rescale: multiply the bound by T / 1000.
        p2_gamma: 0 is the simple loss.
        reduction: ``mean``, or ``none`` for a value an image.
        error: of the noise, ``squared``, or ``absolute``, as some authors' programs have it.

    Raises:
        ValueError: for another error.

    Example:
        >>> image = torch.rand(2, 1, 8, 8)
        >>> target = {"image": image, "noise": torch.randn_like(image), "timesteps": torch.tensor([0, 999])}
        >>> float(HybridVLBLoss(NoiseSchedule(1000))(target["noise"], target))
        0.0
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        rescale: bool = False,
        p2_gamma: float = 0.0,
        reduction: str = "mean",
        error: str = "squared",
    ) -> None:
        super().__init__(reduction=reduction)
        if error not in ("squared", "absolute"):
            raise ValueError(f"error must be squared or absolute, got {error!r}.")
        self.error = error
        self.schedule, self.rescale, self.p2_gamma = schedule, rescale, p2_gamma

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Return the loss.

        Args:
            pred: output of the network at x_t, shape (B, C or 2 C, *spatial).
            target: ``image`` (x_0 in [-1, 1]) and ``noise``, shape (B, C, *spatial), and ``timesteps``, shape (B,).
        """
        image, noise, timesteps = target["image"], target["noise"], target["timesteps"]
        epsilon, v = pred.split(image.shape[1], dim=1) if pred.shape[1] > image.shape[1] else (pred, None)
        difference = (epsilon - noise).flatten(1)
        loss = (difference.square() if self.error == "squared" else difference.abs()).mean(1)
        loss = loss * (1 - self.schedule.alphas_cumprod).to(loss)[timesteps] ** self.p2_gamma
        if v is not None:
            weight = self.schedule.num_train_timesteps / 1000 if self.rescale else 1.0
            loss = loss + weight * self.variational_bound(epsilon.detach(), v, image, noise, timesteps)
        return loss.mean() if self.reduction == "mean" else loss

    def variational_bound(self, epsilon: Tensor, v: Tensor, image: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return L_t in bits per dimension, shape (B,): a divergence, at t = 0 a likelihood of 8-bit grey values."""
        schedule = self.schedule.like(image)
        x_t = schedule.add_noise(image, noise, timesteps)
        mean = schedule.posterior_mean(schedule.predict_x_0(x_t, epsilon, timesteps), x_t, timesteps)
        log_variance = schedule.learned_log_variance(v, timesteps)
        true_mean = schedule.posterior_mean(image, x_t, timesteps)
        true_log_variance = schedule.learned_log_variance(torch.full_like(v, -1), timesteps)

        divergence = 0.5 * (
            log_variance
            - true_log_variance
            + (true_log_variance - log_variance).exp()
            + (true_mean - mean).square() * (-log_variance).exp()
            - 1
        )
        bits = torch.where(
            (timesteps == 0).view(-1, *[1] * (image.ndim - 1)),
            -_log_likelihood_of_grey_values(image, mean, 0.5 * log_variance),
            divergence,
        )
        return bits.flatten(1).mean(1) / math.log(2)


def _log_likelihood_of_grey_values(image: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return log p of the 1/255-wide bin around each value of an image in [-1, 1] (Ho et al. 2020, Eq. 13)."""

    def cdf(x: Tensor) -> Tensor:  # the tanh approximation, so that values equal guided-diffusion's
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    upper = cdf((image - mean + 1 / 255) * (-log_std).exp())
    lower = cdf((image - mean - 1 / 255) * (-log_std).exp())
    probability = torch.where(image < -0.999, upper, torch.where(image > 0.999, 1 - lower, upper - lower))
    return probability.clamp(min=1e-12).log()
