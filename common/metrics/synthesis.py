"""What tumours look like against the organ around them, made or real."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter, label

from .lesions import equivalent_diameter
from .statistics import Row

SHELL_MM = (2.0, 10.0)
"""How far from a tumour that lies with which it is compared."""


def examine_tumours(
    image: NDArray[np.floating],
    tumours: NDArray[np.bool_],
    organ: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    before: NDArray[np.floating] | None = None,
) -> list[Row]:
    """Return a row for each tumour, a component that touches by face, edge or corner.

    ``contrast_hu`` is the mean of the tumour less that of the organ around it, ``noise_ratio`` the standard deviation
    within over that around of what a Gaussian filter of one voxel takes away, ``inside`` the share in the organ, and
    ``change_hu`` the mean absolute change, if it is known how the image was before.

    Args:
        image: HU, shape (X, Y, Z).
        tumours: mask of the same shape.
        organ: the same.
        spacing_mm: of the voxels.
        before: the image without tumours.
    """
    pieces, count = label(tumours, np.ones((3, 3, 3), dtype=bool))
    fine = image - gaussian_filter(image, 1.0)
    rows = []
    for number in range(1, count + 1):
        tumour = pieces == number
        box = tuple(
            slice(max(0, int(axis.min()) - reach), int(axis.max()) + 1 + reach)
            for axis, reach in zip(np.nonzero(tumour), (round(SHELL_MM[1] / mm) for mm in spacing_mm), strict=True)
        )
        own, away = tumour[box], distance_transform_edt(~tumour[box], spacing_mm)
        around = organ[box] & ~tumours[box] & (away >= SHELL_MM[0]) & (away <= SHELL_MM[1])
        values, high = image[box], fine[box]
        core = binary_erosion(own)
        core = core if core.sum() >= 8 else own
        volume = own.sum() * float(np.prod(spacing_mm))
        rows.append(
            {
                "tumour": number,
                "diameter_mm": float(equivalent_diameter(np.array([volume]), 3)[0]),
                "volume_ml": volume / 1000,
                "inside": float(organ[box][own].mean()),
                "contrast_hu": float(values[own].mean() - values[around].mean()) if around.any() else np.nan,
                "noise_ratio": float(high[core].std() / high[around].std()) if around.sum() > 1 else np.nan,
                **({} if before is None else {"change_hu": float(np.abs(values - before[box])[own].mean())}),
            }
        )
    return rows
