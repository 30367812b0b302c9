"""What translations between classes are asked for, and what critics of each class want."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Translations(NamedTuple):
    """What a generator makes of images.

    Attributes:
        fake: images of other classes, or of all classes, shape (N, C, X, Y).
        classes: of ``fake``, shape (N,).
        same: the images as their own class, shape (B, C, X, Y); None where only ``fake`` was asked for.
        back: the images translated to another class and back; None as ``same``.
    """

    fake: Tensor
    classes: Tensor
    same: Tensor | None = None
    back: Tensor | None = None


class CycleLoss(nn.Module):
    """How far images are from themselves, as their own class and translated back: squared errors.

    Source: Wolleb et al. 2020, "DeScarGAN", Eq. 6 and 7; the authors' program has squares where the paper has norms.

    Args:
        identity_weight: of images as their own class, 50 in the paper; 0 in StarGAN.
        reconstruction_weight: of images translated back, 50 in the paper.
    """

    def __init__(self, identity_weight: float = 50.0, reconstruction_weight: float = 50.0) -> None:
        super().__init__()
        self.identity_weight, self.reconstruction_weight = identity_weight, reconstruction_weight

    def forward(self, pred: Translations, target: Mapping[str, Tensor]) -> Tensor:
        """Return the loss.

        Args:
            pred: what the generator makes of images.
            target: the ``image`` that they are.
        """
        same, back = (F.mse_loss(x, target["image"]) for x in (pred.same, pred.back))  # type: ignore[arg-type]
        return self.identity_weight * same + self.reconstruction_weight * back


class WassersteinLoss(nn.Module):
    """Critics of each class with a penalty of their gradients, and a classifier that shares their features.

    Sources: Wolleb et al. 2020, "DeScarGAN", Eq. 1 to 5; Gulrajani et al. 2017, "Improved Training of Wasserstein
    GANs", Eq. 3. In the paper the penalty is also multiplied by the weight of the critics, in its program it is not.

    Args:
        realness_weight: of the critics, as they learn.
        class_weight: of the classifier, as it learns.
        penalty_weight: of the gradients' penalty.
        network_weight: of critics and classifier, as the generator learns.
        all_pairs: the penalty lies between each real image and its fakes of all classes, as in the authors' program,
            not between images and fakes of one class.
    """

    def __init__(
        self,
        realness_weight: float = 20.0,
        class_weight: float = 5.0,
        penalty_weight: float = 10.0,
        network_weight: float = 1.0,
        all_pairs: bool = False,
    ) -> None:
        super().__init__()
        self.realness_weight, self.class_weight = realness_weight, class_weight
        self.penalty_weight, self.network_weight, self.all_pairs = penalty_weight, network_weight, all_pairs

    def of_network(self, critics: Any, pred: Translations, target: Mapping[str, Tensor]) -> Tensor:
        """Return what the generator is to minimise: its images should look real, and be told for what they shall be.

        Args:
            critics: container of ``classifier`` with ``encode`` and ``classes``, and of ``realness``, which says of
                features how real they look as images of a class; it has ``heads``, one a class, or one for all.
            pred: what the generator makes of images.
            target: not used.
        """
        features = critics["classifier"].encode(pred.fake)
        told = F.cross_entropy(critics["classifier"].classes(features), pred.classes)
        return self.network_weight * (told - realness(critics, features, pred.classes))

    def of_critics(self, critics: Any, pred: Translations, target: Mapping[str, Tensor]) -> Tensor:
        """Return what critics and classifier are to minimise.

        Args:
            critics: see ``of_network``.
            pred: of which ``fake`` is used, through which no gradient goes.
            target: real ``image`` and its ``class``.
        """
        image, classes, fake = target["image"], target["class"], pred.fake.detach()
        seen, expected = critics["classifier"].encode(fake), critics["classifier"].encode(image)
        apart = realness(critics, seen, pred.classes) - realness(critics, expected, classes)
        told = F.cross_entropy(critics["classifier"].classes(expected), classes)
        penalty = self.penalty(critics, image, classes, fake, pred.classes)
        return self.realness_weight * apart + self.class_weight * told + self.penalty_weight * penalty

    def penalty(self, critics: Any, image: Tensor, classes: Tensor, fake: Tensor, fake_classes: Tensor) -> Tensor:
        """Return the penalty of the gradients, added up over the critics."""
        found = [image.new_zeros(())]
        for k in range(num_heads := len(critics["realness"].heads)):
            theirs = fake[_head_of(fake_classes, num_heads) == k]
            ours = image if self.all_pairs else image[_head_of(classes, num_heads) == k]
            if count := min(len(ours), len(theirs)):
                found.append(gradient_penalty(partial(_score, critics, k), ours[:count], theirs[:count]))
        return torch.stack(found).sum()


def realness(critics: Any, features: Tensor, classes: Tensor) -> Tensor:
    """Return the mean of what the critics of images' classes say of their features."""
    num_heads = len(critics["realness"].heads)
    scores = torch.stack([critics["realness"](features, k).flatten(1).mean(1) for k in range(num_heads)], dim=1)
    return scores.gather(1, _head_of(classes, num_heads)[:, None]).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean square of how far a critic's gradient is from length 1, in single precision.

    Source: Gulrajani et al. 2017, Eq. 3, at points between real images and fakes.

    Args:
        critic: says one value of each image.
        real: images, shape (B, C, X, Y).
        fake: images, of the same shape.
    """
    with torch.autocast(real.device.type, enabled=False):
        share = torch.rand(len(real), 1, 1, 1).to(real.device)  # drawn on the CPU, so that a GPU sees the same
        between = torch.lerp(fake.float(), real.float(), share).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def _head_of(classes: Tensor, num_heads: int) -> Tensor:
    """Return which head judges images of classes: their own, or the only one."""
    return classes.clamp(max=num_heads - 1)


def _score(critics: Any, target: int, image: Tensor) -> Tensor:
    """Return what a critic says of images, added up over its map, shape (B,)."""
    return critics["realness"](critics["classifier"].encode(image), target).flatten(1).sum(1)
