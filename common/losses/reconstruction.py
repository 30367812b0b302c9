"""How far a reconstruction is from its image: in values, and in what one sees."""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

logger = logging.getLogger(__name__)

SCALES = 3
"""Of the gradients that are compared where there is no network."""


class AutoencoderLoss(_Loss):
    """The loss of a quantised autoencoder: absolute error, commitment, and what one sees of random slices.

    Where no frozen network is given, gradients at several scales take its place, which is said in the log: MONAI's
    ``PerceptualLoss`` downloads its networks, and nobody has asked for that.

    Source: Chen et al. 2024, "Towards Generalizable Tumor Synthesis", section 3.1.

    Args:
        pixel_weight: of the absolute error.
        perceptual_weight: of what one sees, a slice in each plane.
        perceptual_network: a frozen network of slices in [-1, 1], shape (B, 1, X, Y), that answers with features or a
            list of them; None compares gradients.
    """

    def __init__(
        self,
        pixel_weight: float = 4.0,
        perceptual_weight: float = 4.0,
        perceptual_network: Callable[[Tensor], Tensor | list[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        if isinstance(perceptual_network, nn.Module):
            perceptual_network.eval().requires_grad_(False)
        used = f"gradients at {SCALES} scales" if perceptual_network is None else type(perceptual_network).__name__
        logger.info(f"what one sees of reconstructions is compared by {used}.")
        self.features = perceptual_network or gradients

    def forward(self, pred: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            pred: reconstructions and the commitment loss.
            target: the images, in [-1, 1], shape (B, 1, X, Y, Z).
        """
        image, commitment = pred
        error = F.l1_loss(image, target)
        return self.pixel_weight * error + commitment + self.perceptual_weight * self.difference(image, target)

    def difference(self, image: Tensor, target: Tensor) -> Tensor:
        """Return how different a random slice across each axis looks, added up over the axes."""
        losses = []
        for axis in (2, 3, 4):
            depth = torch.rand(len(target))
            ours, theirs = (self.features(slices_at(volume, depth, axis)) for volume in (image, target))
            pairs = [(ours, theirs)] if isinstance(ours, Tensor) else zip(ours, theirs, strict=True)
            losses += [F.l1_loss(*pair) for pair in pairs]
        return torch.stack(losses).sum()


class HoleLoss(_Loss):
    """The squared error within holes, where ``HolePrepareBatch`` has made them."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the pixels of all holes.

        Args:
            pred: shape (B, 1, X, Y).
            target: values and holes, shape (B, 2, X, Y).
        """
        value, hole = target[:, :1], target[:, 1:]
        return ((pred - value).square() * hole).sum() / hole.sum().clamp(min=1)


def gradients(image: Tensor) -> list[Tensor]:
    """Return the differences of neighbours along both axes at ``SCALES`` scales, each half as fine as the last."""
    found = []
    for scale in range(SCALES):
        image = F.avg_pool2d(image, 2, ceil_mode=True) if scale else image
        found += [image.diff(dim=-1), image.diff(dim=-2)]
    return [difference for difference in found if difference.numel()]


def slices_at(image: Tensor, depth: Tensor, axis: int = -1) -> Tensor:
    """Return a slice of each volume.

    Args:
        image: shape (B, C, X, Y, Z).
        depth: where it lies along the axis, in [0, 1), shape (B,), on the CPU, so that a run on a GPU sees the same.
        axis: across the slices.
    """
    planes = image.movedim(axis, 1)
    index = (depth * planes.shape[1]).long()
    return planes[torch.arange(len(planes)), index]
