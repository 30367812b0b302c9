"""What is said of a case when it is done: one line, and what is doubtful about an organ that a network has found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from ..metrics.lesions import equivalent_diameter
from .output import as_seen, spacing_mm


@dataclass(frozen=True)
class Searched:
    """What cases are searched for, and where.

    Attributes:
        organ: its name.
        finding: what the mask shows, in the singular.
        plausible_ml: volumes of the whole organ, from the least to the most; None doubts none.
        plausible_hu: means of its HU, likewise.
    """

    organ: str = "organ"
    finding: str = "lesion"
    plausible_ml: Sequence[float] | None = None
    plausible_hu: Sequence[float] | None = None

    def line(self, output: Mapping[str, Any], organ_from: str, seconds: float) -> str:
        """Return how large organ and findings of a case are.

        Args:
            output: of an evaluator, with ``mask`` and ``organ``, or with the ``probability`` of classes, shape (K,).
            organ_from: where the mask of the organ came from.
            seconds: that the case took.
        """
        clauses, arrays = [], as_seen(output, ("mask", "organ"))
        if len(arrays) == 2:
            mask, organ, size_mm = arrays["mask"] > 0, arrays["organ"] > 0, spacing_mm(output["mask"])
            voxels = _pieces(mask)
            count = len(voxels)
            found = f"{count or 'no'} {self.finding}{'' if count == 1 else 's'}"
            if mask.ndim == 2:
                clauses = [f"{self.organ} ({organ_from})", f"{found} on {mask[organ].mean():.1%} of it"]
            else:
                millilitres = float(np.prod(size_mm)) / 1000
                clauses = [f"{self.organ} {organ.sum() * millilitres:.0f} ml ({organ_from})", found]
                if count:
                    sizes = voxels * millilitres
                    largest = equivalent_diameter(1000 * sizes, 3).max()
                    clauses += [f"{sizes.sum():.1f} ml", f"largest {largest:.0f} mm"]
        elif (probability := output.get("probability")) is not None and probability.ndim == 1:
            clauses = [f"class {k} with probability {p:.2f}" for k, p in enumerate(probability.tolist())]
        return ", ".join([*clauses, f"{seconds:.0f} s" if seconds >= 1 else "under a second"])

    def doubt(self, output: Mapping[str, Any]) -> str:
        """Return what speaks against an organ that a network has found in a CT, a clause; nothing where all fits.

        Args:
            output: of an evaluator, with ``image`` in HU and ``organ``.
        """
        if self.plausible_ml is None or self.plausible_hu is None:
            return ""
        arrays = as_seen(output, ("image", "organ"))
        organ = arrays["organ"] > 0
        volume = float(organ.sum() * np.prod(spacing_mm(output["organ"])) / 1000)
        mean, spread = float(arrays["image"][organ].mean()), float(arrays["image"][organ].std())
        pieces = len(_pieces(organ))
        (least, most), (darkest, brightest) = self.plausible_ml, self.plausible_hu
        if least <= volume <= most and darkest <= mean <= brightest and pieces == 1:
            return ""
        return (
            f"the {self.organ} that the network found has {volume:.0f} ml in {pieces} piece{'s' * (pieces != 1)}, with "
            f"{mean:.0f} HU on average and a spread of {spread:.0f}; expected {least:g} to {most:g} ml in one, with "
            f"{darkest:g} to {brightest:g} HU: look at it before you trust what was found in it"
        )


def _pieces(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of voxels of what hangs together in a mask, corners included."""
    if not (boxes := find_objects(mask.view(np.int8))):
        return np.zeros(0, dtype=np.int64)
    within = mask[boxes[0]]
    numbers, _ = label(within, structure=np.ones((3,) * mask.ndim))  # of all around they would take memory
    return np.bincount(numbers[within])[1:]
