"""Two ellipses on waves, of which one may have shrunk: the synthetic images of DeScarGAN. No patient."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve, map_coordinates
from skimage.filters import threshold_otsu

SIZE = 256
"""Pixels along each axis that images are drawn with."""

SHRINKAGE = 0.1
"""Of the farthest pixel's shift, half a side of the image."""

SIGMA = 0.19
"""Of the Gaussian whose slope a shift follows, half a side of the image."""

MIN_DISTANCE = 120
"""Between the ellipses' centres, pixels, in the authors' program."""

TRIES = 2000
"""Draws before a seed is given up; one in ten is kept."""


@dataclass(frozen=True)
class Ellipses:
    """What is drawn.

    Attributes:
        image: float32 in about [-1, 1], shape (size, size).
        healthy: the same without the shrinkage, in [-1, 1].
    """

    image: NDArray[np.float32]
    healthy: NDArray[np.float32]

    @property
    def shrunk(self) -> NDArray[np.bool_]:
        """Where the image differs from the healthy one by more than Otsu's threshold of how much it does."""
        change = np.abs(self.healthy - self.image)
        return change > threshold_otsu(change) if change.any() else np.zeros(change.shape, dtype=bool)


def ellipses(seed: int, diseased: bool, size: int = SIZE, mode: str = "paper") -> Ellipses:
    """Draw two rings on waves around two centres; in diseased images the smaller ring has shrunk.

    Source: Wolleb et al. 2020, "DeScarGAN", supplement. Paper and program differ, and the paper leaves out by how much
    a ring shrinks, which is as in the program. Both images are scaled by what takes the healthy one to [-1, 1].

    Args:
        seed: of the image; with the same, a diseased image is the healthy one, shrunk.
        diseased: whether the smaller ring has shrunk.
        size: pixels along each axis, of which each is the mean of those that are drawn; a divisor of 256.
        mode: ``paper`` lets the first waves have any centre; in ``code`` it is that of the smaller ellipse with its
            coordinates swapped, and ellipses whose centres are near one another are drawn anew.

    Raises:
        ValueError: if ``size`` or ``mode`` is none.
        RuntimeError: if the ellipses find no place.
    """
    if mode not in ("paper", "code"):
        raise ValueError(f"mode must be paper or code, got {mode!r}.")
    if size < 1 or SIZE % size:
        raise ValueError(f"size must divide {SIZE}, got {size}.")
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        centres, angles = rng.integers(50, 200, (2, 2)), rng.uniform(0, 2 * np.pi, 2)
        axes = rng.normal([[40, 20], [70, 35]], 1)
        filled = [_filled(*ellipse) for ellipse in zip(centres, axes, angles, strict=True)]
        whole = not any(x[[0, -1]].any() or x[:, [0, -1]].any() for x in filled)
        far = mode == "paper" or np.linalg.norm(centres[0] - centres[1]) > MIN_DISTANCE
        if whole and far and not (filled[0] & filled[1]).any():
            break
    else:
        raise RuntimeError(f"the ellipses of seed {seed} find no place in {TRIES} tries.")
    thickness = np.maximum(np.round(rng.normal(5, 0.7, 2)), 1)
    first = rng.uniform(50, 200, 2) if mode == "paper" else centres[0][::-1]
    drawn = _waves(first, rng.uniform(0.2, 0.35)) * rng.uniform(0.2, 0.4)
    drawn += _waves(centres[1], rng.uniform(0.35, 0.5)) * rng.uniform(0.2, 0.4)
    for outer, *ellipse, width in zip(filled, centres, axes, angles, thickness, strict=True):
        drawn[outer & ~_filled(ellipse[0], ellipse[1] - width, ellipse[2])] = 1
    along = np.exp(-(np.arange(-1, 2) ** 2) / (2 * 2.0**2))
    kernel = np.outer(along, along)
    healthy = convolve(drawn, kernel / kernel.sum(), mode="constant")
    image = _shrunk(healthy, centres[0]) if diseased else healthy
    low, high = healthy.min(), healthy.max()
    scaled = (2 * (x - low) / (high - low) - 1 for x in (image, healthy))
    return Ellipses(*(_mean_of_blocks(x, SIZE // size).astype(np.float32) for x in scaled))


def _filled(centre: NDArray, axes: NDArray, angle: float) -> NDArray[np.bool_]:
    """Return the pixels of an ellipse."""
    across, down = np.arange(SIZE) - centre[1], np.arange(SIZE)[:, None] - centre[0]
    cos, sin = np.cos(angle), np.sin(angle)
    return ((down * cos + across * sin) / axes[0]) ** 2 + ((across * cos - down * sin) / axes[1]) ** 2 <= 1


def _waves(centre: NDArray, frequency: float) -> NDArray[np.float64]:
    """Return rings of waves."""
    return np.sin(frequency * np.round(np.hypot(np.arange(SIZE)[:, None] - centre[0], np.arange(SIZE) - centre[1])))


def _shrunk(image: NDArray[np.float64], centre: NDArray) -> NDArray[np.float64]:
    """Return an image drawn together around a centre: each pixel shows what was farther away."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij"))
    away = grid - (2 * centre / (SIZE - 1) - 1)[:, None, None]
    shift = away * np.exp(-(away**2).sum(0) / (2 * SIGMA**2))
    shift *= SHRINKAGE / np.abs(shift).max()
    return map_coordinates(image, (grid + shift + 1) * (SIZE - 1) / 2, order=1, mode="grid-constant")


def _mean_of_blocks(image: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    count = SIZE // side
    return image.reshape(count, side, count, side).mean((1, 3))
