"""How well the classes of whole cases are told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import rows_with_intervals
from .statistics import Record, Row, Statistic, mean_of, mean_of_cases


@dataclass(frozen=True)
class ClassRecord(Record):
    """What is kept of a case of which nothing but its class is known.

    Attributes:
        image_label: its class, one of 0 to K - 1.
        probability: of each class, shape (K,).
        site: where it comes from; empty where nobody says.
        distance: from the centre of each class, shape (K,), of classifiers that have such.
    """

    image_label: int
    probability: NDArray[Any]
    site: str = ""
    distance: NDArray[Any] | None = None


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


def groups_of(records: Sequence[ClassRecord], target_sites: Sequence[str] = ()) -> dict[str, list[ClassRecord]]:
    """Return the cases of the target and of all other sites by these words, those groups that have some.

    Args:
        records: of all cases.
        target_sites: names of the target's sites.
    """
    groups: dict[str, list[ClassRecord]] = {"target": [], "source": []}
    for record in records if target_sites else ():
        groups["target" if record.site in target_sites else "source"].append(record)
    return {name: chosen for name, chosen in groups.items() if chosen}


def summarise_classes(
    records: Sequence[ClassRecord], num_resamples: int = 0, target_sites: Sequence[str] = ()
) -> list[Row]:
    """Return the table of a run: a row a metric, with its interval over patients; of all cases, then of groups.

    Metrics that a group has not, as those of sites with one class, are left out.

    Args:
        records: of all cases.
        num_resamples: draws of the bootstrap, 0 for no intervals.
        target_sites: whose cases are a group, and all others one; each site is one in any case.
    """
    groups = {"": list(records), **{f"{name}: ": own for name, own in groups_of(records, target_sites).items()}}
    for site in sorted({record.site for record in records if record.site}):
        groups[f"site {site}: "] = [record for record in records if record.site == site]
    rows = [
        {**row, "metric": group + row["metric"]}
        for group, chosen in groups.items()
        for row in rows_with_intervals([r.patient for r in chosen], class_statistics(chosen), num_resamples)
    ]
    return [row for row in rows if ":" not in row["metric"] or not np.isnan(row["value"])]


def class_statistics(records: Sequence[ClassRecord]) -> dict[str, Statistic]:
    """Return accuracy, Cohen's kappa, the area under the ROC curve, of more than two classes the mean over them.

    Then the expected calibration error of Guo et al. 2017, and where distances are known the accuracy by the nearest
    centre. Kappa is NaN where all cases are of one class and called so, the area where a class has no case.

    Args:
        records: of all cases.
    """
    labels, probability = np.array([r.image_label for r in records]), np.stack([r.probability for r in records])
    predictions, classes = probability.argmax(1), np.arange(probability.shape[1])

    def kappa(weights: NDArray[np.float64]) -> float:
        size = len(classes)
        table = np.bincount(labels * size + predictions, weights, size * size).reshape(size, size) / weights.sum()
        by_chance = float(table.sum(0) @ table.sum(1))
        return float((np.trace(table) - by_chance) / (1 - by_chance)) if by_chance < 1 - 1e-12 else float("nan")

    against_the_rest = classes if len(classes) > 2 else classes[1:]
    areas = [area_under_roc(labels == k, probability[:, k]) for k in against_the_rest]
    certain, right = probability.max(1), predictions == labels

    def calibration_error(weights: NDArray[np.float64]) -> float:
        bins = _bins(certain, weights)
        return float(sum(abs((weights * own * (right - certain)).sum()) for own in bins) / weights.sum())

    found: dict[str, Statistic] = {
        "accuracy": mean_of_cases(right),
        "kappa": kappa,
        "AUROC": mean_of(areas),
        "calibration error": calibration_error,
    }
    away = [record.distance for record in records]
    if all(distance is not None for distance in away):
        found["accuracy by the nearest centre"] = mean_of_cases(np.stack(away).argmin(1) == labels)  # type: ignore
    return found


def area_under_roc(positive: NDArray[np.bool_], scores: NDArray[Any]) -> Statistic:
    """Return the area under the ROC curve of scores, ties counting half; NaN where there is one class alone.

    Args:
        positive: whether each case is of the class.
        scores: of each case.
    """
    values, place = np.unique(scores, return_inverse=True)

    def area(weights: NDArray[np.float64]) -> float:
        yes, no = (np.bincount(place, weights * own, len(values)) for own in (positive, ~positive))
        pairs = yes.sum() * no.sum()
        return float(yes @ (np.cumsum(no) - 0.5 * no) / pairs) if pairs else float("nan")

    return area


NUM_BINS = 10
"""Of probabilities, when it is asked how often they are true."""


def _bins(certain: NDArray[Any], weights: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Return of each bin that has cases which they are."""
    number = np.minimum((certain * NUM_BINS).astype(int), NUM_BINS - 1)
    return [own for k in range(NUM_BINS) if (weights * (own := number == k)).any()]


def reliability(records: Sequence[ClassRecord]) -> list[Row]:
    """Return of each bin of probabilities how probable the called classes were, how often they are true, and cases."""
    certain = np.array([record.probability.max() for record in records])
    right = np.array([record.probability.argmax() == record.image_label for record in records])
    bins = _bins(certain, np.ones(len(records)))
    return [
        {"probability": float(certain[own].mean()), "true": float(right[own].mean()), "cases": int(own.sum())}
        for own in bins
    ]
