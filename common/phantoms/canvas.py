"""A grid in mm, shapes as distances, and a painter that knows partial volume."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BSpline

Array = NDArray[np.floating[Any]]


class Canvas:
    """An image to paint on, and the coordinates in mm that shapes are drawn in.

    Shapes are arrays of distances in mm to a surface, negative inside: ``np.minimum`` is their union, ``np.maximum``
    their intersection, ``-`` the outside. ``soft`` turns a distance into the share of each voxel that lies inside.

    Attributes:
        image: what has been painted, shape (X, Y, Z).
        points: mm to the right, front and head, shape (3, X, Y, Z), ``middle`` in the centre; bent by ``warp``.
    """

    def __init__(
        self,
        shape: Sequence[int],
        spacing: Sequence[float],
        rng: np.random.Generator,
        background: float,
        middle: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        self.shape, self.spacing, self.rng = tuple(shape), tuple(spacing), rng
        self.axes = [(np.arange(n) - (n - 1) / 2) * s + m for n, s, m in zip(shape, spacing, middle, strict=True)]
        self._straight = np.stack(np.meshgrid(*self.axes, indexing="ij")).astype(np.float32)
        self.points = self._straight
        self.image = np.full(self.shape, background, dtype=np.float32)

    def field(self, wavelength_mm: float) -> Array:
        """Return a smooth random field of mean 0 and standard deviation 1: a cubic B-spline with random nodes."""
        extents = [n * s for n, s in zip(self.shape, self.spacing, strict=True)]
        values = self.rng.standard_normal([int(extent / wavelength_mm) + 6 for extent in extents])
        for axis, positions in enumerate(self.axes):
            where = (positions - positions[0]) / wavelength_mm + self.rng.uniform()
            knots = np.arange(-3, values.shape[axis] + 1)
            basis = BSpline.design_matrix(where, knots, 3).toarray()
            values = np.moveaxis(np.tensordot(basis, values, axes=(1, axis)), 0, axis)
        return (values / 0.479**1.5).astype(np.float32)  # 0.479: mean over positions of the squared basis' sum

    def warp(self, amplitude_mm: float, wavelength_mm: float) -> None:
        """Bend the space in which the next shapes are drawn."""
        self.points = self._straight + amplitude_mm * np.stack([self.field(wavelength_mm) for _ in range(3)])

    def soft(self, distance_mm: Array) -> Array:
        """Return 1 well inside a shape, 0 well outside, and the share of the voxel between."""
        return np.clip(0.5 - distance_mm / self.spacing[0], 0, 1)

    def ellipsoid(self, centre: ArrayLike, radii: ArrayLike) -> Array:
        """Return the distance to an ellipsoid, to first order."""
        p = self.points - np.asarray(centre, dtype=np.float32)[:, None, None, None]
        r = np.asarray(radii, dtype=np.float32)[:, None, None, None]
        q, slope = np.sqrt(((p / r) ** 2).sum(0)), np.sqrt(((p / r**2) ** 2).sum(0))
        return (q - 1) * np.maximum(q / (slope + 1e-6), r.min())  # at the very centre both are 0

    def cylinder(self, centre: Sequence[float], radii: Sequence[float], exponent: float = 2.0) -> Array:
        """Return the distance to an upright cylinder with an elliptic cross-section, boxier for larger exponents."""
        x, y = (np.abs(self.points[i] - centre[i]) / radii[i] for i in range(2))
        return ((x**exponent + y**exponent) ** (1 / exponent) - 1) * min(radii)

    def add_tube(self, share: Array, start: Array, end: Array, radius_start: float, radius_end: float) -> None:
        """Raise ``share``, the part of each voxel that is vessel, along a tapered tube."""
        reach = radius_start + 25.0  # the warp may move the tube by this much
        box = tuple(
            slice(*np.searchsorted(axis, (min(a, b) - reach, max(a, b) + reach)))
            for axis, a, b in zip(self.axes, start, end, strict=True)
        )
        line = (end - start).astype(np.float32)[:, None, None, None]
        offset = self.points[(slice(None), *box)] - start.astype(np.float32)[:, None, None, None]
        along = np.clip((offset * line).sum(0) / float((line**2).sum() + 1e-6), 0, 1)
        distance = np.sqrt(((offset - along * line) ** 2).sum(0)) - (radius_start + along * (radius_end - radius_start))
        share[box] = np.maximum(share[box], self.soft(distance))

    def paint(self, share: Array, value: Array | float) -> None:
        """Lay material over what is there, as much of each voxel as ``share`` says."""
        self.image += share * (value - self.image)
