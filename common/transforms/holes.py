"""Holes in an organ, and what a network is shown of an image that has some."""

from collections.abc import Iterator, Sequence
from math import pi

import torch
from torch import Tensor

ROUNDS = 9
"""Of discs, by which a plane is filled: three shifts along each axis."""


def shown_with_holes(image: Tensor, hole: Tensor, organ: Tensor, median: Tensor) -> Tensor:
    """Return the image with the organ's median in its holes, relative to the median, then the holes and the organ.

    Args:
        image: shape (B, 1, X, Y).
        hole: bool, of the same shape.
        organ: the same.
        median: of the organ, scaled as the image, broadcastable to it.

    Returns:
        Shape (B, 3, X, Y).
    """
    return torch.cat([torch.where(hole, 0.0, image - median), hole.to(image), organ.to(image)], dim=1)


def organ_medians(image: Tensor, organ: Tensor) -> Tensor:
    """Return the median of the organ in each image, 0 where there is none, shape (B, 1, 1, 1)."""
    inside = image.masked_fill(~organ, float("nan")).flatten(1)
    return inside.nanmedian(1).values.nan_to_num(0.0)[:, None, None, None]


def random_ellipses(
    organ: Tensor, max_holes: int, half_axes: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """Return ellipses with their middles in the organ, cut where it ends, of each image 1 to ``max_holes``.

    Args:
        organ: bool, shape (B, 1, X, Y).
        max_holes: how many there are at the most.
        half_axes: shortest and longest, pixels.
        generator: of the draws.

    Returns:
        Bool, of the organ's shape; empty where there is no organ.
    """
    holes = torch.zeros_like(organ)
    pixels = torch.stack(torch.meshgrid(*(torch.arange(size) for size in organ.shape[2:]), indexing="ij"), -1).float()
    for own, inside in zip(holes[:, 0], organ[:, 0].cpu(), strict=True):
        places = inside.nonzero()
        count = int(torch.randint(1, max_holes + 1, (), generator=generator)) if len(places) else 0
        for _ in range(count):
            middle = places[torch.randint(len(places), (), generator=generator)]
            drawn = torch.rand(3, generator=generator)
            axes, angle = half_axes[0] + (half_axes[1] - half_axes[0]) * drawn[:2], pi * drawn[2]
            turn = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
            away = ((pixels - middle) @ turn.T / axes).square().sum(-1)
            own |= (away <= 1).to(own.device)
    return holes & organ


def disc_rounds(size: Sequence[int], radius: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield nine rounds of discs and of the squares in their middles: all squares together are the whole plane.

    The middles of a round are three radii apart, so that each disc has a rim of as much as its radius around it.

    Args:
        size: of the plane, pixels along X and Y.
        radius: of the discs, and the side of the squares.

    Yields:
        Discs and squares, bool, shape (X, Y).
    """
    pitch = 3 * radius
    for shift_x in range(0, pitch, radius):
        for shift_y in range(0, pitch, radius):
            x, y = (
                (torch.arange(count) - shift + pitch // 2) % pitch - pitch // 2
                for count, shift in zip(size, (shift_x, shift_y), strict=True)
            )
            disc = x[:, None].square() + y.square() <= radius**2
            low, high = -(radius // 2), radius - radius // 2
            square = ((x >= low) & (x < high))[:, None] & (y >= low) & (y < high)
            yield disc, square
