"""Hounsfield units, MR intensities, and the ranges [-1, 1] and [0, 1] of the networks."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_numpy, optional_import
from numpy.typing import NDArray
from torch import Tensor

sitk, _ = optional_import("SimpleITK")


def attenuation_window(mu_water: float = 0.192) -> tuple[float, float]:
    """Return the window in HU that is [-1, 1] under GDPI's 4 mu - 1: mu from 0 (no attenuation) to 0.5 per cm.

    Source: Shi et al. 2024 (GDPI), section III B, which leaves the energy open.

    Args:
        mu_water: attenuation of water at the effective energy, 1/cm: 0.192 at 70 keV, 0.206 at 60, 0.1707 at 100.
    """
    return -1000.0, 1000 * (0.5 / mu_water - 1)


def scale_hu(hu: Tensor, window: Sequence[float]) -> Tensor:
    """Return ``hu`` with the window's bounds at -1 and 1, clipped to them."""
    low, high = window
    return ((hu - low) * (2 / (high - low)) - 1).clamp(-1, 1)


def unscale_hu(image: Tensor, window: Sequence[float]) -> Tensor:
    """Return the HU of an image in [-1, 1]."""
    low, high = window
    return (image + 1) * ((high - low) / 2) + low


def to_symmetric(image: Tensor) -> Tensor:
    """Return images in [-1, 1] that were in [0, 1]."""
    return 2 * image - 1


class ScaleHUd(MapTransform):
    """Scale CT images to [-1, 1], as ``scale_hu``.

    Args:
        keys: images in HU.
        window: HU at -1 and at 1.
        allow_missing_keys: see MONAI.
    """

    def __init__(self, keys: KeysCollection, window: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if window[0] >= window[1]:
            raise ValueError(f"window must be (low, high) in HU with low < high, got {tuple(window)}.")
        self.window = window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images scaled."""
        scaled = dict(data)
        for key in self.key_iterator(scaled):
            scaled[key] = scale_hu(scaled[key], self.window)
        return scaled


def intensity_range(
    image: Tensor, normalize: str | Sequence[float] = "volume", percentile: float = 99.0
) -> tuple[Tensor, Tensor]:
    """Return the intensities of an image that are 0 and 1 for the networks, for each channel, shape (C, 1, ...).

    The released BraTS slices of Wolleb et al. 2022 are cut at a high percentile of each volume and sequence and divided
    by it; that of the voxels that are not 0 fits them best.

    Args:
        image: shape (C, *spatial), background 0.
        normalize: ``volume`` takes 0 and a percentile of the voxels above 0, ``brain`` also their percentile as far
            from 0, as 2 for 98, in place of 0, ``range`` the lowest and the highest value, for films of any depth,
            ``none`` 0 and 1, for images that are scaled already, and two numbers themselves, for instance a window in
            HU.
        percentile: in [0, 100].

    Raises:
        ValueError: for another word.
    """
    ones = image.new_ones((len(image), *[1] * (image.ndim - 1)))
    if not isinstance(normalize, str):
        return normalize[0] * ones, normalize[1] * ones
    if normalize == "none":
        return 0 * ones, ones
    if normalize == "range":
        low, high = (extreme(image.flatten(1), 1).view_as(ones) for extreme in (torch.amin, torch.amax))
        return low, high.where(high > low, low + 1)
    if normalize not in ("volume", "brain"):
        raise ValueError(f"normalize must be 'volume', 'brain', 'range', 'none' or two intensities, got {normalize!r}.")
    low, high = 0 * ones, ones.clone()
    for channel, voxels in enumerate(convert_to_numpy(image)):
        inside = voxels[voxels > 0]
        if len(inside):
            high[channel] = float(np.percentile(inside, percentile))
            if normalize == "brain" and (lowest := float(np.percentile(inside, 100 - percentile))) < high[channel]:
                low[channel] = lowest
    return low, high


def scale_range(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return an image with ``low`` at 0 and ``high`` at 1, clipped to them."""
    return ((image - low) / (high - low)).clamp(0, 1)


class CorrectBiasd(MapTransform):
    """Even out the gain of the coil, by N4 of SimpleITK (``pip install SimpleITK``).

    Source: Tustison et al. 2010, "N4ITK: Improved N3 Bias Correction".

    Args:
        keys: images, shape (C, *spatial), background 0, which is left out of the fit.
        shrink: factor by which the image is made smaller for the fit alone.
        allow_missing_keys: see MONAI.

    Raises:
        OptionalImportError: if SimpleITK is not there.
    """

    def __init__(self, keys: KeysCollection, shrink: int = 2, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.shrink = shrink

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images corrected."""
        even = dict(data)
        for key in self.key_iterator(even):
            image = even[key]
            channels = [self._corrected(channel) for channel in convert_to_numpy(image)]
            even[key] = convert_to_dst_type(np.stack(channels), image)[0]
        return even

    def _corrected(self, voxels: NDArray[Any]) -> NDArray[np.float32]:
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels, dtype=np.float32))
        inside = image > 0
        fit = sitk.N4BiasFieldCorrectionImageFilter()
        fit.Execute(*(sitk.Shrink(each, [self.shrink] * voxels.ndim) for each in (image, inside)))
        field = sitk.Exp(fit.GetLogBiasFieldAsImage(image))
        return sitk.GetArrayFromImage(image / sitk.Cast(field, sitk.sitkFloat32)).astype(np.float32)


class ScaleToUnitd(MapTransform):
    """Scale images to [0, 1] by their ``intensity_range``.

    Args:
        keys: images, shape (C, *spatial).
        normalize: see ``intensity_range``.
        percentile: see ``intensity_range``.
        allow_missing_keys: see MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        normalize: str | Sequence[float] = "volume",
        percentile: float = 99.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalize, self.percentile = normalize, percentile

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images scaled."""
        scaled = dict(data)
        for key in self.key_iterator(scaled):
            scaled[key] = scale_range(scaled[key], *intensity_range(scaled[key], self.normalize, self.percentile))
        return scaled
