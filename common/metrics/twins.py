"""What a method says has changed, against what has: where the same image without its lesions is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.metrics import SSIMMetric
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from .intervals import rows_with_intervals
from .overlap import dice
from .pixels import PooledCounts, count_scores
from .statistics import Record, Row, Statistic, mean_of_cases

WINDOW = 11
"""Pixels along each axis that SSIM compares at once."""


@dataclass(frozen=True)
class TwinRecord(Record):
    """What is kept of a case whose twin is known.

    Attributes:
        found: healthy version minus image.
        truth: twin minus image, 0 everywhere where nothing is ill.
    """

    found: NDArray[np.float32]
    truth: NDArray[np.float32]


def examine_twin(case: str, patient: str, image: NDArray[Any], healthy: NDArray[Any], twin: NDArray[Any]) -> TwinRecord:
    """Return the record of a case.

    Args:
        case: name.
        patient: name.
        image: as it was examined, shape (X, Y) or (X, Y, Z).
        healthy: its healthy version.
        twin: the same image without its lesions.
    """
    found, truth = (np.asarray(x - image, dtype=np.float32) for x in (healthy, twin))
    error = float(np.mean((found - truth) ** 2))
    row: Row = {"case": case, "patient": patient}
    if truth.any():
        row |= {
            "difference_mse": error,
            "zero_mse": float(np.mean(truth**2)),
            "difference_ssim": similarity(found, truth),
        }
    else:
        row["healthy_mse"] = error
    return TwinRecord(case, patient, row, [], found, truth)


def similarity(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Return the mean SSIM of slices, each scaled to [0, 1]; 0 where one of both is constant, NaN of small images.

    Source: Wang et al. 2004, "Image Quality Assessment", Eq. 13, with windows of 11 pixels and a sigma of 1.5.
    """
    slices = [np.moveaxis(np.atleast_3d(x), -1, 0) for x in (found, truth)]
    if min(found.shape[:2]) < WINDOW:
        return float("nan")
    measure = SSIMMetric(2, data_range=1.0, win_size=WINDOW, kernel_sigma=1.5)
    return float(np.mean([_ssim(measure, *pair) for pair in zip(*slices, strict=True)]))


def _ssim(measure: SSIMMetric, *pair: NDArray[np.float32]) -> float:
    if min(np.ptp(x) for x in pair) == 0:
        return 0.0
    scaled = (torch.from_numpy((x - x.min()) / np.ptp(x))[None, None] for x in pair)
    return float(torch.as_tensor(measure(*scaled)))


def true_threshold(records: Sequence[TwinRecord]) -> float:
    """Return where true differences begin: the mean of Otsu's thresholds of their magnitudes, NaN without any."""
    found = [threshold_otsu(np.abs(record.truth)) for record in records if record.truth.any()]
    return float(np.mean(found)) if found else float("nan")


def scored(records: Sequence[TwinRecord]) -> list[TwinRecord]:
    """Return records whose rows also have the columns that depend on where true differences begin.

    Args:
        records: of all cases whose twin is known.
    """
    threshold = true_threshold(records)
    return [replace(record, row=record.row | _at(threshold, record)) for record in records]


def _at(threshold: float, record: TwinRecord) -> Row:
    """Return the columns of a diseased case at a threshold, which also makes the mask."""
    if not record.truth.any():
        return {}
    found, truth = np.abs(record.found), np.abs(record.truth) > threshold
    curve = PooledCounts([count_scores(found.ravel(), truth.ravel())]).curve()
    return {"difference_dice": dice(found > threshold, truth), "difference_auroc": curve.auroc()}


def summarise_twins(records: Sequence[TwinRecord], num_resamples: int = 0) -> list[Row]:
    """Return the part of the table of a run that compares differences with true ones.

    Source: Wolleb et al. 2020, "DeScarGAN", section 3. Both stay in the unit of the image. What is true begins at one
    threshold for all images, which also makes the masks; it comes from the truth of these very images.

    Args:
        records: of all cases whose twin is known, ``scored``.
        num_resamples: see ``summarise``.

    Returns:
        See ``summarise``.
    """
    statistics = twin_statistics([record.row for record in records])
    return rows_with_intervals([record.patient for record in records], statistics, num_resamples)


def twin_statistics(rows: Sequence[Row]) -> dict[str, Statistic]:
    """Return the metrics of cases by title, see ``TWIN_TITLES``.

    Args:
        rows: of all cases, ``scored``; a column may be missing or NaN.
    """
    return {title: mean_of_cases([row.get(name, np.nan) for row in rows]) for name, title in TWIN_TITLES.items()}


TWIN_TITLES = {
    "difference_dice": "Dice of the difference at the threshold of true ones",
    "difference_auroc": "pixel AUROC of the difference, mean of images",
    "difference_mse": "squared error of the difference",
    "zero_mse": "squared error of no difference at all",
    "difference_ssim": "SSIM of the difference",
    "healthy_mse": "squared error of healthy images",
}
"""What columns are called whose mean is given."""
