"""Where a sampler is pulled to: gradients of networks that look at noisy images."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NoisyImageModel = Callable[[Tensor, Tensor], Tensor]
"""(x_t, timesteps) -> what a network trained on noisy images says of them."""

NoisyClassifier = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]
"""(x_t, timesteps) -> logits, alone or first of several, as of a ``LatentClassifier``."""

Guide = Callable[[Tensor, Tensor], Tensor]
"""(x_t, timesteps) -> gradient in x_t of something like a log probability, to be raised, of the shape of x_t."""


def total_guidance(guides: Sequence[Guide], x_t: Tensor, timesteps: Tensor) -> Tensor:
    """Return the sum of all guides' gradients."""
    return torch.stack([guide(x_t, timesteps) for guide in guides]).sum(0)


def classifier_guidance(classifier: NoisyClassifier, target: int | Tensor, scale: float) -> Guide:
    """Return a guide towards a class: scale * grad log C(target | x_t, t).

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", Eq. 7.

    Args:
        classifier: gives logits, shape (B, classes).
        target: class, or one for each image, shape (B,).
        scale: s in the paper.

    Example:
        >>> def classifier(x_t, timesteps):
        ...     brightness = x_t.flatten(1).mean(1)
        ...     return torch.stack([-brightness, brightness], 1)  # class 1 is bright
        >>> guide = classifier_guidance(classifier, target=1, scale=100.0)
        >>> bool((guide(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)) > 0).all())
        True
    """

    def log_probability(x_t: Tensor, timesteps: Tensor) -> Tensor:
        logits = logits_of(classifier(x_t, timesteps))
        classes = torch.as_tensor(target, device=x_t.device).expand(len(x_t))
        return -F.cross_entropy(logits, classes, reduction="none")

    return lambda x_t, timesteps: scale * gradient(log_probability, x_t, timesteps)


def logits_of(said: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the logits of what a classifier says."""
    return said[0] if isinstance(said, tuple) else said


def regression_guidance(regressor: NoisyImageModel, target: float | Tensor, scale: float) -> Guide:
    """Return a guide towards a value: scale * (target - R(x_t, t)) * grad R(x_t, t).

    Source: Wolleb et al. 2022, "The Swiss Army Knife for Image-to-Image Translation", with s_t = i - R.

    Args:
        regressor: gives a value for each image, shape (B, 1) or (B,).
        target: i in the paper, or one for each image, shape (B,).
        scale: c in the paper.
    """

    def closeness(x_t: Tensor, timesteps: Tensor) -> Tensor:
        return -0.5 * (torch.as_tensor(target).to(x_t) - regressor(x_t, timesteps).flatten()).square()

    return lambda x_t, timesteps: scale * gradient(closeness, x_t, timesteps)


def direction_guidance(regressor: NoisyImageModel, sign: int, scale: float) -> Guide:
    """Return a guide towards larger (sign 1) or smaller (-1) values: scale * sign * grad R(x_t, t)."""
    return lambda x_t, timesteps: (scale * sign) * gradient(regressor, x_t, timesteps)


def segmentation_guidance(segmenter: NoisyImageModel, target: Tensor, scale: float, reduction: str = "mean") -> Guide:
    """Return a guide towards a mask: - scale * grad H(target, S(x_t, t)), so that the cross entropy H falls.

    The equation as printed would raise it; see ``regression_guidance`` for the source.

    Args:
        segmenter: gives logits, shape (B, 1, *spatial) for a mask, (B, classes, *spatial) for labels.
        target: mask with 0 and 1, or labels, shape (B, 1, *spatial).
        scale: c in the paper.
        reduction: H is the ``mean`` or the ``sum`` over an image's pixels.

    Raises:
        ValueError: for another reduction.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}.")

    def agreement(x_t: Tensor, timesteps: Tensor) -> Tensor:
        logits = segmenter(x_t, timesteps)
        if logits.shape[1] == 1:
            entropy = F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none")
        else:
            entropy = F.cross_entropy(logits, target[:, 0].long(), reduction="none")
        entropy = entropy.flatten(1)
        return -(entropy.mean(1) if reduction == "mean" else entropy.sum(1))

    return lambda x_t, timesteps: scale * gradient(agreement, x_t, timesteps)


def gradient(objective: NoisyImageModel, x_t: Tensor, timesteps: Tensor) -> Tensor:
    """Return the gradient in x_t of an objective with a value for each image, in float32 at least."""
    with torch.enable_grad(), torch.autocast(x_t.device.type, enabled=False):
        x = x_t.detach().to(torch.promote_types(x_t.dtype, torch.float32)).requires_grad_()
        (found,) = torch.autograd.grad(objective(x, timesteps).sum(), x)
    return found.to(x_t.dtype)
