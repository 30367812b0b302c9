"""Classifiers that are to learn classes, and not where images come from: the method and what it is compared with.

All of them take what ``LatentClassifier`` gives, and labels of shape (B, 2): class and site. Each is one loss of one
backward pass: who learns from what is said by where gradients stop.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Said = tuple[Tensor, Tensor, Tensor]
"""Logits, vectors and centres, see ``LatentClassifier``."""


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the Euclidean distance of vectors along the last axis, whose gradient is a number where it is 0 too."""
    return ((first - second).square().sum(-1) + 1e-12).sqrt()


class LearnToIgnoreLoss(nn.Module):
    """Pull images of a class to a centre that those of the target alone have made.

    The last ``num_classes`` images of a batch are of the target, one of each class in order: they move the centres, and
    the encoder. All others move the encoder towards the centres as they are, and the classifier.

    Source: Wolleb et al. 2022, "Learn to Ignore: Domain Adaptation for Multi-Site MRI Analysis", equations 1 to 5.

    Args:
        num_classes: K.
        radius: that images may be from their centre.
        margin: that centres shall be from one another; None takes 0.95 of the farthest that K points on the unit sphere
            can be, 1.9 for two as in the paper: with more classes its 1.9 is beyond reach.
        centre_weight: of what target images say, lambda_cen.
        latent_weight: of what all others say, lambda_latent.

    Raises:
        ValueError: if the margin is not larger than twice the radius, or beyond reach.
    """

    def __init__(
        self,
        num_classes: int = 2,
        radius: float = 0.1,
        margin: float | None = None,
        centre_weight: float = 100.0,
        latent_weight: float = 1.0,
    ) -> None:
        super().__init__()
        farthest = sqrt(2 * num_classes / (num_classes - 1))
        margin = 0.95 * farthest if margin is None else margin
        if not 2 * radius < margin <= farthest + 1e-9:
            raise ValueError(
                f"margin must be > {2 * radius:g}, twice the radius, and <= {farthest:.3g}, how far {num_classes} "
                f"points on the unit sphere can be from one another, got {margin:g}."
            )
        self.num_classes, self.radius, self.margin = num_classes, radius, margin
        self.centre_weight, self.latent_weight = centre_weight, latent_weight

    def forward(self, said: Said, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            said: of a batch whose last images are of the target, one of each class.
            target: class and site, shape (B, 2).
        """
        logits, latent, centres = said
        count, labels = self.num_classes, target[:, 0]
        others, centre = slice(None, -count), centres[0]
        known = F.cross_entropy(logits[others], labels[others])
        near = self.beyond(latent[others], centre.detach()[labels[others]]).square().mean()
        return known + self.latent_weight * near + self.centre_weight * self.of_centres(latent[-count:], centre)

    def beyond(self, latent: Tensor, centre: Tensor) -> Tensor:
        """Return by how much vectors are farther from their centres than the radius."""
        return (distance(latent, centre) - self.radius).clamp(min=0)

    def of_centres(self, latent: Tensor, centre: Tensor) -> Tensor:
        """Return how far target images are from their centres, and these too near to one another.

        Args:
            latent: of one image of each class, in order.
            centre: of each class.
        """
        apart = distance(centre[:, None], centre[None])
        near = (self.margin - apart).clamp(min=0).square() * (1 - torch.eye(len(centre), device=centre.device))
        return (self.beyond(latent, centre).square() + 0.5 * near.sum(1)).mean()


class SiteClassLoss(nn.Module):
    """Cross-entropy of the classes, each image counting for less the more there are of its class and site.

    Args:
        counts: images of each class and site, shape (K, sites); None lets all count alike.
    """

    weights: Tensor | None

    def __init__(self, counts: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        weights = None
        if counts is not None:
            table = torch.tensor(counts, dtype=torch.float32)
            weights = torch.where(table > 0, 1 / table.clamp(min=1), 0.0)
            weights *= table.sum() / (weights * table).sum()
        self.register_buffer("weights", weights)

    def forward(self, said: Said, target: Tensor) -> Tensor:
        """Return the loss."""
        losses = F.cross_entropy(said[0], target[:, 0], reduction="none")
        return losses.mean() if self.weights is None else (self.weights[target[:, 0], target[:, 1]] * losses).mean()


class ContrastiveLoss(nn.Module):
    """Images of a class are to be nearer to one another than to others, and a classifier learns from where they lie.

    Source: Khosla et al. 2020, "Supervised Contrastive Learning", equation 2.

    Args:
        temperature: of the softmax over cosines.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, said: Said, target: Tensor) -> Tensor:
        """Return the loss; images without another of their class say nothing of where they lie."""
        logits, latent, _ = said
        labels, itself = target[:, 0], torch.eye(len(latent), dtype=torch.bool, device=latent.device)
        cosines = (latent @ latent.T / self.temperature).masked_fill(itself, -torch.inf)
        shares = cosines.log_softmax(1).masked_fill(itself, 0.0)
        alike = (labels[:, None] == labels) & ~itself
        with_others = alike.any(1)
        drawn = (shares * alike).sum(1)[with_others] / alike.sum(1)[with_others]
        together = -drawn.mean() if with_others.any() else latent.sum() * 0
        return together + F.cross_entropy(logits, labels)


class AdversarialSiteLoss(nn.Module):
    """A head learns to tell sites from vectors, and the encoder to give it nothing to tell them by.

    ``reversal`` is that of Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks": the encoder learns the
    opposite of the head. ``confusion`` is that of Dinsdale et al. 2021, "Deep learning-based unlearning of dataset bias
    for MRI harmonisation and confound removal": it learns to make all sites look equally likely.

    Args:
        num_sites: that are told apart.
        embedding_dim: of the vectors.
        kind: ``reversal`` or ``confusion``.
        weight: of what the encoder learns against the head.
        hidden_dim: of the head.

    Raises:
        ValueError: if ``kind`` is unknown.
    """

    def __init__(
        self, num_sites: int, embedding_dim: int, kind: str = "reversal", weight: float = 1.0, hidden_dim: int = 100
    ) -> None:
        super().__init__()
        if kind not in ("reversal", "confusion"):
            raise ValueError(f"kind must be reversal or confusion, got {kind!r}.")
        self.kind, self.weight = kind, weight
        self.head = nn.Sequential(nn.Linear(embedding_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, num_sites))

    def forward(self, said: Said, target: Tensor) -> Tensor:
        """Return the loss."""
        logits, latent, _ = said
        known, sites = F.cross_entropy(logits, target[:, 0]), target[:, 1]
        if self.kind == "reversal":
            return known + F.cross_entropy(self.head(_Reversed.apply(latent, self.weight)), sites)
        learnt = F.cross_entropy(self.head(latent.detach()), sites)
        frozen = {name: value.detach() for name, value in self.head.named_parameters()}
        told = torch.func.functional_call(self.head, frozen, (latent,))
        return known + learnt - self.weight * told.log_softmax(1).mean()


class _Reversed(torch.autograd.Function):
    """What it is given; its gradient is the opposite, times a weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.weight * gradient, None
