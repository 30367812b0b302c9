"""ComBat: vectors of several sites brought to one mean and spread, with what belongs to classes left in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS = 500
TOLERANCE = 1e-6


@dataclass(frozen=True)
class ComBat:
    """What was learned of sites; ``combat`` learns it.

    Source: Johnson et al. 2007, "Adjusting batch effects in microarray expression data using empirical Bayes methods".

    Attributes:
        mean: of all vectors, shape (length,).
        spread: standard deviation within sites and classes, shape (length,).
        shift: of each site, in units of the spread, shape (length,).
        scale: variance of each site, in units of that of all, shape (length,).
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    shift: dict[str, NDArray[np.float64]]
    scale: dict[str, NDArray[np.float64]]

    def adjust(self, vectors: NDArray, sites: Sequence[str]) -> NDArray[np.float64]:
        """Return vectors without what their sites add; those of a site that was not learned stay as they are.

        Args:
            vectors: shape (cases, length).
            sites: of each case.
        """
        adjusted = np.array(vectors, dtype=np.float64)
        place = np.array(sites)
        for site, shift in self.shift.items():
            own = place == site
            standard = (adjusted[own] - self.mean) / self.spread
            adjusted[own] = (standard - shift) / np.sqrt(self.scale[site]) * self.spread + self.mean
        return adjusted


def combat(vectors: NDArray, sites: Sequence[str], labels: Sequence[int]) -> ComBat:
    """Learn what sites add to vectors beside their classes.

    Classes are a covariate here alone: when vectors are adjusted nobody has to know them.

    Args:
        vectors: shape (cases, length).
        sites: of each case; each has two cases at least.
        labels: class of each case; one site at least has all of them, or sites and classes cannot be told apart.

    Raises:
        ValueError: if there are fewer than two sites, a site has one case, or sites and classes cannot be told apart.
    """
    data, place, label = np.asarray(vectors, dtype=np.float64), np.array(sites), np.array(labels)
    names, counts = np.unique(place, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        found = ", ".join(f"{count} of {name}" for name, count in zip(names, counts, strict=True))
        raise ValueError(f"expected two sites or more, of two cases or more, got {found}.")
    of_site = (place[:, None] == names).astype(float)
    of_class = (label[:, None] == np.unique(label)[1:]).astype(float)
    design = np.hstack([of_site, of_class])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError("sites and classes cannot be told apart: expected a site with cases of all classes, got none.")
    effects = np.linalg.lstsq(design, data, rcond=None)[0]
    mean = counts / counts.sum() @ effects[: len(names)]
    spread = np.sqrt(np.mean((data - design @ effects) ** 2, axis=0)).clip(1e-12)
    standard = (data - mean - of_class @ effects[len(names) :]) / spread

    own = {str(name): standard[place == name] for name in names}
    shifts = np.stack([values.mean(0) for values in own.values()])
    scales = np.stack([values.var(0, ddof=1) for values in own.values()])
    shrunk = [_shrunk(*args) for args in zip(own.values(), shifts, scales, strict=True)]
    shift, scale = ({name: each[i] for name, each in zip(own, shrunk, strict=True)} for i in (0, 1))
    return ComBat(mean, spread, shift, scale)


def _shrunk(
    values: NDArray[np.float64], shift: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shift and scale of a site as its dimensions together make them likely, equations 3.1 of Johnson et al.

    Args:
        values: of the site, shape (cases, length).
        shift: their mean.
        scale: their variance.
    """
    count, middle, between = len(values), shift.mean(), shift.var(ddof=1)
    m, s = scale.mean(), scale.var(ddof=1)
    a, b = (2 * s + m**2) / s, (m * s + m**3) / s
    new_shift, new_scale = shift, scale
    for _ in range(MAX_ITERATIONS):
        old = new_shift, new_scale
        new_shift = (count * between * shift + new_scale * middle) / (count * between + new_scale)
        squares = ((values - new_shift) ** 2).sum(0)
        new_scale = (0.5 * squares + b) / (count / 2 + a - 1)
        moved = max(np.abs(new / was - 1).max() for new, was in zip((new_shift, new_scale), old, strict=True))
        if moved < TOLERANCE:
            break
    return new_shift, new_scale
