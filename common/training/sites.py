"""Trainings on images of several sites: the method of learning to ignore them, and what it is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from ..losses.learn_to_ignore import AdversarialSiteLoss, ContrastiveLoss, LearnToIgnoreLoss, SiteClassLoss, distance


@dataclass(frozen=True)
class Sites:
    """The sites of a training.

    Attributes:
        names: of all sites.
        labels: class of each case.
        targets: whether each case is of the target.
        counts: cases of each class at each site, shape (K, sites).
    """

    names: Sequence[str]
    labels: Sequence[int]
    targets: Sequence[bool]
    counts: Sequence[Sequence[int]]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)


def sites_of(items: Sequence[Mapping[str, Any]], target_sites: Sequence[str], num_classes: int = 2) -> Sites:
    """Return what a training has to know of the sites of its cases.

    Args:
        items: with ``site`` and ``image_label``.
        target_sites: names of those of the target.
        num_classes: K.

    Raises:
        ValueError: if a case has no site or class, two sites have nearly one name, or the target has fewer images than
            there are classes, or none of a class.
    """
    for item in items:
        if "site" not in item or item.get("image_label") not in range(num_classes):
            raise ValueError(
                f"{item['case']}: expected a site and an image_label of 0 to {num_classes - 1}, got "
                f"{item.get('site', 'no site')!r} and {item.get('image_label', 'none')!r}."
            )
    names = sorted({str(item["site"]) for item in items})
    refuse_similar_names(names)
    labels = [int(item["image_label"]) for item in items]
    targets = [str(item["site"]) in target_sites for item in items]
    missing = [k for k in range(num_classes) if k not in {y for y, own in zip(labels, targets, strict=True) if own}]
    if missing:
        raise ValueError(
            f"expected training cases of each class at the target, {', '.join(target_sites)}, got none of class "
            f"{missing[0]} among {sum(targets)}; sites: {', '.join(names)}."
        )
    counts = np.zeros((num_classes, len(names)), dtype=int)
    for item, label in zip(items, labels, strict=True):
        counts[label, names.index(str(item["site"]))] += 1
    return Sites(names, labels, targets, counts.tolist())


def refuse_similar_names(names: Iterable[str]) -> None:
    """Check that no two names differ by blanks and capitals alone.

    Raises:
        ValueError: if two do.
    """
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault("".join(name.lower().split()), name)
        if other != name:
            raise ValueError(f"expected one name for a site, got {other!r} and {name!r}.")


def refuse_shared_patients(
    training: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    testing: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Check that no patient is in two splits.

    Raises:
        ValueError: if one is.
    """
    where: dict[str, str] = {}
    for split, items in (("training", training), ("validation", validation), ("testing", testing)):
        for item in items:
            other = where.setdefault(str(item["patient"]), split)
            if other != split:
                raise ValueError(f"expected each patient in one split, got {item['patient']} in {other} and {split}.")


@dataclass(frozen=True)
class Method:
    """A way of training: its batches, and what the network is like; its loss is ``site_loss``.

    Attributes:
        draw: of the batches, see ``SiteBatchSampler``.
        with_target: whether target images stand behind each batch.
        detach: whether the encoder does not learn from the classifier.
        centres: ``learned``, or ``fixed`` where they are, or where nothing is learned of them.
    """

    draw: str = "random"
    with_target: bool = False
    detach: bool = False
    centres: str = "fixed"


METHODS: dict[str, Method] = {
    "learn_to_ignore": Method(with_target=True, detach=True, centres="learned"),
    "fixed": Method(with_target=True, detach=True),
    "no_margin": Method(with_target=True, detach=True, centres="learned"),
    "vanilla": Method(),
    "class_aware": Method(draw="cells"),
    "weighted": Method(),
    "dann": Method(),
    "unlearning": Method(),
    "contrastive": Method(draw="cells", detach=True),
}
"""By name: the method, its two ablations, and the baselines of Wolleb et al. 2022, "Learn to Ignore", but for CAN."""


def method_of(method: str) -> Method:
    """Return a method.

    Raises:
        ValueError: if there is none of that name.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    return METHODS[method]


def site_loss(
    method: str,
    sites: Sites,
    embedding_dim: int,
    radius: float = 0.1,
    margin: float | None = None,
    centre_weight: float = 100.0,
    latent_weight: float = 1.0,
) -> nn.Module:
    """Return the loss of a method, see ``METHODS``.

    Args:
        method: its name.
        sites: of the training.
        embedding_dim: length of the vectors.
        radius: of ``learn_to_ignore`` and ``fixed``, see ``LearnToIgnoreLoss``; ``no_margin`` has 0, and centres as far
            from one another as can be.
        margin: of ``learn_to_ignore`` and ``fixed``.
        centre_weight: of these three.
        latent_weight: of these three.

    Raises:
        ValueError: if there is no method of that name.
    """
    count, weights = sites.num_classes, {"centre_weight": centre_weight, "latent_weight": latent_weight}
    match method:
        case "learn_to_ignore" | "fixed":
            return LearnToIgnoreLoss(count, radius, margin, **weights)
        case "no_margin":
            return LearnToIgnoreLoss(count, 0.0, sqrt(2 * count / (count - 1)), **weights)
        case "vanilla" | "class_aware":
            return SiteClassLoss()
        case "weighted":
            return SiteClassLoss(sites.counts)
        case "dann" | "unlearning":
            kind = "reversal" if method == "dann" else "confusion"
            return AdversarialSiteLoss(len(sites.names), embedding_dim, kind)
        case "contrastive":
            return ContrastiveLoss()
    raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")


class SiteTrainer(SupervisedTrainer):
    """A trainer whose loss may learn too, as heads that tell sites do.

    Args:
        keep: ``best`` publishes the epoch of the best validation, ``last`` the last one that was validated.
        kwargs: see ``SupervisedTrainer``.

    Raises:
        ValueError: if ``keep`` is neither.
    """

    def __init__(self, *args: Any, keep: str = "best", **kwargs: Any) -> None:
        if keep not in ("best", "last"):
            raise ValueError(f"keep must be best or last, got {keep!r}.")
        self.latest_is_best = keep == "last"
        self.also_kept: dict[str, Any] = {}
        super().__init__(*args, **kwargs)
        loss: Any = self.loss_function
        if list(loss.parameters()):
            self.also_kept["loss"] = loss


def parameter_groups(
    network: Any,
    loss: nn.Module,
    encoder_rate: float,
    classifier_rate: float,
    centre_rate: float,
    weight_decay: float,
    classifier_weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Return what an optimiser learns, with rates of their own for encoder, classifier and centres.

    Args:
        network: a ``LatentClassifier``.
        loss: whose parameters, if it has any, learn at the rate of the encoder.
        encoder_rate: learning rate.
        classifier_rate: the same.
        centre_rate: the same.
        weight_decay: of encoder and centres.
        classifier_weight_decay: of the classifier; it sees vectors of length 1, so its weights have to grow.
    """
    groups = [
        {"params": [*network.encoder.parameters(), *loss.parameters()], "lr": encoder_rate},
        {"params": [*network.classifier.parameters()], "lr": classifier_rate, "weight_decay": classifier_weight_decay},
    ]
    if isinstance(network.centres, nn.Parameter):
        groups.append({"params": [network.centres], "lr": centre_rate})
    return [{"weight_decay": weight_decay, **group} for group in groups]


VALIDATED_BY = ("classifier", "nearest", "centres")


class ValidationLoss(nn.Module):
    """How wrong answers to validation images are, by the classifier or by the centres.

    The method's own loss is low before anything is learned, when all vectors and centres lie close together: it is no
    choice for small or hard validation sets.

    Args:
        by: ``classifier``, cross-entropy; ``nearest``, that of the softmax of minus the distances from the centres
            (Snell et al. 2017, "Prototypical Networks"); or ``centres``, the method's own, by how much images are
            farther from theirs than the radius.
        radius: see ``LearnToIgnoreLoss``.

    Raises:
        ValueError: for another word.
    """

    def __init__(self, by: str = "classifier", radius: float = 0.1) -> None:
        super().__init__()
        if by not in VALIDATED_BY:
            raise ValueError(f"by must be one of {', '.join(VALIDATED_BY)}, got {by!r}.")
        self.by, self.radius = by, radius

    def forward(self, said: tuple[Tensor, Tensor, Tensor], target: Tensor) -> Tensor:
        """Return the mean over images."""
        logits, latent, centres = said
        if self.by == "classifier":
            return F.cross_entropy(logits, target[:, 0])
        if self.by == "nearest":
            return F.cross_entropy(-distance(latent[:, None], centres), target[:, 0])
        own = centres[torch.arange(len(latent)), target[:, 0]]
        return (distance(latent, own) - self.radius).clamp(min=0).square().mean()


class Patience:
    """End a training that has not got better for some epochs, once it has had time to begin.

    Args:
        validator: whose key metric counts, the lower the better.
        epochs: without a better one; None never ends it.
        warm_up: epochs before they are counted.
    """

    def __init__(self, validator: Any, epochs: int | None, warm_up: int = 0) -> None:
        self.validator, self.warm_up = validator, warm_up
        self.epochs = float("inf") if epochs is None else epochs
        self.best, self.best_epoch = float("inf"), 0

    def attach(self, engine: Any) -> None:
        """Add the handler to a trainer: it acts whenever the validator has been run."""
        self.validator.add_event_handler(Events.COMPLETED, self._judge, engine)
        engine.also_kept["patience"] = self

    def _judge(self, validator: Any, engine: Any) -> None:
        score, epoch = validator.state.metrics[validator.state.key_metric_name], engine.state.epoch
        if score < self.best or epoch <= self.warm_up:
            self.best, self.best_epoch = min(score, self.best), epoch
        elif epoch - self.best_epoch >= self.epochs:
            engine.terminate()

    def state_dict(self) -> dict[str, float]:
        """Return what a training that is resumed goes on with."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with it."""
        self.best, self.best_epoch = state["best"], int(state["best_epoch"])
