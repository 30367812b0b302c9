"""Synthetic brains of several sites, healthy or with lesions of the white matter; most sites have one kind alone.

Not patients, and not for training a product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .canvas import Array, Canvas


@dataclass(frozen=True)
class Site:
    """What a hospital's scanner, protocol and patients add to the anatomy.

    Attributes:
        gamma: power that intensities in [0, 1] are raised to.
        blur: standard deviation of the point spread, voxels.
        noise: standard deviation, relative to white matter.
        bias: of the coil's uneven gain.
        grey: signal of grey matter, white matter has 1.
        age: of its patients, from 0 to 1, by which ventricles are wide.
        training: healthy and diseased cases for training.
        validation: the same for validation.
        testing: the same for testing.
    """

    gamma: float
    blur: float
    noise: float
    bias: float
    grey: float
    age: float
    training: tuple[int, int] = (0, 0)
    validation: tuple[int, int] = (0, 0)
    testing: tuple[int, int] = (0, 0)


SITES = {
    "S1": Site(1.00, 0.50, 0.030, 0.15, 0.70, 0.5, (16, 55), (0, 9), (15, 15)),
    "S2": Site(1.25, 0.35, 0.045, 0.25, 0.66, 0.5, (0, 368), (0, 20), (0, 30)),
    "ADNI": Site(0.85, 0.80, 0.020, 0.10, 0.74, 0.8, (113, 0), (6, 0), (9, 0)),
    "HCP": Site(0.75, 0.60, 0.015, 0.08, 0.76, 0.2, (89, 0), (4, 0), (7, 0)),
    "HCPA": Site(0.80, 0.65, 0.018, 0.12, 0.75, 0.7, (140, 0), (7, 0), (10, 0)),
    "S3": Site(0.90, 0.55, 0.030, 0.20, 0.72, 0.5, (40, 0), (2, 0), (3, 0)),
    "S4": Site(0.92, 0.55, 0.025, 0.20, 0.72, 0.4, (22, 0), (1, 0), (1, 0)),
    "S5": Site(0.95, 0.50, 0.028, 0.15, 0.71, 0.5, (0, 0), (9, 0), (0, 0)),
}
"""Those of Wolleb et al. 2022, "Learn to Ignore", with its numbers of cases; what their scanners do is made up.

S1 is the target. S5, in validation alone, stands in for its healthy cases.
"""


@dataclass(frozen=True)
class MultisiteBrain:
    """One case; axes point to the patient's right, front and head.

    Attributes:
        image: in arbitrary units, outside the brain exactly 0, float32, shape (X, Y, Z).
        lesions: mask of the same shape, uint8.
        affine: voxel to world in mm, RAS.
    """

    image: NDArray[np.float32]
    lesions: NDArray[np.uint8]
    affine: NDArray[np.float64]


def multisite_brain(
    seed: int,
    site: str,
    diseased: bool,
    shape: Sequence[int] = (40, 40, 40),
    spacing: Sequence[float] = (4.0, 4.0, 4.0),
) -> MultisiteBrain:
    """Return the brain of a patient who does not exist; the same arguments give the same volume.

    Disease is 4 to 10 dark spots of 1.1 to 2 voxels beside the ventricles, whose width is that of the site's patients.
    They are the "mid" of three difficulties: a network can find them, and finds the site more easily.

    Args:
        seed: of the patient, the noise and the lesions.
        site: name in ``SITES``.
        diseased: whether there are lesions.
        shape: voxels to the right, front and head.
        spacing: mm a voxel along these.

    Raises:
        ValueError: if there is no such site.
    """
    if site not in SITES:
        raise ValueError(f"site must be one of {', '.join(SITES)}, got {site!r}.")
    place, rng = SITES[site], np.random.default_rng([seed, sorted(SITES).index(site)])
    canvas = Canvas(shape, spacing, rng, background=0.0)
    canvas.warp(2.0, 60)
    brain = canvas.ellipsoid((0, 0, 0), rng.normal((62, 74, 60), (2.5, 3, 2.5)))
    canvas.paint(canvas.soft(brain), place.grey)
    canvas.paint(canvas.soft(brain + rng.normal(9, 1)), 1.0)
    side, width = rng.normal(12, 1), 5 + 7 * np.clip(place.age + rng.normal(0, 0.12), 0, 1)
    ventricles = [canvas.ellipsoid((sign * side, -2, 6), (width, 26, 10)) for sign in (-1, 1)]
    for sign in (-1, 1):
        canvas.paint(canvas.soft(canvas.ellipsoid((sign * 24, 6, 0), (8, 14, 9))), place.grey + 0.08)
    inner = np.minimum(*ventricles)
    canvas.paint(canvas.soft(inner), 0.25)
    healthy = canvas.image

    # Lesions come last, and are drawn in any case: what is drawn for them changes nothing of the patient.
    share = _spots(canvas, inner, brain, rng)
    image = healthy - (share * healthy if diseased else 0)
    image = gaussian_filter(image, place.blur) * np.exp(place.bias * canvas.field(70))
    image = np.hypot(image + place.noise * rng.standard_normal(shape), place.noise * rng.standard_normal(shape))
    head = brain < 0
    low, high = np.percentile(image[head], (2, 98))
    image = np.clip((image - low) / (high - low), 0, 1) ** place.gamma
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in canvas.axes]
    seen = (1 + 999 * image) * head  # above 0 in all of the brain
    lesions = (share > 0.2) & head & diseased
    return MultisiteBrain(seen.astype(np.float32), lesions.astype(np.uint8), affine)


def _spots(canvas: Canvas, ventricles: Array, brain: Array, rng: np.random.Generator) -> Array:
    """Return by which share of its signal each voxel is darker."""
    voxel, darker = canvas.spacing[0], np.zeros(canvas.shape, dtype=np.float32)
    places = np.argwhere((ventricles > 0) & (ventricles < 4 * voxel) & (brain < -12))
    for _ in range(rng.integers(4, 11)):
        middle, radius, contrast = places[rng.integers(len(places))], rng.uniform(1.1, 2.0), rng.uniform(0.4, 0.65)
        away = sum((axis - m) ** 2 for axis, m in zip(np.ogrid[tuple(map(slice, canvas.shape))], middle, strict=True))
        darker = np.maximum(darker, contrast * np.exp(-away / (2 * (radius / 1.5) ** 2)))
    return darker


Cells = Mapping[str, Mapping[str, Sequence[int]]]
"""By split and site, how many healthy and how many diseased cases there are."""


def cases_of(cells: Cells | None = None, cohort: int = 0) -> dict[str, list[tuple[str, bool, int]]]:
    """Return the cases of each split: site, whether diseased, and a seed that no other case of the site has.

    Args:
        cells: how many there are; None takes those of ``SITES``, the paper's.
        cohort: of the patients; cohorts share none.

    Raises:
        ValueError: if there is no such split or site.
    """
    splits = ("training", "validation", "testing")
    wanted = (
        {split: {site: getattr(SITES[site], split) for site in SITES} for split in splits} if cells is None else cells
    )
    others = [*(set(wanted) - set(splits)), *({site for each in wanted.values() for site in each} - set(SITES))]
    if others:
        raise ValueError(
            f"cells must name splits ({', '.join(splits)}) and sites ({', '.join(SITES)}), got {others[0]!r}."
        )
    return {
        split: [
            (site, bool(diseased), 1_000_000 * cohort + 100_000 * (number + 1) + 10_000 * diseased + i)
            for site, counts in wanted.get(split, {}).items()
            for diseased, count in enumerate(counts)
            for i in range(count)
        ]
        for number, split in enumerate(splits)
    }
