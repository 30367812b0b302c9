"""The noise schedule that all samplers and losses share."""

from copy import copy

import torch
from torch import Tensor


class NoiseSchedule:
    """Tables of a Gaussian diffusion process, whole or respaced to fewer steps.

    A respaced schedule keeps the noise levels of some training timesteps and rebuilds the betas between them from
    alpha_bar, so that each of its steps is again an exact step of a (coarser) diffusion process. MONAI's
    ``DDPMScheduler`` keeps the betas of the full schedule instead, and then leaves too much noise in the image.

    Sources: Ho et al. 2020 (linear betas), Nichol and Dhariwal 2021 (cosine betas, respacing).

    Attributes:
        timesteps: training timestep of each step, what a network is told, int64, shape (N,), increasing.
        betas: beta_t, shape (N,) as all others.
        alphas_cumprod: alpha_bar_t.
        alphas_cumprod_prev: alpha_bar_{t-1}, 1 at the first step.
        sqrt_alphas_cumprod: share of the clean image in x_t.
        sqrt_one_minus_alphas_cumprod: share of the noise in x_t; a root of the float64 table, since next to 1 a float32
            one would leave it three correct digits.
        posterior_variance: variance of q(x_{t-1} | x_t, x_0), 0 at the first step.
        posterior_log_variance: its logarithm, at the first step that of the second, where there is one.
        posterior_mean_x_0: weight of x_0 in the mean of q(x_{t-1} | x_t, x_0).
        posterior_mean_x_t: weight of x_t in it.
        log_betas: logarithm of beta_t.

        All tables but ``timesteps`` are float64 unless ``like`` has cast them.

    Args:
        num_train_timesteps: steps that the network was trained with, T.
        kind: ``linear`` (1e-4 to 0.02 at T = 1000, scaled by 1000 / T for others as in guided-diffusion) or ``cosine``.
        num_inference_steps: steps to keep, N; all by default.
        spacing: ``fractional`` spreads N steps evenly from the first to the last timestep and rounds, ``strided`` takes
            every k-th from the first, for the one k that gives N steps, ``trailing`` ends N equal stretches: with 100
            of 1000 at timesteps 9, 19, ... 999.
        max_beta: upper bound of cosine betas: 0.999 in the paper, 0.9999 in DiffTumor.

    Raises:
        ValueError: if N is not in [1, T], no stride gives N steps, or a name is unknown.

    Example:
        >>> schedule = NoiseSchedule(1000, num_inference_steps=4, spacing="trailing")
        >>> schedule.timesteps.tolist()
        [249, 499, 749, 999]
        >>> image = torch.zeros(2, 1, 8, 8)
        >>> schedule.add_noise(image, torch.randn_like(image), 3).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        kind: str = "linear",
        num_inference_steps: int | None = None,
        spacing: str = "fractional",
        max_beta: float = 0.999,
    ) -> None:
        self.num_train_timesteps = num_train_timesteps
        alphas_cumprod = (1 - _betas(kind, num_train_timesteps, max_beta)).cumprod(0)
        kept = num_train_timesteps if num_inference_steps is None else num_inference_steps
        self.timesteps = _kept_timesteps(num_train_timesteps, kept, spacing)
        self.alphas_cumprod = alphas_cumprod[self.timesteps]
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        self.sqrt_alphas_cumprod = self.alphas_cumprod.sqrt()
        self.sqrt_one_minus_alphas_cumprod = (1 - self.alphas_cumprod).sqrt()
        self.betas = 1 - self.alphas_cumprod / self.alphas_cumprod_prev
        self.log_betas = self.betas.log()

        self.posterior_variance = self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        second_for_first = torch.arange(len(self)).clamp(min=min(1, len(self) - 1))
        self.posterior_log_variance = self.posterior_variance[second_for_first].clamp(min=1e-20).log()
        self.posterior_mean_x_0 = self.betas * self.alphas_cumprod_prev.sqrt() / (1 - self.alphas_cumprod)
        self.posterior_mean_x_t = (1 - self.alphas_cumprod_prev) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)

    def __len__(self) -> int:
        return len(self.timesteps)

    def like(self, image: Tensor) -> "NoiseSchedule":
        """Return a copy with its tables on the device and of the dtype of ``image``; call it once, before a loop."""
        moved = copy(self)
        for name, table in vars(self).items():
            if isinstance(table, Tensor):
                dtype = image.dtype if table.is_floating_point() else table.dtype
                setattr(moved, name, table.to(image.device, dtype))
        return moved

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: int | Tensor) -> Tensor:
        """Return x_t ~ q(x_t | x_0) for given noise (Ho et al. 2020, Eq. 4); arguments are named as in MONAI.

        Args:
            original_samples: x_0, shape (B, C, *spatial).
            noise: standard normal, of the same shape.
            timesteps: step of this schedule, or one for each image, shape (B,); the training timesteps if it is not
                respaced.
        """
        clean = at(self.sqrt_alphas_cumprod, timesteps, original_samples)
        return clean * original_samples + at(self.sqrt_one_minus_alphas_cumprod, timesteps, noise) * noise

    def predict_x_0(self, x_t: Tensor, epsilon: Tensor, step: int | Tensor) -> Tensor:
        """Return the clean image that the noise prediction implies (Ho et al. 2020, Eq. 15)."""
        noise = at(self.sqrt_one_minus_alphas_cumprod, step, x_t) * epsilon
        return (x_t - noise) / at(self.sqrt_alphas_cumprod, step, x_t)

    def noise_in(self, x_t: Tensor, x_0: Tensor, step: int | Tensor) -> Tensor:
        """Return the noise that makes x_t of x_0, the inverse of ``add_noise``."""
        clean = at(self.sqrt_alphas_cumprod, step, x_t) * x_0
        return (x_t - clean) / at(self.sqrt_one_minus_alphas_cumprod, step, x_t)

    def posterior_mean(self, x_0: Tensor, x_t: Tensor, step: int | Tensor) -> Tensor:
        """Return the mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, Eq. 7)."""
        return at(self.posterior_mean_x_0, step, x_t) * x_0 + at(self.posterior_mean_x_t, step, x_t) * x_t

    def learned_log_variance(self, v: Tensor, step: int | Tensor) -> Tensor:
        """Return the log variance between posterior (v = -1) and beta (v = 1), Nichol and Dhariwal 2021, Eq. 15."""
        share = (v + 1) / 2
        low, high = at(self.posterior_log_variance, step, v), at(self.log_betas, step, v)
        return share * high + (1 - share) * low


def at(table: Tensor, steps: int | Tensor, image: Tensor) -> Tensor:
    """Return the entries of a table for the steps of a batch, ready to be multiplied with ``image``."""
    if isinstance(steps, int):
        return table[steps].to(image)
    return table.to(image)[steps].view(-1, *[1] * (image.ndim - 1))


def _betas(kind: str, num_train_timesteps: int, max_beta: float) -> Tensor:
    if kind == "linear":
        scale = 1000 / num_train_timesteps
        return torch.linspace(1e-4 * scale, 0.02 * scale, num_train_timesteps, dtype=torch.float64)
    if kind == "cosine":
        time = torch.arange(num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
        alphas_cumprod = torch.cos((time + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=max_beta)
    raise ValueError(f"kind must be 'linear' or 'cosine', got {kind!r}.")


def _kept_timesteps(num_train_timesteps: int, num_inference_steps: int, spacing: str) -> Tensor:
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise ValueError(
            f"num_inference_steps must lie in [1, {num_train_timesteps}], the steps of training, "
            f"got {num_inference_steps}."
        )
    if spacing == "fractional":
        stride = (num_train_timesteps - 1) / max(num_inference_steps - 1, 1)
        return torch.tensor([round(i * stride) for i in range(num_inference_steps)])
    if spacing == "strided":
        for stride in range(1, num_train_timesteps + 1):
            if len(range(0, num_train_timesteps, stride)) == num_inference_steps:
                return torch.arange(0, num_train_timesteps, stride)
        raise ValueError(f"no whole stride takes {num_inference_steps} of {num_train_timesteps} timesteps.")
    if spacing == "trailing":
        return torch.tensor(
            [round((i + 1) * num_train_timesteps / num_inference_steps) - 1 for i in range(num_inference_steps)]
        )
    raise ValueError(f"spacing must be 'fractional', 'strided' or 'trailing', got {spacing!r}.")
