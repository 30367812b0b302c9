"""Which pixels of an organ are darker than its median: GDPI's adaptive mask extraction."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.utils import ensure_tuple
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, label, median_filter, uniform_filter

IN_CACHE = 256
"""Windows of a median filter that are sorted at once: a processor's cache holds them."""


def organ_median(image: NDArray[Any], organ: NDArray[np.bool_], reference: str = "slice") -> NDArray[Any]:
    """Return the median of the organ, for each slice or for the volume, broadcastable to ``image``; 0 without organ.

    Args:
        image: shape (X, Y) or (X, Y, Z), slices along the last axis.
        organ: of the same shape.
        reference: ``slice`` or ``volume``.

    Raises:
        ValueError: for another reference.
    """
    if reference not in ("slice", "volume"):
        raise ValueError(f"reference must be 'slice' or 'volume', got {reference!r}.")
    if reference == "volume" or image.ndim == 2:
        return np.asarray(np.median(image[organ]) if organ.any() else 0.0)
    medians = [np.median(image[..., k][organ[..., k]]) if organ[..., k].any() else 0 for k in range(image.shape[-1])]
    return np.asarray(medians)


def adaptive_mask(
    image: NDArray[Any],
    organ: NDArray[np.bool_],
    threshold_hu: float = 20.0,
    reference: str = "slice",
    prefilter_radius: int | Sequence[int] = 0,
    min_component: int = 0,
    dilation: int = 0,
    rim_erosion: int = 0,
    adaptive: bool = True,
) -> NDArray[np.bool_]:
    """Return where the organ is darker than its median: the hole to be inpainted.

    The defaults are the paper's. On noisy images they give salt and pepper; ``prefilter_radius`` and ``dilation`` make
    connected holes with clean rims of it. All filters work within slices.

    Source: Shi et al. 2024 (GDPI), section II B.

    Args:
        image: HU, shape (X, Y) or (X, Y, Z), slices along the last axis.
        organ: of the same shape, true in the organ.
        threshold_hu: how much darker than the median.
        reference: of the median, ``slice`` or ``volume``.
        prefilter_radius: of the median filter before the threshold, see ``smooth``; it sees the organ alone.
        min_component: smallest connected component that is kept, pixels, diagonals connect.
        dilation: pixels by which the mask grows, within the organ.
        rim_erosion: pixels by which the organ is eroded first, as partial volume darkens its rim.
        adaptive: false takes the whole (eroded) organ: the paper's ablations WR and WRD.
    """
    within_slices = np.ones((3, 3) if image.ndim == 2 else (3, 3, 1), dtype=bool)
    searched = organ if rim_erosion == 0 else binary_erosion(organ, within_slices, rim_erosion)
    if not adaptive:
        return searched.copy()
    median = organ_median(image, organ, reference)
    # The organ's surroundings take the median, so that the fat around a liver does not darken its rim.
    inside = np.where(organ, image, median)
    mask = searched & (median - smooth(inside, prefilter_radius) > threshold_hu)
    if min_component > 1:
        components, _ = label(mask, structure=_connectivity(mask.ndim))
        sizes = np.bincount(components.ravel())
        mask &= sizes[components] >= min_component
    if dilation:
        mask = binary_dilation(mask, within_slices, dilation) & searched
    return mask


def smooth(image: NDArray[Any], radius: int | Sequence[int], wanted: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Return a median-filtered image, slice by slice; several radii are applied one after the other.

    Two filters of 3x3 remove about as much noise as one of 5x5, and keep smaller lesions.

    Args:
        image: shape (X, Y) or (X, Y, Z), slices along the last axis.
        radius: pixels, or several; 1 is 3x3, 0 no filter.
        wanted: where the result is needed, of the shape of the image; elsewhere it is anything. All by default.

    Raises:
        ValueError: for a negative one.
    """
    if any(r < 0 for r in ensure_tuple(radius)):
        raise ValueError(f"the radius of a filter must be >= 0, got {radius}.")
    radii = [r for r in ensure_tuple(radius) if r > 0]
    for r in radii if wanted is None else radii[:-1]:
        size = 2 * r + 1
        image = median_filter(image, size=(size, size) if image.ndim == 2 else (size, size, 1))
    return image if wanted is None or not radii else _median_at(image, radii[-1], wanted)


def _median_at(image: NDArray[Any], radius: int, wanted: NDArray[np.bool_]) -> NDArray[Any]:
    """Return what a median filter gives where it is wanted, in half its time: at once where most of it sees zeros."""
    result, size = np.zeros_like(image), 2 * radius + 1
    planes, wanted_in, into = (np.atleast_3d(x) for x in (image, wanted, result))
    for k in np.flatnonzero(wanted_in.any((0, 1))):
        windows = sliding_window_view(np.pad(planes[..., k], radius, mode="symmetric"), (size, size))
        crowded = uniform_filter((planes[..., k] != 0).astype(np.float32), size) > 0.5
        places = np.argwhere(wanted_in[..., k] & crowded)
        for first in range(0, len(places), IN_CACHE):
            x, y = places[first : first + IN_CACHE].T
            values = windows[x, y].reshape(-1, size**2)
            values.partition(size**2 // 2, axis=1)
            into[x, y, k] = values[:, size**2 // 2]
    return result


def _connectivity(ndim: int) -> NDArray[np.bool_]:
    """Return the eight neighbours within a slice."""
    structure = np.ones((3, 3), dtype=bool)
    return structure if ndim == 2 else np.stack([structure * False, structure, structure * False], axis=-1)
