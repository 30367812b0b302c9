"""How much a mask and the truth overlap, and how far apart their surfaces are."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
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
