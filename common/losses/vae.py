"""The objective of a variational autoencoder."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.loss import _Loss


class VAELoss(_Loss):
    """Mean squared error of the reconstruction, plus the divergence of the code from a standard normal.

    Source: Kingma and Welling 2014, Eq. 10 and appendix B.

    Args:
        kl_weight: of the divergence, per pixel of the image.
    """

    def __init__(self, kl_weight: float = 0.005) -> None:
        super().__init__()
        self.kl_weight = kl_weight

    def forward(self, pred: tuple[Tensor, Tensor, Tensor, Tensor] | Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            pred: reconstruction, mean, log variance and code, as MONAI's ``VarAutoEncoder`` returns them.
            target: image, shape (B, C, *spatial).
        """
        reconstruction, mean, log_variance = pred[0], pred[1], pred[2]
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / target.numel()
        return F.mse_loss(reconstruction, target) + self.kl_weight * divergence
