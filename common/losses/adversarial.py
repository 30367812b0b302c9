"""What a network and its critics want of one another."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .reconstruction import slices_at

Seen = list[list[Tensor]]
"""Of each critic what its layers say, the last of which are its logits."""


class HingeGANLoss(nn.Module):
    """The hinge loss of a critic of slices and one of volumes, and how the network answers them.

    MONAI's ``PatchAdversarialLoss`` squeezes logits by a tanh first, and lets the generator have a hinge too.

    Sources: Lim and Ye 2017, "Geometric GAN", Eq. 18-19; feature matching: Wang et al. 2018, "pix2pixHD", Eq. 3; a
    critic of slices and one of volumes: Ge et al. 2022, "Long Video Generation with Time-Agnostic VQGAN", section 3.1.

    Args:
        feature_weight: of the feature matching; 4 in DiffTumor.
    """

    def __init__(self, feature_weight: float = 4.0) -> None:
        super().__init__()
        self.feature_weight = feature_weight

    def of_network(self, critics: nn.ModuleDict, pred: Sequence[Tensor], real: Tensor) -> Tensor:
        """Return what the network is to minimise: minus the critics' logits, and how unlike their features are.

        Args:
            critics: ``slice`` sees a random slice along the last axis, ``volume`` the whole; MONAI's
                ``PatchDiscriminator``, which answers with what all of its layers say. Either may be missing.
            pred: what the network says, the first of which are images, shape (B, 1, X, Y, Z).
            real: what they should look like.
        """
        depth = torch.rand(len(real))
        seen = look(critics, pred[0], depth)
        with torch.no_grad():
            expected = look(critics, real, depth)
        pairs = zip(seen, expected, strict=True)
        losses = [self.feature_weight * feature_matching(ours, theirs) - ours[-1].mean() for ours, theirs in pairs]
        return torch.stack(losses).sum()

    def of_critics(self, critics: nn.ModuleDict, pred: Sequence[Tensor], real: Tensor) -> Tensor:
        """Return what the critics are to minimise, added up over them.

        Args:
            critics: that are trained.
            pred: as above, through which no gradient goes.
            real: images.
        """
        depth = torch.rand(len(real))
        seen, expected = look(critics, pred[0].detach(), depth), look(critics, real, depth)
        return torch.stack([hinge(ours[-1], theirs[-1]) for ours, theirs in zip(seen, expected, strict=True)]).sum()


def look(critics: nn.ModuleDict, image: Tensor, depth: Tensor) -> Seen:
    """Return what the critics say of images, see ``slices_at`` for the depth."""
    return [critic(image if name == "volume" else slices_at(image, depth)) for name, critic in critics.items()]


def hinge(fake: Tensor, real: Tensor) -> Tensor:
    """Return the loss of logits: real ones should be above 1, fake ones below -1."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def feature_matching(seen: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """Return the mean absolute difference of all layers but the logits, added up.

    Args:
        seen: what layers say.
        expected: the same, of real images.
    """
    pairs = zip(seen[:-1], expected[:-1], strict=True)
    return torch.stack([F.l1_loss(ours, theirs.detach()) for ours, theirs in pairs]).sum()
