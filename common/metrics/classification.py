"""How well the classes of whole cases are told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, cohen_kappa_score, roc_auc_score

from .intervals import rows_with_intervals
from .statistics import Record, Row, Statistic


@dataclass(frozen=True)
class ClassRecord(Record):
    """What is kept of a case of which nothing but its class is known.

    Attributes:
        image_label: its class, one of 0 to K - 1.
        probability: of each class, shape (K,).
        site: where it comes from; empty where nobody says.
    """

    image_label: int
    probability: NDArray[Any]
    site: str = ""


def examine_class(case: str, patient: str, image_label: int, probability: NDArray[Any], site: str = "") -> ClassRecord:
    """Return the record of a case; the class of the highest probability is predicted.

    Args:
        case: name.
        patient: name.
        image_label: its class, one of 0 to K - 1.
        probability: of each class, shape (K,).
        site: where it comes from; then it is a column too.

    Raises:
        ValueError: if there is no such class.
    """
    if not 0 <= image_label < len(probability):
        raise ValueError(f"image_label must be one of 0 to {len(probability) - 1}, got {image_label}.")
    row = {
        "case": case,
        "patient": patient,
        **({"site": site} if site else {}),
        "image_label": image_label,
        **{f"probability_{k}": float(p) for k, p in enumerate(probability)},
        "prediction": int(np.argmax(probability)),
    }
    return ClassRecord(case, patient, row, [], image_label, probability, site)


def summarise_classes(records: Sequence[ClassRecord], num_resamples: int = 0) -> list[Row]:
    """Return the table of a run: a row a metric, with its interval over patients; of all cases, then of each site.

    Args:
        records: of all cases.
        num_resamples: draws of the bootstrap, 0 for no intervals.
    """
    groups = {"": records}
    for site in sorted({record.site for record in records if record.site}):
        groups[f"site {site}: "] = [record for record in records if record.site == site]
    return [
        {**row, "metric": group + row["metric"]}
        for group, chosen in groups.items()
        for row in rows_with_intervals([r.patient for r in chosen], class_statistics(chosen), num_resamples)
    ]


def class_statistics(records: Sequence[ClassRecord]) -> dict[str, Statistic]:
    """Return accuracy, Cohen's kappa, and the area under the ROC curve, of more than two classes the mean over them.

    Kappa is NaN where all cases are of one class and called so, the area where a class has no case.

    Args:
        records: of all cases.
    """
    labels, probability = np.array([r.image_label for r in records]), np.stack([r.probability for r in records])
    predictions, classes = probability.argmax(1), np.arange(probability.shape[1])

    def accuracy(weights: NDArray[np.float64]) -> float:
        return float(accuracy_score(labels, predictions, sample_weight=weights))

    def kappa(weights: NDArray[np.float64]) -> float:
        drawn = weights > 0
        if len(np.union1d(labels[drawn], predictions[drawn])) < 2:
            return float("nan")
        return float(cohen_kappa_score(labels, predictions, labels=classes, sample_weight=weights))

    def auroc(weights: NDArray[np.float64]) -> float:
        if len(np.unique(labels[weights > 0])) < len(classes):
            return float("nan")
        against_the_rest = classes if len(classes) > 2 else classes[1:]
        areas = [roc_auc_score(labels == k, probability[:, k], sample_weight=weights) for k in against_the_rest]
        return float(np.mean(areas))

    return {"accuracy": accuracy, "kappa": kappa, "AUROC": auroc}
