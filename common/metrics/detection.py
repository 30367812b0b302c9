"""How well a map finds lesions: tables per slice, per patient, and pooled with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from monai.metrics import compute_froc_curve_data, compute_froc_score
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from .intervals import rows_with_intervals
from .lesions import SIZE_BINS_MM, LesionRecord, examine_lesions
from .overlap import dice, overlap_row
from .pixels import PooledCounts, ScoreCounts, count_scores
from .statistics import Record, Row, Statistic, mean_of_cases, mean_of_column, mean_of_slices, share_of

FALSE_POSITIVES_PER_SCAN = (0.5, 1, 2, 4, 8)
"""Where the FROC curve is read."""

IMAGE_SCORES = {"map": "mean_score", "classifier": "probability"}
"""By what an image, which is a slice or a film, is called diseased, and the column that it stands in."""


@dataclass(frozen=True)
class ImageRecord(Record):
    """What is kept of a case whose images are known to be healthy or diseased."""


@dataclass(frozen=True)
class CaseRecord(ImageRecord):
    """What is kept of a case with a label.

    Attributes:
        counts: scores of the organ's pixels.
        lesions: what the mask and the map say of each lesion.
    """

    counts: ScoreCounts
    lesions: LesionRecord


def examine_image(
    case: str,
    patient: str,
    anomaly: NDArray[Any],
    mask: NDArray[Any],
    organ: NDArray[Any],
    diseased: Sequence[bool],
    spacing_mm: Sequence[float],
    otsu: bool = False,
    probability: NDArray[Any] | None = None,
) -> ImageRecord:
    """Return the record of a case that has no label, but of whose images it is known which are healthy or diseased.

    Args:
        case: name.
        patient: name.
        anomaly: map, shape (X, Y) or (X, Y, Z).
        mask: what is called lesion.
        organ: what is searched; slices without it do not count.
        diseased: what the film is known to be, or each slice.
        spacing_mm: see ``examine_case``.
        otsu: see ``examine_case``.
        probability: see ``examine_case``.
    """
    row = {"case": case, "patient": patient, **_scores(anomaly, organ, any(diseased), probability)}
    images: list[Any] = [None if x is None else np.atleast_3d(x) for x in (anomaly, mask & organ, organ, probability)]
    slice_rows = []
    for index in np.flatnonzero(np.atleast_3d(organ).any((0, 1))).tolist():
        own: Any = [None if x is None else x[..., index] for x in images]
        a, m, o, p = own
        slice_rows.append(_slice_row(case, index, a, m, o, p, diseased[index], spacing_mm, otsu))
    return ImageRecord(case, patient, row, slice_rows)


def slices_with_lesions(truth: NDArray[np.bool_], min_area: float = 0.0) -> NDArray[np.bool_]:
    """Return for each slice of (X, Y[, Z]) whether it has lesions, and whether they fill a share of it at least."""
    share = np.atleast_3d(truth).mean((0, 1))
    return (share > 0) & (share >= min_area)


def examine_case(
    case: str,
    patient: str,
    anomaly: NDArray[Any],
    mask: NDArray[Any],
    organ: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    lesion_slices_only: bool = False,
    min_area: float = 0.0,
    otsu: bool = False,
    overlaps: bool = False,
    probability: NDArray[Any] | None = None,
    relative_thresholds: Sequence[float] = (),
) -> CaseRecord:
    """Return the record of a case; all pixels of the organ count, and those of lesions beyond its mask do not.

    Args:
        case: name.
        patient: name.
        anomaly: map, shape (X, Y) or (X, Y, Z).
        mask: what is called lesion.
        organ: what is searched.
        truth: what is lesion.
        spacing_mm: size of a voxel along each axis; NaN where it is unknown, as in films.
        lesion_slices_only: leave out slices without lesions, as the paper's test set does.
        min_area: then also those whose lesions fill a smaller share of the slice.
        otsu: also find the threshold of each slice by Otsu's method, among the pixels of the organ.
        overlaps: also tell each slice's IoU and HD95, which has none where nothing is lesion or nothing is called so.
        probability: of disease in the slice, of the same shape, the same in each pixel that was examined; a slice is
            misclassified if it is above one half without lesions, or the other way round.
        relative_thresholds: also tell each slice's Dice for masks that begin at these shares of the map's highest value
            in the slice, as ``dice_at_0.25``. Source: Babaei et al. 2024, section 5.
    """
    truth = truth & organ
    if lesion_slices_only and truth.ndim == 3:
        shown = slices_with_lesions(truth, min_area)
        anomaly, mask, organ, truth = (x[..., shown] for x in (anomaly, mask, organ, truth))
        probability = probability if probability is None else probability[..., shown]
    counts, lesions = count_scores(anomaly[organ], truth[organ]), examine_lesions(anomaly, mask, truth, spacing_mm)
    millilitres = float(np.prod(spacing_mm)) / 1000 if truth.ndim == 3 else np.nan
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
        **_scores(anomaly, organ, bool(truth.any()), probability),
    }
    slice_rows: list[Row] = []
    volumes = [np.atleast_3d(x) for x in (anomaly, mask & organ, organ, truth)]
    tags = None if probability is None else np.atleast_3d(probability)
    for index in range(volumes[0].shape[2]):
        a, m, o, t = (x[..., index] for x in volumes)
        if o.any():
            p = None if tags is None else tags[..., index]
            known = _slice_row(case, index, a, m, o, p, bool(t.any()), spacing_mm, otsu)
            slice_rows.append(
                {
                    **known,
                    "lesion_pixels": int(t.sum()),
                    **_pixel_row(count_scores(a[o], t[o]), m, t),
                    **(overlap_row(m, t, spacing_mm[:2]) if overlaps else {}),
                    **({"dice_otsu": dice((a > known["otsu_threshold"]) & o, t)} if otsu else {}),
                    **{dice_at(r): dice((a >= r * a[o].max()) & (a > 0) & o, t) for r in relative_thresholds},
                }
            )
    if tags is not None:
        right = [r["slice"] for r in slice_rows if not r["misclassified"]]
        row["dice_without_misclassified"] = dice(volumes[1][..., right], volumes[3][..., right])
    return CaseRecord(case, patient, row, slice_rows, counts, lesions)


def dice_at(relative_threshold: float) -> str:
    """Return the column of a slice's Dice at a share of the map's highest value."""
    return f"dice_at_{relative_threshold:g}"


def _slice_row(
    case: str,
    index: int,
    anomaly: NDArray[Any],
    mask: NDArray[np.bool_],
    organ: NDArray[np.bool_],
    probability: NDArray[Any] | None,
    diseased: bool,
    spacing_mm: Sequence[float],
    otsu: bool,
) -> Row:
    """Return what is known of a slice, shape (X, Y), without its label."""
    return {
        "case": case,
        "slice": index,
        "organ_pixels": int(organ.sum()),
        "mask_cm2": mask.sum() * float(np.prod(spacing_mm[:2])) / 100,
        **_scores(anomaly, organ, diseased, probability),
        **({"otsu_threshold": float(threshold_otsu(anomaly[organ]))} if otsu else {}),  # of a constant map: its value
    }


def _scores(anomaly: NDArray[Any], organ: NDArray[np.bool_], diseased: bool, probability: NDArray[Any] | None) -> Row:
    """Return the columns of ``IMAGE_SCORES``, and what they are to tell; a volume is as diseased as its worst slice."""
    scores: Row = {"diseased": int(diseased), "mean_score": _mean(anomaly[organ])}
    if probability is not None:
        scores["probability"] = float(probability.max())
        scores["misclassified"] = int((scores["probability"] > 0.5) != diseased)
    return scores


def _pixel_row(counts: ScoreCounts, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Row:
    curve = PooledCounts([counts]).curve()
    return {
        "auroc": curve.auroc(),
        "ap": curve.average_precision(),
        "dice": dice(mask, truth),
        "dice_best_threshold_of_this_test": curve.best_dice()[0],
    }


def average_otsu(records: Sequence[ImageRecord], weights: NDArray[np.float64] | None = None) -> float:
    """Return the mean of the Otsu thresholds of all diseased slices and films, NaN without any.

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", section 4.

    Args:
        records: that were made with ``otsu``.
        weights: how often each case counts.
    """
    return slice_mean(records, "otsu_threshold", diseased=True)(np.ones(len(records)) if weights is None else weights)


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
    pooled = pool_pixels(records)
    statistics: dict[str, Statistic] = {
        "pixel AUROC, pooled": _auroc(pooled),
        "pixel AP, pooled": lambda w: pooled.curve(w).average_precision(),
        "Dice at the fitted threshold, pooled": lambda w: pooled.curve(w).dice_at(threshold),
        "Dice at the best threshold of this test set, pooled": lambda w: pooled.curve(w).best_dice()[0],
        **{f"{name}, mean of patients": _patient_mean(records, key) for name, key in PER_PATIENT.items()},
        "lesion sensitivity (any overlap)": _sensitivity(records, 0.0),
        "lesion sensitivity (10 % of the lesion)": _sensitivity(records, 0.1),
        **{
            f"lesion sensitivity, {_size_range(low, high)}": _sensitivity(records, 0.0, (low, high))
            for low, high in pairwise(SIZE_BINS_MM)
        },
        "false positive components a scan": _patient_mean(records, "false_positive_components"),
        "mask in slices without lesions, cm²": slice_mean(records, "mask_cm2", diseased=False),
        "FROC score (mean sensitivity at 0.5, 1, 2, 4, 8 false positives a scan)": lambda w: froc(records, w)[2],
    }
    if "otsu_threshold" in _slice_columns(records):
        statistics |= {
            "Dice at the average Otsu threshold of this test set, pooled": lambda w: pooled.curve(w).dice_at(
                average_otsu(records, w)
            ),
            "Dice at each slice's own Otsu threshold, mean of slices with lesions": slice_mean(
                records, "dice_otsu", diseased=True
            ),
        }
    if "hd95_mm" in _slice_columns(records):
        shown = [[row for row in r.slice_rows if row["diseased"]] for r in records]
        statistics |= {
            "IoU of the masks, mean of slices with lesions": slice_mean(records, "jaccard", diseased=True),
            "HD95 of the masks, mm, mean of slices with lesions and a mask": slice_mean(
                records, "hd95_mm", diseased=True
            ),
            "share of slices with lesions that have no mask": mean_of_slices(
                [[float(row["mask_pixels"] == 0) for row in rows] for rows in shown]
            ),
        }
    if "probability" in _slice_columns(records):
        statistics |= {
            "Dice of the masks, mean of slices with lesions": slice_mean(records, "dice", diseased=True),
            "Dice of the masks, mean of slices with lesions, without misclassified ones": slice_mean(
                records, "dice", diseased=True, misclassified=False
            ),
            "Dice of the masks, mean of patients, without misclassified slices": _patient_mean(
                records, "dice_without_misclassified"
            ),
        }
    return rows_with_intervals([r.patient for r in records], statistics, num_resamples)


def summarise_images(records: Sequence[ImageRecord], num_resamples: int = 0) -> list[Row]:
    """Return the part of the table of a run that says how well diseased slices and films are told from healthy ones.

    A metric is NaN where all images are of one class.

    Args:
        records: of all cases whose images are known to be healthy or diseased.
        num_resamples: see ``summarise``.

    Returns:
        See ``summarise``.
    """
    statistics: dict[str, Statistic] = {
        f"image-level AUROC of the {name}": _auroc(pooled) for name, pooled in pool_images(records).items()
    }
    if "probability" in _slice_columns(records):
        right = [[1 - row["misclassified"] for row in r.slice_rows] for r in records]
        statistics["image-level accuracy of the classifier"] = mean_of_slices(right)
    return rows_with_intervals([r.patient for r in records], statistics, num_resamples)


def pool_pixels(records: Sequence[CaseRecord]) -> PooledCounts:
    """Return the scores of all pixels of the organs."""
    return PooledCounts([record.counts for record in records])


def pool_images(records: Sequence[ImageRecord]) -> dict[str, PooledCounts]:
    """Return the scores of all slices and films by what gives them, see ``IMAGE_SCORES``."""
    return {
        name: PooledCounts(
            [count_scores([row[s] for row in r.slice_rows], [row["diseased"] for row in r.slice_rows]) for r in records]
        )
        for name, s in IMAGE_SCORES.items()
        if s in _slice_columns(records)
    }


def _slice_columns(records: Sequence[ImageRecord]) -> set[str]:
    return {column for record in records for row in record.slice_rows[:1] for column in row}


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
    end = int(1.25 * max(FALSE_POSITIVES_PER_SCAN) * times.sum())
    false_peaks = np.append(np.sort(false_peaks)[::-1][:end], 0.0)
    false_positives, sensitivity = compute_froc_curve_data(
        false_peaks, lesion_peaks, len(lesion_peaks), int(times.sum())
    )
    score = compute_froc_score(false_positives, sensitivity, FALSE_POSITIVES_PER_SCAN)
    known = np.asarray(false_positives) * times.sum() < end  # from there on lesions are found as if no more were false
    return np.asarray(false_positives)[known], np.asarray(sensitivity)[known], float(np.mean(score))


def _auroc(pooled: PooledCounts) -> Statistic:
    return lambda weights: pooled.curve(weights).auroc()


def _patient_mean(records: Sequence[CaseRecord], key: str) -> Statistic:
    return mean_of_cases([record.row[key] for record in records])


def slice_mean(records: Sequence[ImageRecord], key: str, diseased: bool, misclassified: bool = True) -> Statistic:
    """Return the mean of a column over the diseased slices, or over the healthy ones, that have a number in it.

    Args:
        records: of all cases.
        key: of the column.
        diseased: which of the slices.
        misclassified: also those that the classifier gets wrong.
    """
    shown = [[row for row in r.slice_rows if row["diseased"] == diseased] for r in records]
    return mean_of_column([[r for r in rows if misclassified or not r["misclassified"]] for rows in shown], key)


def _sensitivity(
    records: Sequence[CaseRecord], covered: float, bounds_mm: tuple[float, float] | None = None
) -> Statistic:
    """Return the share of lesions, of all or of those of a size, that the mask covers by more than a share."""
    diameters = [r.lesions.diameters_mm for r in records]
    in_bin = [
        np.ones(len(d), dtype=bool) if bounds_mm is None else (d >= bounds_mm[0]) & (d < bounds_mm[1])
        for d in diameters
    ]
    lesions = np.array([chosen.sum() for chosen in in_bin])
    found = np.array([(r.lesions.overlaps[c] > covered).sum() for r, c in zip(records, in_bin, strict=True)])
    return share_of(found, lesions)
