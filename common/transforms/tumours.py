"""Tumours that nobody has: their shapes, a place for them in an organ, and how they are blended into an image."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandCropByPosNegLabeld, Randomizable, Transform
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    find_objects,
    gaussian_filter,
    label,
    minimum_filter1d,
)

Mask = NDArray[np.bool_]

TRIES = 60
"""For a place and a shape of each tumour, before a tumour is refused."""

LEAST_VOXELS = 4
"""Of a tumour that is left where the organ, the image or another tumour cuts it."""

TOUCHING = np.ones((3, 3, 3), dtype=bool)


class NoPlaceError(ValueError):
    """There is no organ, or no room in it for the tumours that are wanted."""


class Size(NamedTuple):
    """What tumours of a size are like.

    Attributes:
        radii_mm: range of each half axis.
        warp_mm: range of the standard deviation of the nodes that bend it.
        most: tumours that an organ has at the most, unless more are asked for.
    """

    radii_mm: tuple[float, float]
    warp_mm: tuple[float, float]
    most: int


SIZES = {
    "tiny": Size((3, 5), (0.5, 1), 3),
    "small": Size((6, 10), (1, 2), 3),
    "medium": Size((12, 20), (3, 6), 1),
    "large": Size((24, 64), (5, 10), 1),
}
"""By name; the first two are early tumours, of 20 mm at the most."""

EROSION_MM = {"liver": 2.0, "pancreas": 0.0, "kidney": 0.0}
"""How deep in an organ the middles of its tumours lie."""


class TumourShapes(Randomizable):
    """Draw masks of tumours in an organ: bent ellipsoids, apart from one another, cut where the organ ends.

    Each tumour is one piece. Their middles lie in the middle slices of the organ, unless there is no place. Nothing is
    tried for ever: an organ that has no place for a tumour is refused.

    Source: Chen et al. 2024, "Towards Generalizable Tumor Synthesis", section 3.3, whose authors' program has the
    numbers.

    Attributes:
        drawn: name of the size that was drawn last.

    Args:
        size: a name in ``SIZES``, or how often each of them is drawn.
        num_tumours: None draws between 1 and as many as the size has at the most.
        organ: by which the depth is chosen, a name in ``EROSION_MM``.
        exophytic: probability that a medium or large tumour may grow beyond the organ, 0.5 in kidneys in the paper's
            program; all others stay inside.

    Raises:
        ValueError: for an unknown size or organ, or no tumours.

    Example:
        >>> shapes = TumourShapes("small", num_tumours=2).set_random_state(0)
        >>> organ = np.ones((64, 64, 32), dtype=bool)
        >>> int(shapes(organ, (2.0, 2.0, 2.0)).max())
        2
    """

    def __init__(
        self,
        size: str | Mapping[str, float] = "small",
        num_tumours: int | None = None,
        organ: str = "liver",
        exophytic: float = 0.0,
    ) -> None:
        names = [size] if isinstance(size, str) else list(size)
        if not set(names) <= SIZES.keys():
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
        if organ not in EROSION_MM:
            raise ValueError(f"organ must be one of {', '.join(EROSION_MM)}, got {organ!r}.")
        if num_tumours is not None and num_tumours < 1:
            raise ValueError(f"num_tumours must be >= 1, or null for a number at random, got {num_tumours}.")
        self.names = names
        self.shares = [1.0] if isinstance(size, str) else [size[name] for name in names]
        self.num_tumours, self.organ, self.exophytic = num_tumours, organ, exophytic
        self.drawn = names[0]

    def __call__(self, organ: Mask, spacing_mm: Sequence[float]) -> NDArray[np.uint8]:
        """Return 1, 2, ... in the voxels of each tumour, 0 elsewhere.

        Args:
            organ: shape (X, Y, Z), slices along the last axis.
            spacing_mm: of its voxels.

        Raises:
            NoPlaceError: if there is no organ, or no place for a tumour in it.
        """
        if not organ.any():
            raise NoPlaceError("there is no organ to put a tumour into: its mask is empty.")
        name = str(self.R.choice(self.names, p=np.array(self.shares) / sum(self.shares)))
        self.drawn, size = name, SIZES[name]
        count = self.num_tumours or self.R.randint(1, size.most + 1)
        beyond = name in ("medium", "large") and self.R.uniform() < self.exophytic
        spacing = np.asarray(spacing_mm, dtype=float)
        # What the organ or another tumour leaves of one is no sliver: a ball of half the smallest radius is.
        least = max(LEAST_VOXELS, np.pi / 6 * size.radii_mm[0] ** 3 / spacing.prod())
        tumours = np.zeros(organ.shape, dtype=np.uint8)
        places = _Places(organ, EROSION_MM[self.organ], spacing)
        for number in range(1, count + 1):
            for attempt in range(TRIES):
                shape = bent_ellipsoid(self.R, size, spacing)
                where, piece = _fitted(shape, places.draw(self.R, attempt / TRIES), None if beyond else organ, tumours)
                if piece.sum() >= least:
                    tumours[where][piece] = number
                    break
            else:
                raise NoPlaceError(
                    f"there is no place for tumour {number} of {count} ({name}) in the {self.organ}, "
                    f"{organ.sum() * spacing.prod() / 1000:.1f} ml: take fewer or smaller ones."
                )
        return tumours


class _Places:
    """Where the middle of a tumour may lie in an organ: deep inside, where there is such a place."""

    def __init__(self, organ: Mask, depth_mm: float, spacing: NDArray[np.float64]) -> None:
        (box,) = find_objects(organ.astype(np.uint8))
        self.corner, self.inside = np.array([axis.start for axis in box]), organ[box]
        if depth_mm:
            deep = self.inside.astype(np.uint8)
            for axis, mm in enumerate(spacing[:2]):
                deep = minimum_filter1d(deep, 2 * max(1, round(depth_mm / mm)) + 1, axis, mode="constant")
            self.inside = deep > 0 if deep.any() else self.inside
        self.slices = np.flatnonzero(self.inside.any((0, 1)))

    def draw(self, random: np.random.RandomState, share: float) -> NDArray[np.intp]:
        """Return a voxel of a slice in the middle 40 % of those that there are, of more of them for a larger share."""
        edge = 0.3 * (1 - share)
        first, last = int(edge * len(self.slices)), max(1, int(np.ceil((1 - edge) * len(self.slices))))
        chosen = self.slices[random.randint(min(first, last - 1), last)]
        found = np.argwhere(self.inside[..., chosen])
        return self.corner + np.array([*found[random.randint(len(found))], chosen])


def bent_ellipsoid(random: np.random.RandomState, size: Size, spacing: NDArray[np.float64]) -> Mask:
    """Return the voxels of an ellipsoid in space that 3 x 3 x 3 nodes have bent, its middle in that of the array.

    The authors' program bends a picture in three planes, one after another, by which it moves along each axis twice.
    """
    radii = random.uniform(*size.radii_mm, 3)
    bend = random.uniform(*size.warp_mm)
    half = np.ceil((radii + 2 * bend) / spacing).astype(int)
    nodes = random.normal(0, np.sqrt(2) * bend, (3, 3, 3, 3))
    # parabolas through the nodes of each axis
    along = [np.linspace(-1, 1, 2 * n + 1) for n in half]
    x, y, z = (np.stack([t * (t - 1) / 2, 1 - t**2, t * (t + 1) / 2]) for t in along)
    moved = np.einsum("nabc,ax,by,cz->nxyz", nodes, x, y, z, optimize=True)
    straight = np.meshgrid(*(t * n * mm for t, n, mm in zip(along, half, spacing, strict=True)), indexing="ij")
    return (((straight + moved) / radii[:, None, None, None]) ** 2).sum(0) <= 1


def blend_weight(
    tumours: NDArray[np.uint8], spacing_mm: Sequence[float], softness: float = 0.25
) -> NDArray[np.float32]:
    """Return how much of each voxel is tumour, from 1 within to 0 outside.

    Each tumour is blurred by a share of the radius of the largest ball in it, and scaled so that it reaches 1: a blur
    that knows no size leaves nothing of small ones, whose voxels are still called tumour.

    Args:
        tumours: 1, 2, ... for each, shape (X, Y, Z).
        spacing_mm: of the voxels.
        softness: standard deviation of the blur in radii of the largest ball.
    """
    weight = np.zeros(tumours.shape, dtype=np.float32)
    for number, box in enumerate(find_objects(tumours), 1):
        radius = distance_transform_edt(np.pad(tumours[box] == number, 1), spacing_mm).max()
        sigma = [softness * radius / mm for mm in spacing_mm]
        reach = int(np.ceil(4 * max(sigma))) + 1
        where = tuple(slice(max(0, axis.start - reach), axis.stop + reach) for axis in box)
        blurred = gaussian_filter((tumours[where] == number).astype(np.float32), sigma, mode="nearest")
        np.maximum(weight[where], blurred / blurred.max(), out=weight[where])
    weight[weight < LEAST_WEIGHT] = 0
    return weight


LEAST_WEIGHT = 1e-3
"""Less than this of a tumour is none: beyond it an image stays as it is."""


def handcrafted(
    image: NDArray[np.floating], random: np.random.RandomState, window: Sequence[float]
) -> NDArray[np.float32]:
    """Return an image that is darker everywhere by the texture of hand-crafted tumours.

    Source: Hu et al. 2023, "Label-Free Liver Tumor Segmentation", section 3, whose authors' program has the numbers.

    Args:
        image: CT in [-1, 1], shape (X, Y, Z).
        random: of all that is drawn.
        window: HU at -1 and 1.
    """
    coarse = gaussian_filter(random.uniform(size=image.shape), random.choice([3, 6, 9, 12, 15]))
    low, high = coarse.min(), coarse.max()
    probability = (coarse - low) / max(high - low, 1e-9) * random.uniform(0.19, 0.21) + random.uniform(0.04, 0.06)
    grains = (random.uniform(size=image.shape) < probability).astype(np.float32)
    texture = gaussian_filter(grains, random.choice([4, 7]))
    seen = texture[texture > 0.12]
    mean = seen.mean() if len(seen) else max(texture.mean(), 1e-9)
    texture = np.clip(texture * random.uniform(0.5, 0.55) / mean, 0, 1)
    darker_hu = random.uniform(65, 145)
    return (image - texture * darker_hu * 2 / (window[1] - window[0])).astype(np.float32)


def _fitted(
    shape: Mask, middle: NDArray[np.intp], room: Mask | None, tumours: NDArray[np.uint8]
) -> tuple[tuple[slice, ...], Mask]:
    """Return where a shape lies, and its largest piece that has room there and touches no other tumour."""
    corner = middle - np.array(shape.shape) // 2
    where, near, seen = [], [], []
    for first, length, n in zip(corner, shape.shape, tumours.shape, strict=True):
        low, high = max(0, first), min(n, first + length)
        where.append(slice(low, high))
        near.append(slice(max(0, low - 1), high + 1))
        seen.append(slice(low - first, high - first))
    free = shape[tuple(seen)] if room is None else shape[tuple(seen)] & room[tuple(where)]
    others = tumours[tuple(near)] > 0
    if others.any():
        inner = tuple(slice(w.start - n.start, w.stop - n.start) for w, n in zip(where, near, strict=True))
        free = free & ~binary_dilation(others, TOUCHING)[inner]
    pieces, count = label(free, TOUCHING)
    return tuple(where), pieces == np.bincount(pieces.ravel())[1:].argmax() + 1 if count > 1 else free


IGNORED = 255
"""In labels of what a loss passes over."""


class OrganAndTumoursd(Transform):
    """Write 1 in an organ and 2 in its tumours into the ``label`` of an item.

    The label has both already, or it is above 0 in tumours alone, and a mask ``organ`` contains them. Where there is no
    label, there are no tumours in the organ.

    Args:
        both: whether labels have both.
        voxel_mm: of the label, nearly cubic.
        diameter_mm: smallest and largest of tumours to learn, of a ball of the same volume; others are ``IGNORED``.
            None takes all.
    """

    def __init__(
        self, both: bool, voxel_mm: Sequence[float] = (1.0, 1.0, 1.0), diameter_mm: Sequence[float] | None = None
    ) -> None:
        self.both, self.voxel_mm, self.diameter_mm = both, voxel_mm, diameter_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its label, shape (1, X, Y, Z)."""
        item: dict[Any, Any] = dict(data)
        organ: Any = item.get("organ")
        label: Any = item.get("label")
        if label is None:
            item["label"] = (organ > 0).to(organ)
        elif not self.both:
            item["label"] = torch.where(label > 0, 2, organ > 0).to(label)
        if self.diameter_mm is not None:
            pieces, diameters = _pieces(convert_to_numpy(item["label"])[0] > 1, self.voxel_mm)
            low, high = self.diameter_mm
            others = ((diameters < low) | (diameters > high))[pieces] & (pieces > 0)
            item["label"] = torch.where(torch.from_numpy(others[None]), IGNORED, item["label"])
        return item


class TumoursAloned(MapTransform):
    """Leave of labels that have an organ and its tumours the tumours, and the organ with them under a key of its own.

    Args:
        keys: labels, 1 in an organ and 2 in its tumours.
        both: false leaves labels as they are, which have the tumours alone.
        organ_key: where 1 stands in both.
        allow_missing_keys: see MONAI.
    """

    def __init__(
        self, keys: KeysCollection, both: bool = True, organ_key: str = "true_organ", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.both, self.organ_key = both, organ_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with 1 in tumours."""
        item = dict(data)
        for key in self.key_iterator(item) if self.both else ():
            item[self.organ_key] = (item[key] > 0).to(item[key])
            item[key] = (item[key] > 1).to(item[key])
        return item


def _pieces(tumours: Mask, voxel_mm: Sequence[float]) -> tuple[Any, NDArray[np.float64]]:
    """Return 1, 2, ... in each tumour, and diameters of balls of their volumes, mm, that of what is none first."""
    pieces, _ = label(tumours, TOUCHING)
    return pieces, np.cbrt(6 * np.bincount(pieces.ravel()) * np.prod(voxel_mm) / np.pi)


class TumoursBetweend(MapTransform):
    """Mark the tumours of some sizes, as middles of patches.

    Args:
        keys: labels, above 0 in tumours, shape (1, X, Y, Z), of cubic voxels or nearly so.
        voxel_mm: of them.
        diameter_mm: smallest and largest, of a ball of the same volume.
        marked_key: where 1 stands in those tumours, else 0; in all tumours where there is none of the sizes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        voxel_mm: Sequence[float],
        diameter_mm: Sequence[float] = (0.0, float("inf")),
        marked_key: str = "marked",
    ) -> None:
        super().__init__(keys)
        self.voxel_mm, self.diameter_mm, self.marked_key = voxel_mm, diameter_mm, marked_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the marked tumours, of the label's type."""
        item = dict(data)
        for key in self.key_iterator(item):
            tumours = convert_to_numpy(item[key])[0] > 0
            pieces, diameters = _pieces(tumours, self.voxel_mm)
            low, high = self.diameter_mm
            asked = (diameters >= low) & (diameters <= high)
            asked[0] = False
            marked = asked[pieces] if asked.any() else tumours
            item[self.marked_key] = torch.from_numpy(marked[None]).to(item[key])
        return item


class PatchesAroundd(RandCropByPosNegLabeld):
    """Cut patches whose middles lie in a mask: MONAI's, which for validation are the same in each epoch.

    Args:
        random: false draws as if every call were the first.
        kwargs: see ``RandCropByPosNegLabeld``.
    """

    def __init__(self, *args: Any, random: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.random = random

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the patches, each an item."""
        if not self.random:
            self.set_random_state(0)
        return super().__call__(*args, **kwargs)
