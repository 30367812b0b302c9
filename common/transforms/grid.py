"""The network's grid: slices at a chosen pixel size, cut into patches, and back."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import Any

import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientationd
from monai.utils import convert_to_tensor
from torch import Tensor

from .channels import CASE_KEYS


def pixel_size_mm(image: Tensor) -> tuple[float, float]:
    """Return the in-plane pixel size of an image in mm, see ``voxel_size_mm``."""
    right, front, _ = voxel_size_mm(image)
    return right, front


def voxel_size_mm(image: Tensor) -> tuple[float, float, float]:
    """Return the size of an image's voxels in mm, from the affine that it carries.

    Args:
        image: MetaTensor of shape ([B,] C, X, Y[, Z]), oriented so that slices lie along the last axis.

    Raises:
        ValueError: if the image carries no affine.
    """
    if not isinstance(image, MetaTensor):
        raise ValueError(
            "the image has no affine, so the size of its pixels is unknown: pass a MetaTensor, or load it."
        )
    affine = image.affine[0] if image.affine.ndim == 3 else image.affine
    right, front, head = (float(size) for size in affine[:3, :3].double().norm(dim=0))
    return right, front, head


def network_pixel_mm(
    target_mm: float | None, shape: Sequence[int], pixel_mm: Sequence[float], patch_size: Sequence[int] = ()
) -> float:
    """Return the size of the network's pixels for an image: ``target_mm``, or else what fits it to a patch.

    Where pixels have no known size in mm, as in films, an image is seen as a whole: it is made larger or smaller until
    it just fits into a patch. Its proportions are kept; what remains of the patch on both sides is padding.

    Args:
        target_mm: that it shall be, or None.
        shape: pixels of the image along X and Y.
        pixel_mm: of the image along X and Y; where they are unknown, any unit, and so is the result's.
        patch_size: the network's input, pixels along X and Y; needed if there is no ``target_mm``.

    Raises:
        ValueError: if there is neither a ``target_mm`` nor a patch to fit.
    """
    if target_mm is not None:
        return target_mm
    if not patch_size:
        raise ValueError("without pixel_mm an image is fitted to a patch: expected patch_size, got none.")
    return max(n * mm / patch for n, mm, patch in zip(shape[:2], pixel_mm, patch_size, strict=True))


def size_at(shape: Sequence[int], pixel_mm: Sequence[float], target_mm: float) -> tuple[int, int]:
    """Return the number of pixels of ``target_mm`` that cover what ``shape`` pixels of ``pixel_mm`` do, at least 1."""
    height, width = size_along(shape[:2], pixel_mm, (target_mm, target_mm))
    return height, width


def size_along(shape: Sequence[int], size_mm: Sequence[float], target_mm: Sequence[float]) -> list[int]:
    """Return how many voxels of another size cover the same extent along each axis, at least 1."""
    return [max(1, round(n * mm / target)) for n, mm, target in zip(shape, size_mm, target_mm, strict=True)]


MAX_VOXELS = 2**28
"""Of a resampled image with its channels, 1 GiB: a CT of 512 x 512 pixels and 1024 slices."""


def resample_slices(slices: Tensor, size: Sequence[int], mode: str = "linear", max_voxels: int = MAX_VOXELS) -> Tensor:
    """Return slices with another number of pixels over the same extent.

    Args:
        slices: shape (S, C, X, Y), float.
        size: pixels along X and Y.
        mode: ``linear``, which averages where it shrinks, or ``nearest``.
        max_voxels: of the result; more are refused before there is memory for them.

    Raises:
        ValueError: for more voxels, as headers with wrong voxel sizes ask for.
    """
    if tuple(slices.shape[2:]) == tuple(size):
        return slices
    count, channels = slices.shape[:2]
    if count * channels * size[0] * size[1] > max_voxels:
        raise ValueError(
            f"expected an image of at most {max_voxels} voxels (max_voxels) on the network's grid, got {channels} x "
            f"{size[0]} x {size[1]} x {count}: are its voxel sizes right?"
        )
    if mode == "nearest":
        return F.interpolate(slices, size=tuple(size), mode="nearest-exact")
    return F.interpolate(slices, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)


def resample_volume(volume: Tensor, size: Sequence[int], mode: str = "linear", max_voxels: int = MAX_VOXELS) -> Tensor:
    """Return volumes with another number of voxels over the same extent, see ``resample_slices``.

    Args:
        volume: shape (C, X, Y, Z), float.
        size: voxels along each axis.
        mode: see ``resample_slices``.
        max_voxels: see ``resample_slices``.
    """
    in_plane = from_slices(resample_slices(to_slices(volume), size[:2], mode, max_voxels), 3)
    upright = in_plane.movedim(1, 0)  # (X, C, Y, Z)
    return resample_slices(upright, size[1:], mode, max_voxels).movedim(0, 1)


def patch_corners(low: Sequence[int], high: Sequence[int], patch_size: Sequence[int], margin: int) -> list[list[int]]:
    """Return the first corners of patches that cover a box with a margin; one patch, centred, where it fits.

    Neighbouring patches overlap by two margins at least, so a structure is never cut without its surroundings. Corners
    may be negative: patches reach beyond the image, see ``crop``.

    Args:
        low: first pixel of the box along each axis.
        high: last pixel of the box along each axis.
        patch_size: pixels of a patch along each axis.
        margin: pixels that a patch shows around the box, and around what it shares with its neighbour.

    Raises:
        ValueError: if a patch is no larger than two margins.
    """
    starts = []
    for first, last, patch in zip(low, high, patch_size, strict=True):
        if patch <= 2 * margin:
            raise ValueError(f"patch_size must be > {2 * margin}, twice the margin, got {patch}.")
        extent = last - first + 1 + 2 * margin
        count = 1 if extent <= patch else 1 + -(-(extent - patch) // (patch - 2 * margin))
        span = patch + (extent - patch) * (count > 1)
        origin = round((first + last + 1 - span) / 2)
        starts.append([origin + round(i * (span - patch) / max(count - 1, 1)) for i in range(count)])
    return [list(corner) for corner in product(*starts)]


def crop(images: Tensor, corner: Sequence[int], patch_size: Sequence[int], fill: float) -> Tensor:
    """Return a patch of the last axes, as many as it has; what lies beyond the image is ``fill``."""
    axes = len(patch_size)
    patch = images.new_full((*images.shape[:-axes], *patch_size), fill)
    source, target = _overlap(images.shape[-axes:], corner, patch_size)
    patch[target] = images[source]
    return patch


def add_patch(total: Tensor, patch: Tensor, corner: Sequence[int]) -> None:
    """Add a patch to the last axes of ``total``, as many as its corner has: the inverse of ``crop``."""
    axes = len(corner)
    source, target = _overlap(total.shape[-axes:], corner, patch.shape[-axes:])
    total[source] += patch[target]


def _overlap(size: Sequence[int], corner: Sequence[int], patch_size: Sequence[int]) -> tuple[Any, Any]:
    """Return where image and patch overlap, as indices of the image and of the patch."""
    source: list[Any] = [...]
    target: list[Any] = [...]
    for n, start, patch in zip(size, corner, patch_size, strict=True):
        first, last = max(start, 0), max(min(start + patch, n), max(start, 0))
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    return tuple(source), tuple(target)


class ToNetworkGridd(MapTransform):
    """Turn volumes to RAS and resample their first two axes to square pixels, as the network sees them; slices stay.

    Args:
        pixel_mm: target, mm; None see ``network_pixel_mm``.
        patch_size: see ``network_pixel_mm``.
        keys: of MetaTensors of shape (C, X, Y[, Z]), as far as they are there: all but ``image`` are masks.
    """

    def __init__(
        self, pixel_mm: float | None, patch_size: Sequence[int] = (), keys: KeysCollection = CASE_KEYS
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.pixel_mm, self.patch_size = pixel_mm, patch_size
        self.orient = Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its volumes resampled, plain tensors."""
        resampled = dict(self.orient(data))
        for key in self.key_iterator(resampled):
            volume = resampled[key]
            plain = convert_to_tensor(volume, track_meta=False).float()
            resampled[key] = self.resample(plain, voxel_size_mm(volume), "linear" if key == "image" else "nearest")
        return resampled

    def resample(self, volume: Tensor, voxel_mm: Sequence[float], mode: str) -> Tensor:
        """Return a volume, whose voxels have a known size, on the network's grid."""
        shape, pixel_mm = volume.shape[1:], voxel_mm[:2]
        size = size_at(shape, pixel_mm, network_pixel_mm(self.pixel_mm, shape, pixel_mm, self.patch_size))
        return from_slices(resample_slices(to_slices(volume), size, mode), volume.ndim - 1)


class ToVoxelGridd(ToNetworkGridd):
    """Turn volumes to RAS and resample them, as networks of volumes see them.

    MONAI's ``Spacingd`` does not average where it shrinks, and fails on items with an ``image_label``.

    Args:
        voxel_mm: target along each axis, mm.
        keys: see ``ToNetworkGridd``.
    """

    def __init__(self, voxel_mm: Sequence[float], keys: KeysCollection = CASE_KEYS) -> None:
        super().__init__(None, keys=keys)
        self.voxel_mm = voxel_mm

    def resample(self, volume: Tensor, voxel_mm: Sequence[float], mode: str) -> Tensor:
        """Return a volume on the network's grid.

        Raises:
            ValueError: for a single slice.
        """
        if volume.ndim != 4:
            raise ValueError(f"expected a volume of three axes, got {tuple(volume.shape[1:])}.")
        return resample_volume(volume, size_along(volume.shape[1:], voxel_mm, self.voxel_mm), mode)


def to_slices(volume: Tensor) -> Tensor:
    """Return (C, X, Y[, Z]) as (S, C, X, Y), one slice for a 2-D image."""
    return volume[None] if volume.ndim == 3 else volume.movedim(-1, 0)


def from_slices(slices: Tensor, spatial_dims: int) -> Tensor:
    """Return (S, C, X, Y) as (C, X, Y, S), or as (C, X, Y) for ``spatial_dims`` 2."""
    return slices[0] if spatial_dims == 2 else slices.movedim(0, -1)


def to_canvas(slices: Tensor, multiple: int, fill: float) -> Tensor:
    """Return slices (S, C, X, Y) padded at the end of X and Y to a multiple, for networks that halve their input."""
    x, y = slices.shape[-2:]
    return F.pad(slices, (0, -y % multiple, 0, -x % multiple), value=fill)
