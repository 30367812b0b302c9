"""How good segmentations are, and whether their uncertainty says where they are wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.metrics.calibration import calibration_binning
from numpy.typing import NDArray
from scipy.stats import spearmanr

from .intervals import rows_with_intervals
from .overlap import overlap_row
from .pixels import Curve, PooledCounts, ScoreCounts, count_scores
from .statistics import Record, Row, Statistic, mean_of_column, mean_of_slices

NUM_BINS = 15
"""Of probabilities, for the calibration."""

THRESHOLD = 0.5
"""Of the mean of samples."""

SIZES = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)
"""Numbers of members that ensembles are compared with."""

OVERLAPS = {"Dice": "dice", "IoU": "jaccard", "HD95, mm": "hd95_mm"}
"""Metrics of a slice and the columns that they stand in."""


@dataclass(frozen=True)
class SegmentationRecord(Record):
    """What is kept of one region of a case; its ``row`` is of overlap in 3-D.

    Attributes:
        calibration: pixels, sum of probabilities, and pixels that are true, in each bin, shape (3, NUM_BINS).
        errors: pixels of the organ by their uncertainty; those that the mask gets wrong are the positives.
        sizes: see ``examine_sizes``; empty without members.
        region: its name where there are several.
    """

    calibration: NDArray[np.float64]
    errors: ScoreCounts
    sizes: Mapping[int, Sequence[Sequence[Row]]] = field(default_factory=dict)
    region: str = ""


def examine_segmentation(
    case: str,
    patient: str,
    mean: NDArray[Any],
    uncertainty: NDArray[Any],
    mask: NDArray[np.bool_],
    organ: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    members: Sequence[NDArray[Any]] = (),
    region: str = "",
) -> SegmentationRecord:
    """Return the record of a case; of uncertainty its organ's pixels count, of overlap all of slices that show it.

    Args:
        case: name.
        patient: name.
        mean: of the samples, taken for a probability where it lies between 0 and 1, shape (X, Y) or (X, Y, Z).
        uncertainty: of each pixel, of the same shape.
        mask: what is segmented.
        organ: where.
        truth: what should have been.
        spacing_mm: size of a voxel along each axis.
        members: samples that ``mean`` is of, to compare smaller ensembles, see ``examine_sizes``.
        region: name of what is segmented, where a case has several; then it is a column too.
    """
    which = {"region": region} if region else {}
    binned = torch.from_numpy(np.clip(mean[organ], 0, 1).astype(np.float32))[None, None]
    p, y, count = (
        x[0, 0].nan_to_num() for x in calibration_binning(binned, torch.from_numpy(truth[organ])[None, None], NUM_BINS)
    )
    volumes = [np.atleast_3d(x) for x in (uncertainty, mask, organ, truth)]
    slice_rows = []
    for index in range(volumes[0].shape[2]):
        u, m, o, t = (x[..., index] for x in volumes)
        if o.any():
            slice_rows.append(
                {
                    **which,
                    "case": case,
                    "slice": index,
                    **overlap_row(m, t, spacing_mm[:2]),
                    "mean_uncertainty": float(u[o].mean()),
                }
            )
    errors = count_scores(uncertainty[organ], (mask != truth)[organ])
    shown = organ.any((0, 1)) if organ.ndim == 3 else slice(None)
    row = {
        **which,
        "case": case,
        "patient": patient,
        **overlap_row(mask[..., shown], truth[..., shown], spacing_mm),
        "mean_uncertainty": float(uncertainty[organ].mean()),
        "errors_auroc": PooledCounts([errors]).curve().auroc(),
        "brier": float(np.square(np.clip(mean, 0, 1) - truth)[organ].mean()),
    }
    calibration = np.stack([count, count * p, count * y]).astype(float)
    sizes = examine_sizes(np.stack(members), organ, truth, spacing_mm) if len(members) else {}
    return SegmentationRecord(case, patient, row, slice_rows, calibration, errors, sizes, region)


def examine_sizes(
    members: NDArray[Any], organ: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[int, list[list[Row]]]:
    """Return by the number of members the ensembles of a case, and of each a row a slice that shows organ and truth.

    Members are the first ones; of one member there are as many ensembles as members.

    Args:
        members: samples, shape (N, X, Y[, Z]); their masks begin at ``THRESHOLD``.
        organ: where, shape (X, Y[, Z]).
        truth: what should have been segmented.
        spacing_mm: size of a voxel along each axis.
    """
    inside, target = np.atleast_3d(organ), np.atleast_3d(truth)
    shown = np.flatnonzero(inside.any((0, 1)) & target.any((0, 1)))

    def rows(mean: NDArray[Any]) -> list[Row]:
        mask = (np.atleast_3d(mean) > THRESHOLD) & inside
        return [overlap_row(mask[..., z], target[..., z], spacing_mm[:2]) for z in shown]

    sizes = [size for size in SIZES if size <= len(members)]
    return {size: [rows(m) for m in members] if size == 1 else [rows(members[:size].mean(0))] for size in sizes}


def summarise_sizes(found: Sequence[Mapping[int, Sequence[Sequence[Row]]]]) -> list[Row]:
    """Return Dice and HD95 by the number of members, the Figure 4 of Wolleb et al. 2022, and with many its Table 2.

    Of single members it is the mean over them, and the standard deviation; of larger ensembles there is one. What has
    no mask at all has no HD95, and is left out.

    Args:
        found: of all cases, see ``examine_sizes``.
    """
    rows = []
    for size, ensembles in found[0].items():
        row: Row = {"members": size}
        for key in ("dice", "hd95_mm"):
            runs = ([r[key] for case in found for r in case[size][run]] for run in range(len(ensembles)))
            finite = [[value for value in values if np.isfinite(value)] for values in runs]
            means = [np.mean(values) for values in finite if values]
            row[key] = float(np.mean(means)) if means else np.nan
            row[f"{key}_std"] = float(np.std(means)) if means and size == 1 else np.nan
        rows.append(row)
    return rows


def summarise_segmentations(records: Sequence[SegmentationRecord], num_resamples: int = 0) -> list[Row]:
    """Return the table of a run: a row a metric, with its interval over patients.

    Args:
        records: of all cases.
        num_resamples: draws of the bootstrap, 0 for no intervals.
    """
    return rows_with_intervals([r.patient for r in records], segmentation_statistics(records), num_resamples)


def segmentation_statistics(records: Sequence[SegmentationRecord]) -> dict[str, Statistic]:
    """Return all metrics of a run, by their names.

    As in the table of Wolleb et al. 2022, "Diffusion Models for Implicit Image Segmentation Ensembles", slices count
    where something should be segmented, and "with a mask" leaves out those where nothing is.

    Args:
        records: of all cases.
    """
    errors = PooledCounts([r.errors for r in records])
    calibration = np.stack([r.calibration for r in records])
    slices = [[row for row in r.slice_rows if row["true_pixels"]] for r in records]
    filled = [[row for row in rows if row["mask_pixels"]] for rows in slices]
    empty = [[float(row["mask_pixels"] == 0) for row in rows] for rows in slices]
    statistics: dict[str, Statistic] = {}
    for name, key in OVERLAPS.items():
        if key != "hd95_mm":  # without a mask there is no distance
            statistics[f"{name}, mean of slices"] = mean_of_column(slices, key)
        statistics[f"{name}, mean of slices with a mask"] = mean_of_column(filled, key)
        statistics[f"{name} in 3-D, mean of patients"] = mean_of_column([[r.row] for r in records], key)
    return {
        **statistics,
        "share of slices without a mask": mean_of_slices(empty),
        "Brier score, mean of patients": mean_of_column([[r.row] for r in records], "brier"),
        "expected calibration error": lambda w: calibration_error(np.tensordot(w, calibration, 1)),
        "AUROC of the uncertainty for errors": lambda w: errors.curve(w).auroc(),
        "error rate": lambda w: float(retention(errors.curve(w))[1][0]),
        "area under the error retention curve": lambda w: retention_area(errors.curve(w)),
        "correlation of Dice and mean uncertainty over slices (Spearman)": _correlation(slices),
    }


def _correlation(slices: Sequence[Sequence[Row]]) -> Statistic:
    def correlation(weights: NDArray[np.float64]) -> float:
        drawn = [row for rows, n in zip(slices, weights.astype(int), strict=True) for row in list(rows) * n]
        pairs = np.array([[row["dice"], row["mean_uncertainty"]] for row in drawn])
        if len(pairs) < 3 or (pairs == pairs[0]).all(0).any():
            return float("nan")
        return float(spearmanr(pairs).statistic)

    return correlation


def calibration_error(calibration: NDArray[np.float64]) -> float:
    """Return the expected calibration error: the mean over pixels of |probability - share that is true| of their bin.

    Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning".

    Args:
        calibration: pixels, sum of probabilities and pixels that are true in each bin, shape (3, bins).
    """
    count, probability, true = calibration
    return float(np.abs(probability - true).sum() / count.sum()) if count.sum() else float("nan")


def retention(errors: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shares of the pixels that are kept, the most uncertain leaving first, and the error rates of what is kept.

    Args:
        errors: of ``SegmentationRecord.errors``, pooled.
    """
    removed = np.r_[0, errors.true_positives + errors.false_positives]
    wrong = errors.true_positives[-1] - np.r_[0, errors.true_positives]
    kept = removed[-1] - removed
    rate = wrong / np.maximum(kept, 1)
    rate[-1] = rate[-2]  # nothing is left; of pixels that are equally uncertain any may have been the last
    return kept / max(removed[-1], 1), rate


def retention_area(errors: Curve) -> float:
    """Return the mean error rate over all shares of pixels that are kept: small if what is wrong is uncertain."""
    kept, rate = retention(errors)
    return float(np.trapezoid(rate[::-1], kept[::-1]))
