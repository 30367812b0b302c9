"""Pictures of single tumours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .figures import PLANES, Panel, panel_grid

SIZE_MM, PIXELS = 64.0, 48
"""Of each plane, around the middle of a tumour."""

AIR = -1000.0


@dataclass(frozen=True)
class TumourView:
    """A tumour in three planes through its middle, with what is around it.

    Attributes:
        case: whose it is.
        image: HU, shape (3, PIXELS, PIXELS), in the order of ``PLANES``.
        outline: where the tumour is, of the same shape.
        before: the image without it, where that is known.
    """

    case: str
    image: NDArray[np.float32]
    outline: NDArray[np.bool_]
    before: NDArray[np.float32] | None = None


def view_of(
    case: str,
    image: NDArray[Any],
    tumour: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    before: NDArray[Any] | None = None,
) -> TumourView:
    """Return the view of a tumour; what lies beyond the border of the image is black.

    Args:
        case: whose it is.
        image: HU, shape (X, Y, Z), axes to the patient's right, front and head.
        tumour: one, of the same shape, not empty.
        spacing_mm: of the voxels.
        before: the image without it.
    """
    inside = np.argwhere(tumour)
    middle = inside[np.square((inside - inside.mean(0)) * spacing_mm).sum(1).argmin()]
    steps = (np.arange(PIXELS) - (PIXELS - 1) / 2) * SIZE_MM / PIXELS
    places = [np.rint(m + steps / mm).astype(int) for m, mm in zip(middle, spacing_mm, strict=True)]
    known = [(place >= 0) & (place < n) for place, n in zip(places, image.shape, strict=True)]

    def planes(volume: NDArray[Any], beyond: float) -> NDArray[Any]:
        shown = []
        for across in (2, 1, 0):
            axes = [axis for axis in range(3) if axis != across]
            plane = np.full((PIXELS, PIXELS), beyond, volume.dtype)
            seen = np.ix_(*(known[axis] for axis in axes))
            index: list[Any] = [places[axis][known[axis]] for axis in range(3)]
            index[across] = middle[across : across + 1]
            plane[seen] = volume[np.ix_(*index)].squeeze(across)
            shown.append(plane)
        return np.stack(shown)

    without = None if before is None else planes(before.astype(np.float32), AIR)
    return TumourView(case, planes(image.astype(np.float32), AIR), planes(tumour, False), without)


def views_figure(views: Sequence[TumourView], titles: Sequence[str] = (), outlines: bool = True) -> Figure:
    """Return a row of panels for each view: the axial plane as it was, if that is known, and three planes.

    Args:
        views: of tumours.
        titles: of the rows, their cases by default.
        outlines: draw where tumours are.
    """
    rows = []
    for view, title in zip(views, titles or [view.case for view in views], strict=True):
        marks = [{"mask": outline} if outlines else {} for outline in view.outline]
        row = [] if view.before is None else [Panel("before", view.before[0], sides=PLANES["axial"])]
        for (name, sides), plane, mark in zip(PLANES.items(), view.image, marks, strict=True):
            row.append(Panel(name, plane, outlines=mark, sides=sides))
        row[0] = replace(row[0], title=f"{title}\n{row[0].title}" if title else row[0].title)
        rows.append([replace(panel, bar="HU", pixel_mm=SIZE_MM / PIXELS) for panel in row])
    return panel_grid(rows, words={"mask": "the tumour"})
