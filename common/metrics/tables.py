"""Tables of a detection run: per slice, per patient, and pooled with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from monai.metrics import compute_froc_curve_data, compute_froc_score
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from .intervals import patient_bootstrap
from .lesions import SIZE_BINS_MM, LesionRecord, examine_lesions
from .pixels import PooledCounts, ScoreCounts, count_scores

Row = dict[str, Any]

FALSE_POSITIVES_PER_SCAN = (0.5, 1, 2, 4, 8)
"""Where the FROC curve is read."""


@dataclass(frozen=True)
class CaseRecord:
    """What is kept of a case with a label, enough for all tables.

    Attributes:
        case: its name.
        patient: whose it is.
        counts: scores of the organ's pixels.
        lesions: what the mask and the map say of each lesion.
        row: of the table per patient.
        slice_rows: of the table per slice.
    """

    case: str
    patient: str
    counts: ScoreCounts
    lesions: LesionRecord
    row: Row
    slice_rows: list[Row] = field(default_factory=list)


def examine_case(
    case: str,
    patient: str,
    anomaly: NDArray[Any],
    mask: NDArray[Any],
    organ: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    lesion_slices_only: bool = False,
    otsu: bool = False,
    probability: NDArray[Any] | None = None,
) -> CaseRecord:
    """Return the record of a case; all pixels of the organ count, and those of lesions beyond its mask do not.

    Args:
        case: name.
        patient: name.
        anomaly: map, shape (X, Y) or (X, Y, Z).
        mask: what is called lesion.
        organ: what is searched.
        truth: what is lesion.
        spacing_mm: size of a voxel along each axis.
        lesion_slices_only: leave out slices without lesions, as the paper's test set does.
        otsu: also find the threshold of each slice by Otsu's method, among the pixels of the organ.
        probability: of disease in the slice, of the same shape, the same in each pixel that was examined.
    """
    if lesion_slices_only and truth.ndim == 3:
        shown = truth.any((0, 1))
        anomaly, mask, organ, truth = (x[..., shown] for x in (anomaly, mask, organ, truth))
        probability = probability if probability is None else probability[..., shown]
    truth = truth & organ
    counts, lesions = count_scores(anomaly[organ], truth[organ]), examine_lesions(anomaly, mask, truth, spacing_mm)
    millilitres = float(np.prod(spacing_mm)) / 1000
    row = {
        "case": case,
        "patient": patient,
        "organ_ml": organ.sum() * millilitres,
        "lesion_ml": truth.sum() * millilitres,
        **_pixel_row(counts, mask & organ, truth),
        "mean_in_lesions": _mean(anomaly[truth]),
        "mean_outside": _mean(anomaly[organ & ~truth]),
        "p95_outside": float(np.percentile(anomaly[organ & ~truth], 95)) if (organ & ~truth).any() else np.nan,
        "lesions": len(lesions.overlaps),
        "lesions_found": int((lesions.overlaps > 0).sum()),
        "false_positive_components": lesions.false_positives,
    }
    slice_rows = []
    volumes = [np.atleast_3d(x) for x in (anomaly, mask & organ, organ, truth)]
    tags = None if probability is None else np.atleast_3d(probability)
    for index in range(volumes[0].shape[2]):
        a, m, o, t = (x[..., index] for x in volumes)
        if o.any():
            slice_rows.append(
                {
                    "case": case,
                    "slice": index,
                    "organ_pixels": int(o.sum()),
                    "lesion_pixels": int(t.sum()),
                    "mask_cm2": m.sum() * float(np.prod(spacing_mm[:2])) / 100,
                    **_pixel_row(count_scores(a[o], t[o]), m, t),
                    "mean_score": _mean(a[o]),
                    **(_otsu_row(a, o, t) if otsu else {}),
                    **({} if tags is None else {"probability": float(tags[..., index].max())}),
                }
            )
    return CaseRecord(case, patient, counts, lesions, row, slice_rows)


def _pixel_row(counts: ScoreCounts, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Row:
    curve = PooledCounts([counts]).curve()
    total = mask.sum() + truth.sum()
    return {
        "auroc": curve.auroc(),
        "ap": curve.average_precision(),
        "dice": 2 * (mask & truth).sum() / total if truth.any() else np.nan,
        "dice_best_threshold_of_this_test": curve.best_dice()[0],
    }


def _otsu_row(anomaly: NDArray[Any], organ: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Row:
    threshold = float(threshold_otsu(anomaly[organ]))  # of a constant map: its value
    mask = (anomaly > threshold) & organ
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) if truth.any() else np.nan
    return {"otsu_threshold": threshold, "dice_otsu": dice}


def average_otsu(records: Sequence[CaseRecord], weights: NDArray[np.float64] | None = None) -> float:
    """Return the mean of the Otsu thresholds of all slices with lesions, NaN without any.

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", section 4.

    Args:
        records: that were made with ``otsu``.
        weights: how often each case counts.
    """
    return _slice_mean(records, "otsu_threshold", lesions=True)(np.ones(len(records)) if weights is None else weights)


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else float("nan")


def summarise(records: Sequence[CaseRecord], threshold: float, num_resamples: int = 0) -> list[Row]:
    """Return the table of a run: a row a metric, with its interval over patients.

    Args:
        records: of all cases with labels.
        threshold: of the masks, for the pooled Dice.
        num_resamples: draws of the bootstrap, 0 for no intervals.

    Returns:
        Rows with ``metric``, ``value``, ``low`` and ``high`` (95 %).
    """
    pooled, patients = PooledCounts([r.counts for r in records]), [r.patient for r in records]
    statistics: dict[str, Callable[[NDArray[np.float64]], float]] = {
        "pixel AUROC, pooled": lambda w: pooled.curve(w).auroc(),
        "pixel AP, pooled": lambda w: pooled.curve(w).average_precision(),
        "Dice at the fitted threshold, pooled": lambda w: pooled.curve(w).dice_at(threshold),
        "Dice at the best threshold of this test set, pooled": lambda w: pooled.curve(w).best_dice()[0],
        **{f"{name}, mean of patients": _weighted_mean(records, key) for name, key in PER_PATIENT.items()},
        "lesion sensitivity (any overlap)": _sensitivity(records, 0.0, 0.0, np.inf),
        "lesion sensitivity (10 % of the lesion)": _sensitivity(records, 0.1, 0.0, np.inf),
        **{
            f"lesion sensitivity, {_size_range(low, high)}": _sensitivity(records, 0.0, low, high)
            for low, high in pairwise(SIZE_BINS_MM)
        },
        "false positive components a scan": _weighted_mean(records, "false_positive_components"),
        "mask in slices without lesions, cm²": _slice_mean(records, "mask_cm2", lesions=False),
        "FROC score (mean sensitivity at 0.5, 1, 2, 4, 8 false positives a scan)": lambda w: froc(records, w)[2],
    }
    columns = {column for record in records for row in record.slice_rows[:1] for column in row}
    if "otsu_threshold" in columns:
        statistics |= {
            "Dice at the average Otsu threshold of this test set, pooled": lambda w: pooled.curve(w).dice_at(
                average_otsu(records, w)
            ),
            "Dice at each slice's own Otsu threshold, mean of slices with lesions": _slice_mean(
                records, "dice_otsu", lesions=True
            ),
        }
    if "probability" in columns:
        tags = PooledCounts([_slice_counts(record) for record in records])
        statistics |= {
            "classifier's AUROC, slices": lambda w: tags.curve(w).auroc(),
            "classifier's accuracy, slices": _accuracy(records),
        }
    rows = []
    for name, statistic in statistics.items():
        low, high = patient_bootstrap(patients, statistic, num_resamples) if num_resamples else (np.nan, np.nan)
        rows.append({"metric": name, "value": statistic(np.ones(len(records))), "low": low, "high": high})
    return rows


def _size_range(low: float, high: float) -> str:
    return f"{low:g} to {high:g} mm" if np.isfinite(high) else f"{low:g} mm or more"


PER_PATIENT = {
    "pixel AUROC": "auroc",
    "pixel AP": "ap",
    "Dice at the fitted threshold": "dice",
    "score in lesions": "mean_in_lesions",
    "score outside lesions": "mean_outside",
}
"""Metrics whose mean over patients is given beside the pooled ones."""


def froc(
    records: Sequence[CaseRecord], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return false positives a scan, sensitivity, and the mean sensitivity at ``FALSE_POSITIVES_PER_SCAN``.

    Args:
        records: of all cases.
        weights: how often each case counts.
    """
    times = np.ones(len(records), dtype=int) if weights is None else weights.astype(int)
    false_peaks = np.concatenate([np.tile(r.lesions.false_peaks, n) for r, n in zip(records, times, strict=True)])
    lesion_peaks = np.concatenate([np.tile(r.lesions.lesion_peaks, n) for r, n in zip(records, times, strict=True)])
    if len(lesion_peaks) == 0:
        return np.zeros(1), np.zeros(1), float("nan")
    # Peaks beyond the curve's end would only cost time; MONAI leaves out the lowest threshold, so there is one of 0.
    false_peaks = np.sort(false_peaks)[::-1][: int(1.25 * max(FALSE_POSITIVES_PER_SCAN) * times.sum())]
    false_peaks = np.append(false_peaks, 0.0)
    false_positives, sensitivity = compute_froc_curve_data(
        false_peaks, lesion_peaks, len(lesion_peaks), int(times.sum())
    )
    score = compute_froc_score(false_positives, sensitivity, FALSE_POSITIVES_PER_SCAN)
    return np.asarray(false_positives), np.asarray(sensitivity), float(np.mean(score))


def _weighted_mean(records: Sequence[CaseRecord], key: str) -> Callable[[NDArray[np.float64]], float]:
    values = np.array([r.row[key] for r in records], dtype=np.float64)
    known = np.isfinite(values)

    def mean(weights: NDArray[np.float64]) -> float:
        total = weights[known].sum()
        return float((weights[known] * values[known]).sum() / total) if total else float("nan")

    return mean


def _slice_mean(records: Sequence[CaseRecord], key: str, lesions: bool) -> Callable[[NDArray[np.float64]], float]:
    """Return the mean of a column over the slices with lesions, or over those without."""
    chosen = [[row[key] for row in r.slice_rows if (row["lesion_pixels"] > 0) == lesions] for r in records]
    return _mean_of_slices(chosen)


def _accuracy(records: Sequence[CaseRecord]) -> Callable[[NDArray[np.float64]], float]:
    """Return the share of slices that the classifier is right about."""
    return _mean_of_slices(
        [[(row["probability"] > 0.5) == (row["lesion_pixels"] > 0) for row in r.slice_rows] for r in records]
    )


def _mean_of_slices(values: Sequence[Sequence[float]]) -> Callable[[NDArray[np.float64]], float]:
    """Return the mean of all slices, each counting as often as its case does."""
    return _share(np.array([sum(v) for v in values]), np.array([len(v) for v in values]))


def _share(parts: NDArray[Any], wholes: NDArray[Any]) -> Callable[[NDArray[np.float64]], float]:
    """Return the sum of parts over the sum of wholes, each case counting as often as it is drawn."""

    def share(weights: NDArray[np.float64]) -> float:
        total = (weights * wholes).sum()
        return float((weights * parts).sum() / total) if total else float("nan")

    return share


def _slice_counts(record: CaseRecord) -> ScoreCounts:
    rows = record.slice_rows
    return count_scores([row["probability"] for row in rows], [row["lesion_pixels"] > 0 for row in rows])


def _sensitivity(
    records: Sequence[CaseRecord], covered: float, low_mm: float, high_mm: float
) -> Callable[[NDArray[np.float64]], float]:
    """Return the share of lesions of a size that the mask covers by more than a share."""
    in_bin = [(r.lesions.diameters_mm >= low_mm) & (r.lesions.diameters_mm < high_mm) for r in records]
    lesions = np.array([chosen.sum() for chosen in in_bin])
    found = np.array([(r.lesions.overlaps[c] > covered).sum() for r, c in zip(records, in_bin, strict=True)])
    return _share(found, lesions)
