"""How much a mask and the truth overlap, and how far apart their surfaces are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray


def overlap_row(mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]) -> dict[str, float]:
    """Return Dice and Jaccard, NaN where nothing should be segmented, and HD95, NaN also where nothing is."""
    present = bool(truth.any())
    return {
        "true_pixels": int(truth.sum()),
        "mask_pixels": int(mask.sum()),
        "dice": dice(mask, truth),
        "jaccard": (mask & truth).sum() / (mask | truth).sum() if present else np.nan,
        "hd95_mm": hd95_mm(mask, truth, spacing_mm) if present and mask.any() else np.nan,
    }


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice of a mask, NaN where nothing should be segmented."""
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) if truth.any() else np.nan


def hd95_mm(mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """Return the 95th percentile of the distances between two surfaces, mm."""
    pred, y = (torch.from_numpy(x)[None, None].float() for x in (mask, truth))
    found = compute_hausdorff_distance(pred, y, include_background=True, percentile=95, spacing=list(spacing_mm))
    return float(found)


def surface_dice(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float], tolerance_mm: float = 2.0
) -> float:
    """Return the share of two surfaces that lies near the other one (NSD), NaN where nothing should be segmented.

    Surfaces lie between voxels, and their pieces have areas: the numbers are those of DeepMind's surface-distance.

    Source: Nikolov et al. 2018, "Deep learning to achieve clinically applicable segmentation of head and neck anatomy".

    Args:
        mask: what is segmented, 3-D.
        truth: what should have been.
        spacing_mm: size of a voxel along each axis.
        tolerance_mm: how far a piece of a surface may be from the other.
    """
    if not truth.any() or not mask.any():
        return 0.0 if truth.any() else float("nan")
    inside = np.argwhere(mask | truth)
    box = tuple(slice(max(first - 1, 0), last + 2) for first, last in zip(inside.min(0), inside.max(0), strict=True))
    pred, y = (torch.from_numpy(np.pad(x[box], 1))[None, None] for x in (mask, truth))
    options: dict[str, Any] = {"include_background": True, "spacing": list(spacing_mm), "use_subvoxels": True}
    return float(compute_surface_dice(pred, y, [tolerance_mm], **options))
