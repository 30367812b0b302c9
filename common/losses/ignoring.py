"""Losses that pass over what is not known."""

import torch
from torch import Tensor, nn


class IgnoringLoss(nn.Module):
    """A loss of a segmentation that passes over the voxels of one value: as background that was rightly found.

    Args:
        loss: of logits, shape (B, K, *spatial), and labels, shape (B, 1, *spatial).
        ignored: value of the label.
    """

    def __init__(self, loss: nn.Module, ignored: int = 255) -> None:
        super().__init__()
        self.loss, self.ignored = loss, ignored

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: shape (B, K, *spatial).
            label: classes, shape (B, 1, *spatial).
        """
        unknown = label == self.ignored
        sure = torch.full_like(logits, -SURE)
        sure[:, 0] = SURE
        return self.loss(torch.where(unknown, sure, logits), torch.where(unknown, 0, label))


SURE = 20.0
"""Logit of what nobody doubts."""
