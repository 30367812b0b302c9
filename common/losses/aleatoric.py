"""Segmentation that learns its own uncertainty."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.loss import _Loss


class AleatoricLoss(_Loss):
    """Cross entropy of masks whose logits are normally distributed, with a mean and a variance for each pixel.

    Source: Kendall and Gal 2017, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?",
    Eq. 12.

    Args:
        num_draws: of the logits, over which probabilities are averaged.
    """

    def __init__(self, num_draws: int = 10) -> None:
        super().__init__()
        self.num_draws = num_draws

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            pred: means of the logits, then logarithms of their variances, shape (B, 2 * C, *spatial).
            target: masks, 0 or 1, shape (B, C, *spatial).
        """
        mean, log_variance = pred.chunk(2, dim=1)
        noise = torch.randn(self.num_draws, *mean.shape, device=pred.device, dtype=pred.dtype)
        logits = mean + (0.5 * log_variance).exp() * noise
        log_likelihood = -F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
        return math.log(self.num_draws) - log_likelihood.logsumexp(0).mean()
