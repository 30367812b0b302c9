"""Whether an image can be what a bundle takes it for: what cannot is refused, what may not be is warned of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files import BadFileError
from .reading import in_mm, read_nifti

MIN_BACKGROUND = 0.2
"""Smallest share of voxels that are 0 in an MR without skull; it is about 0.8 in BraTS, which is not cropped."""

MIN_COHERENCE = 0.3
"""Smallest correlation of neighbouring voxels in an image; it is 0.87 or more in the scans tried, 0 in noise."""

ENOUGH = 2**22
"""About so many voxels are looked at, from all over a larger image, where shares and medians of them decide."""

MIN_MEDIASTINUM = -0.3
"""Smallest difference of middle and lungs in a frontal film, in standard deviations of its pixels; it is below that in
4 of 940 films of ChestX-ray14, and 1.1 in half of them."""


def check_ct(voxels: NDArray[np.float32], path: str | Path) -> None:
    """Check that an image can be a CT in HU, whole or cropped, clipped to a window or not.

    Shares of voxels decide, as single ones may be padding, down to -3024, or metal, up to 30000.

    Raises:
        BadFileError: if it is constant, or its values are not plausible Hounsfield units.
    """
    _refuse_constant(voxels, path)
    low, high, voxels = float(voxels.min()), float(voxels.max()), _spread(voxels)
    tissue = voxels[voxels > -150]
    reasons = {
        "": high - low < 50 or low < -10000 or float(np.percentile(voxels, 99)) > 10000,
        # In a crop to an organ, all may be above water; what has an edge there, or much that is brighter, is no CT.
        ", none of them below 0": low >= 0 and (high > 350 or float(np.mean(voxels == low)) > 0.05),
        # Where values are stored as the scanner had them, water is 1024; where they are negated, air is 1000.
        ", many of them between 700 and 1400, as if they were stored values without the rescale": (
            float(np.mean((voxels > 700) & (voxels < 1400))) > 0.2
        ),
        # Next to air, tissue spreads from fat to contrast agent or bone, 180 HU or more in the scans tried, and at the
        # edges by partial volume; what lies closer together has been scaled.
        ", in which nothing is as dark as air and all else is alike, as if they were scaled": (
            low > -900 and len(tissue) < 0.9 * voxels.size and _width(tissue) < 120
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise BadFileError(
                f"{path}: expected a CT in Hounsfield units (air -1000, water 0), got values from {low:g} to {high:g}"
                f"{reason}."
            )


def _width(voxels: NDArray[np.float32]) -> float:
    """Return how far most of the voxels lie apart, 0 where there are none."""
    return float(np.ptp(np.percentile(voxels, (5, 95)))) if len(voxels) else 0.0


def unusual_ct(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> list[str]:
    """Return what is to be warned of in a CT that can be used, a clause for each thing."""
    low, high, some = float(voxels.min()), float(voxels.max()), _spread(voxels)
    tissue, dark = some[(some > -300) & (some != low)], some[some < -150]
    middle = float(np.median(tissue)) if tissue.size else -1000.0
    clauses = _noise(voxels)
    if np.array_equal(affine, np.eye(4)):
        clauses.append("its affine is the identity, so its voxels of 1 mm are probably not their true size")
    if low == -128 and high == 127:
        clauses.append("its values end where those of 8 bits do, at -128 and 127, so others may have been wrapped")
    if low > -900 and len(dark) > 0.1 * some.size and -850 < (air := float(np.median(dark))) < -460:
        clauses.append(f"much of it has about {air:.0f} HU, which is neither air nor where windows end")
    if low >= 0:
        clauses.append("nothing in it is below 0 HU: it is cropped to an organ, or on another scale")
    if not -150 < middle < 250:
        clauses.append(f"half of what is not air in it lies beyond {middle:.0f} HU, which is unlike soft tissue")
    return clauses


def check_mr(voxels: NDArray[np.float32], path: str | Path) -> None:
    """Check that an image may be an MR, whose values have no unit.

    Raises:
        BadFileError: if it is constant.
    """
    _refuse_constant(voxels, path)


def unusual_mr(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> list[str]:
    """Return what is unlike BraTS in an MR of the brain, a clause for each thing.

    BraTS has the skull removed and 0 around the brain; what has learnt from it cannot be trusted where an image is
    otherwise.

    Args:
        voxels: of one sequence, as the scanner scales them, shape (X, Y[, Z]).
        affine: voxel to world in mm.
    """
    background = float((voxels == 0).mean())
    clauses = _noise(voxels)
    if background < MIN_BACKGROUND:
        clauses.append(f"it does not look skull-stripped, as only {background:.1%} of its voxels are 0")
    if voxels.min() < -0.01 * voxels.max():  # less is what resampling leaves
        clauses.append(f"it has negative values, down to {voxels.min():g}, as if it were normalised already or no MR")
    return clauses


def coarse(affine: NDArray[np.float64], num_axes: int, voxel_mm: Sequence[float] | None) -> list[str]:
    """Return a clause if voxels are much larger than those that weights learned from, however the axes are turned.

    Args:
        affine: voxel to world in mm.
        num_axes: of the image, 2 or 3.
        voxel_mm: sizes in the plane and across it that the weights learned from, mm; None asks for nothing.
    """
    if voxel_mm is None:
        return []
    sizes = np.sort(np.linalg.norm(affine[:3, :num_axes], axis=0))
    if (sizes <= 2 * np.sort(voxel_mm)[:num_axes]).all():
        return []
    return [f"its voxels are {in_mm(sizes)}, coarse beside the {in_mm(voxel_mm)} that the weights learned from"]


def check_film(pixels: NDArray[np.float32], path: str | Path) -> None:
    """Check that an image may be an X-ray, whose values have no unit.

    Raises:
        BadFileError: if it is constant.
    """
    _refuse_constant(pixels, path)


def unusual_film(pixels: NDArray[np.float32], affine: NDArray[np.float64]) -> list[str]:
    """Return what is unlike a frontal film of the chest, bright where little passes, a clause for each thing."""
    clauses = _noise(pixels)
    high, highest = float(np.percentile(pixels, 99.9)), float(pixels.max())
    if highest > 3 * max(high, 0):
        clauses.append(f"a few of its pixels are {highest:g}, far beyond the others, which end at {high:g}")
    x, y = pixels.shape
    middle = pixels[int(0.42 * x) : int(0.58 * x), int(0.25 * y) : int(0.7 * y)]
    lungs = [pixels[int(a * x) : int((a + 0.18) * x), int(0.25 * y) : int(0.6 * y)] for a in (0.18, 0.64)]
    if middle.size and all(lung.size for lung in lungs):
        darker = float(np.median(middle) - np.median(np.concatenate([lung.ravel() for lung in lungs])))
        if darker < MIN_MEDIASTINUM * float(pixels.std()):
            clauses.append("its middle is darker than its sides, as if its greys were inverted or it were no chest")
    return clauses


def refuse_other_values(
    values: NDArray[np.float32], expected: Sequence[int], path: str | Path, way_out: str = ""
) -> None:
    """Check that a mask has no other values than those expected; 0 and 255 are taken for 0 and 1, as in pictures.

    Args:
        values: of the mask.
        expected: 0 and others.
        path: of the mask.
        way_out: what to do about it, a clause.

    Raises:
        BadFileError: naming some of the others.
    """
    others = np.unique(values[~np.isin(values, expected)])
    if len(others) == 0 or (tuple(expected) == (0, 1) and others.tolist() == [255] and not np.any(values == 1)):
        return
    raise BadFileError(
        f"{path}: expected a mask of the values {', '.join(map(str, expected))}, "
        f"got also {', '.join(f'{value:g}' for value in others[:5])}{way_out and '; '}{way_out}."
    )


def check_same_grid(
    shape: Sequence[int], affine: NDArray[np.float64], mask_path: str | Path, image_path: str | Path
) -> NDArray[np.float32]:
    """Return a mask, or another sequence, that lies on the grid of its image.

    Raises:
        BadFileError: if it cannot be read, has another shape, or its corners are off by a quarter of a voxel or more.
    """
    mask, mask_affine = read_nifti(mask_path)
    refuse_other_grid(mask.shape, mask_affine, shape, affine, mask_path, image_path)
    return mask


def refuse_other_grid(
    shape: Sequence[int],
    affine: NDArray[np.float64],
    expected_shape: Sequence[int],
    expected_affine: NDArray[np.float64],
    what: str | Path,
    of: str | Path,
) -> None:
    """Check that a grid is that of an image.

    Raises:
        BadFileError: if it has another shape, or its corners are off by a quarter of a voxel or more.
    """
    if tuple(shape) != tuple(expected_shape):
        raise BadFileError(f"{what}: expected the grid of {of}, shape {tuple(expected_shape)}, got {tuple(shape)}.")
    apart = np.linalg.norm(_corners(shape, affine) - _corners(shape, expected_affine), axis=1).max()
    voxel = np.linalg.norm(expected_affine[:3, :3], axis=0).min()
    if apart > voxel / 4:  # less is the rounding of headers
        raise BadFileError(f"{what}: expected the affine of {of}, got one that moves a corner by {apart:.3g} mm.")


def _refuse_constant(voxels: NDArray[np.float32], path: str | Path) -> None:
    if voxels.min() == voxels.max():
        raise BadFileError(f"{path}: expected an image, got the same value {voxels.min():g} everywhere.")


def _noise(voxels: NDArray[np.float32]) -> list[str]:
    """Return a clause if neighbouring voxels have nothing to do with one another, along no axis."""
    correlations = []
    low, high = np.percentile(_spread(voxels), (0.5, 99.5))  # as single voxels may be anything
    for axis in range(voxels.ndim):
        lines = _spread(np.moveaxis(voxels, axis, 0), whole_lines=True)
        clipped = np.clip(lines, low, high)
        before, after = clipped[:-1].ravel(), clipped[1:].ravel()
        if len(lines) > 1 and np.ptp(before) and np.ptp(after):
            correlations.append(float(np.corrcoef(before, after)[0, 1]))
    if correlations and max(correlations) < MIN_COHERENCE:
        return ["it looks like noise, as neighbouring voxels have nothing to do with one another"]
    return []


def _spread(voxels: NDArray[np.float32], whole_lines: bool = False) -> NDArray[np.float32]:
    """Return ``ENOUGH`` voxels from all over an image that has more, perhaps without leaving any out along an axis."""
    thinned = voxels.ndim - whole_lines
    step = max(1, round((voxels.size / ENOUGH) ** (1 / thinned)))
    return voxels[(slice(None),) * whole_lines + (slice(None, None, step),) * thinned]


def _corners(shape: Sequence[int], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the corners of a grid are in the world, mm, shape (8, 3)."""
    sizes = (*shape, 1)[:3]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in sizes], indexing="ij")).reshape(3, -1)
    return (affine[:3, :3] @ corners + affine[:3, 3:]).T
