"""Lesion-wise metrics: which lesions are found, by size, and what is found where there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.metrics import compute_fp_tp_probs_nd
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label
from skimage.feature import peak_local_max

SIZE_BINS_MM = (0.0, 10.0, 20.0, 40.0, float("inf"))
"""Bounds of the bins of lesion diameter, mm."""


@dataclass(frozen=True)
class LesionRecord:
    """What a map says of the lesions of one case.

    Attributes:
        diameters_mm: of a ball of each lesion's volume, shape (lesions,).
        overlaps: share of each lesion that the mask covers.
        false_positives: components of the mask that touch no lesion.
        false_peaks: scores of the map's peaks outside lesions, for FROC.
        lesion_peaks: highest peak within each lesion, 0 where there is none.
    """

    diameters_mm: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    false_positives: int
    false_peaks: NDArray[np.float64]
    lesion_peaks: NDArray[np.float64]


def examine_lesions(
    anomaly: NDArray[np.floating], mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> LesionRecord:
    """Return which lesions of a case are found; lesions are components that touch by face, edge or corner.

    Args:
        anomaly: map, 2-D or 3-D.
        mask: what is called lesion, of the same shape.
        truth: what is lesion.
        spacing_mm: size of a voxel along each axis.
    """
    touching = np.ones((3,) * truth.ndim, dtype=bool)
    lesions, count = label(truth, structure=touching)
    sizes = np.bincount(lesions.ravel(), minlength=count + 1)[1:]
    covered = np.bincount(lesions[mask], minlength=count + 1)[1:]
    found, num_found = label(mask, structure=touching)
    touched = np.unique(found[truth])

    peaks = peak_local_max(np.where(anomaly > 0, anomaly, 0), min_distance=1, threshold_abs=1e-6, exclude_border=False)
    false_peaks, lesion_peaks, _ = compute_fp_tp_probs_nd(anomaly[tuple(peaks.T)], peaks, lesions)
    return LesionRecord(
        diameters_mm=equivalent_diameter(sizes * float(np.prod(spacing_mm)), truth.ndim),
        overlaps=covered / np.maximum(sizes, 1),
        false_positives=num_found - int((touched > 0).sum()),
        false_peaks=np.asarray(false_peaks, dtype=np.float64),
        lesion_peaks=np.asarray(lesion_peaks, dtype=np.float64),
    )


def peak_to_point_mm(anomaly: NDArray[np.floating], point: ArrayLike, affine: NDArray[np.float64]) -> float:
    """Return how far the highest value of a map is from a marked point, mm; NaN for a map that is 0 all over.

    Source: Babaei et al. 2024, Figure 4, which shows maps beside marked tumours that nobody has outlined.

    Args:
        anomaly: map, shape (X, Y) or (X, Y, Z).
        point: world coordinates x, y, z, mm.
        affine: voxel to world in mm, shape (4, 4).
    """
    if not (anomaly > 0).any():
        return float("nan")
    peak = np.unravel_index(int(anomaly.argmax()), anomaly.shape)
    voxel = np.array([*peak, 0][:3])
    return float(np.linalg.norm(affine[:3, :3] @ voxel + affine[:3, 3] - np.asarray(point)))


def equivalent_diameter(sizes: NDArray[np.floating], ndim: int) -> NDArray[np.float64]:
    """Return the diameter in mm of a ball of each volume in mm^3, or of a disc of each area in mm^2."""
    return np.asarray(2 * np.sqrt(sizes / np.pi) if ndim == 2 else np.cbrt(6 * sizes / np.pi), dtype=np.float64)
