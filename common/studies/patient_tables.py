"""What anomaly maps say of real patients, in numbers: means over patients, and their controls beside them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ..metrics.detection import CaseRecord, pool_images, pool_pixels, slice_mean
from ..metrics.pixels import Curve, PooledCounts
from ..metrics.statistics import Row, Statistic, mean_of, mean_of_cases, mean_of_slices
from .answers import costs_of
from .detection import Records, slice_metrics
from .tables import compared_rows


class Counted(NamedTuple):
    """How slices are counted.

    Attributes:
        depths: number of slices of each case.
        sizes: of lesions in a slice, pixels from and below, by the name of a column.
    """

    depths: Mapping[str, int]
    sizes: Mapping[str, tuple[float, float]]


def terciles(records: Sequence[CaseRecord]) -> dict[str, tuple[float, float]]:
    """Return the sizes of lesions of a third of the slices each, as ``Counted`` has them."""
    areas = [row["lesion_pixels"] for record in records for row in record.slice_rows if row["lesion_pixels"]]
    low, high = np.quantile(areas, [1 / 3, 2 / 3]).round()
    return {
        f"below_{low:.0f}": (1, low),
        f"{low:.0f}_to_{high - 1:.0f}": (low, high),
        f"{high:.0f}_or_more": (high, np.inf),
    }


def best_of_patients(records: Sequence[CaseRecord]) -> float:
    """Return the threshold of the largest mean of the patients' Dice."""
    curves = [pool_pixels([record]).curve() for record in records]
    choices = np.unique(np.concatenate([curve.thresholds for curve in curves]))
    dice = [np.nanmean([curve.dice_at(float(threshold)) for curve in curves]) for threshold in choices]
    return float(choices[int(np.argmax(dice))])


def mean_ap(seeds: Sequence[Sequence[CaseRecord]]) -> Statistic:
    """Return the mean over seeds and patients with lesions of a map's AP."""
    return _over_seeds(seeds, _of_patients("ap"))


def of_validation(records: Sequence[CaseRecord]) -> Row:
    """Return the mean AP and Dice of patients with lesions, that at one threshold for all, and the pooled AP."""
    curves = [pool_pixels([record]).curve() for record in records]
    threshold = best_of_patients(records)
    return {
        "ap": mean_ap([records])(np.ones(len(records))),
        "dice": float(np.nanmean([curve.dice_at(threshold) for curve in curves])),
        "threshold": threshold,
        "pooled_ap": pool_pixels(records).curve().average_precision(),
    }


def statistics_of(seeds: Sequence[Sequence[CaseRecord]], counted: Counted) -> dict[str, Statistic]:
    """Return the columns of the table; means over patients are of those with lesions."""
    columns: dict[str, OfRecords] = {
        "ap": _of_patients("ap"),
        "auroc": _of_patients("auroc"),
        "dice": _of_patients("dice"),
        "dice_best_threshold_of_each_patient": _of_patients("dice_best_threshold_of_this_test"),
        "pooled_ap": _pooled(pool_pixels, Curve.average_precision),
        "pooled_auroc": _pooled(pool_pixels, Curve.auroc),
        **{f"ap_of_slices_{size}": partial(_ap_of_slices, bounds) for size, bounds in counted.sizes.items()},
        "auroc_of_slices_by_the_mean_of_the_map": _pooled(lambda records: pool_images(records)["map"], Curve.auroc),
        "mask_cm2_in_slices_without_lesion": partial(slice_mean, key="mask_cm2", diseased=False),
        "mask_cm2_in_slices_without_lesion_in_the_middle_half": partial(_mask_in_the_middle, counted.depths),
        "map_in_slices_without_lesion": partial(slice_mean, key="mean_score", diseased=False),
    }
    return {name: _over_seeds(seeds, of) for name, of in columns.items()} | slice_metrics(seeds) | costs_of(seeds)


OfRecords = Callable[[Sequence[CaseRecord]], Statistic]
"""(records of all cases) -> a number of theirs."""


def _over_seeds(seeds: Sequence[Sequence[CaseRecord]], of: OfRecords) -> Statistic:
    return mean_of([of(records) for records in seeds])


def _of_patients(key: str) -> OfRecords:
    """Return the mean of a column over patients with lesions."""
    return lambda records: mean_of_cases([r.row[key] if r.row["lesions"] else np.nan for r in records])


def _pooled(pool: Callable[[Sequence[CaseRecord]], PooledCounts], metric: Callable[[Curve], float]) -> OfRecords:
    def of(records: Sequence[CaseRecord]) -> Statistic:
        counts = pool(records)
        return lambda weights: metric(counts.curve(weights))

    return of


def _mask_in_the_middle(depths: Mapping[str, int], records: Sequence[CaseRecord]) -> Statistic:
    """Return the mean area of masks in slices without lesion of the middle half of each case."""
    areas: list[list[float]] = []
    for record in records:
        first = depths[record.case] // 4
        middle = range(first, depths[record.case] - first)
        areas.append([s["mask_cm2"] for s in record.slice_rows if s["slice"] in middle and not s["diseased"]])
    return mean_of_slices(areas)


def _ap_of_slices(bounds: tuple[float, float], records: Sequence[CaseRecord]) -> Statistic:
    """Return the mean AP of the slices with so many pixels of lesion."""
    low, high = bounds
    return mean_of_slices([[s["ap"] for s in r.slice_rows if low <= s["lesion_pixels"] < high] for r in records])


COMPARED = ("ap", "dice", "slice_dice", "slice_hd95_mm")


def compare(found: Records, reference: str, counted: Counted, num_bootstraps: int) -> list[Row]:
    """Return the table: a row a method, with intervals, and with what it is ahead of one of them."""
    patients = [record.patient for record in next(iter(found.values()))[0]]
    numbers = {name: statistics_of(seeds, counted) for name, seeds in found.items()}
    return compared_rows("method", numbers, patients, COMPARED, reference, num_bootstraps, ahead=True)


def explanation(found: Mapping[str, Iterable[Sequence[CaseRecord]]], reference: str) -> str:
    """Return what is to be known of the table."""
    records = next(iter(next(iter(found.values()))))
    diseased = sum(bool(record.row["lesions"]) for record in records)
    return (
        f"{len(records)} patients, {diseased} with lesions, tried by what was trained without them; 95 % intervals "
        "over patients. AP, AUROC and Dice are means over those with lesions; thresholds are fitted on other patients; "
        f"'ahead' is of {reference}, the best row without a network on validation patients, patients drawn alike."
    )
