"""From an image and its healthy version to an anomaly map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from .adaptive_mask import smooth


def anomaly_map(
    image: NDArray[Any], healthy: NDArray[Any], organ: NDArray[np.bool_], radius: int | Sequence[int] = 0
) -> NDArray[np.float32]:
    """Return how much darker than its healthy version the image is, in HU.

    Signed, and zero where nothing was inpainted, as both images are equal there; then ``smooth_in``.

    Source: Shi et al. 2024 (GDPI), Eq. 15.

    Args:
        image: HU, shape (X, Y) or (X, Y, Z), slices along the last axis.
        healthy: the image with its hole inpainted, HU.
        organ: true in the organ.
        radius: of the median filter, see ``smooth``; the paper does not give it.
    """
    return smooth_in(organ, healthy - image, radius)


def smooth_in(
    organ: NDArray[np.bool_], difference: NDArray[Any], radius: int | Sequence[int] = 0
) -> NDArray[np.float32]:
    """Return differences median-filtered within slices, then set to zero outside the organ.

    Args:
        organ: true in the organ, shape (X, Y) or (X, Y, Z), slices along the last axis.
        difference: of two images, of the same shape.
        radius: of the median filter, see ``smooth``.
    """
    scores = np.zeros(difference.shape, dtype=np.float32)
    boxes = find_objects(organ.astype(np.uint8))
    if boxes:
        rim = int(np.sum(radius))
        around = tuple(slice(max(s.start - rim, 0), s.stop + rim) for s in boxes[0][:2]) + boxes[0][2:]
        scores[around] = smooth(np.asarray(difference[around], dtype=np.float32), radius, wanted=organ[around])
    return np.where(organ, scores, np.float32(0))
