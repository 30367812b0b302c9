"""What tumours look like against the organ around them, made or real."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects, gaussian_filter, label

from .lesions import equivalent_diameter
from .statistics import Row

SHELL_MM = (2.0, 10.0)
"""How far from a tumour that lies with which it is compared."""


def pieces_of(
    tumours: NDArray[np.bool_], margin: Sequence[int] = (0, 0, 0)
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.bool_]]]:
    """Yield for each tumour, a component that touches by face, edge or corner, a box around it and where it is therein.

    Args:
        tumours: mask, shape (X, Y, Z).
        margin: voxels around it along each axis, as far as there are any.
    """
    pieces, _ = label(tumours, np.ones((3, 3, 3), dtype=bool))
    for number, tight in enumerate(find_objects(pieces), 1):
        box = tuple(slice(max(0, axis.start - n), axis.stop + n) for axis, n in zip(tight, margin, strict=True))
        yield box, pieces[box] == number


def examine_tumours(
    image: NDArray[np.floating],
    tumours: NDArray[np.bool_],
    organ: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    before: NDArray[np.floating] | None = None,
) -> list[Row]:
    """Return a row for each tumour, see ``pieces_of``.

    ``mean_hu`` is the mean of the tumour and ``contrast_hu`` by how much it is above that of the organ around it,
    ``noise_ratio`` the standard deviation within over that around of what a Gaussian filter of one voxel takes away,
    ``inside`` the share in the organ, and ``change_hu`` the mean absolute change, if it is known how the image was
    before.

    Args:
        image: HU, shape (X, Y, Z).
        tumours: mask of the same shape.
        organ: the same.
        spacing_mm: of the voxels.
        before: the image without tumours.
    """
    fine = image - gaussian_filter(image, 1.0)
    rows = []
    margin = [round(SHELL_MM[1] / mm) for mm in spacing_mm]
    for number, (box, own) in enumerate(pieces_of(tumours, margin), 1):
        away = distance_transform_edt(~own, spacing_mm)
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
                "mean_hu": float(values[own].mean()),
                "contrast_hu": float(values[own].mean() - values[around].mean()) if around.any() else np.nan,
                "noise_ratio": float(high[core].std() / high[around].std()) if around.sum() > 1 else np.nan,
                **({} if before is None else {"change_hu": float(np.abs(values - before[box])[own].mean())}),
            }
        )
    return rows
