"""Where to search in an image: its foreground, an organ that TotalSegmentator finds, or a part of an organ."""

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_numpy, convert_to_tensor, optional_import
from nibabel import io_orientation
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from torch import Tensor


def foreground(image: Tensor) -> Tensor:
    """Return where a channel is above 0, the holes of each axial slice filled: the head in skull-stripped MR.

    Args:
        image: shape (C, X, Y[, Z]).

    Returns:
        bool, shape (1, X, Y[, Z]).
    """
    shown = convert_to_numpy((image > 0).any(0))
    return torch.from_numpy(fill_holes(np.atleast_3d(shown)).reshape(1, *shown.shape)).to(image.device)


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask of shape (X, Y, Z) with the holes in each slice along the last axis filled."""
    return np.stack([binary_fill_holes(mask[..., k]) for k in range(mask.shape[-1])], axis=-1)


def right_part(organ: Tensor, share: float, axis: int = 1, to_right: bool = True) -> Tensor:
    """Return the part of an organ that lies in the patient's right-hand share of its extent between right and left.

    Of the pancreas that is the head, which data sets do not mark. Babaei et al. 2024, section 3.1, search only there,
    and do not say how they found it.

    Args:
        organ: bool, any shape.
        share: of the extent, in (0, 1]; 1 gives the whole organ.
        axis: between right and left.
        to_right: that axis points to the patient's right, as the first one does in RAS.

    Raises:
        ValueError: if ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the organ that is searched must lie in (0, 1], got {share}.")
    shown = organ.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
    if len(shown) == 0:
        return organ
    first, last = int(shown[0]), int(shown[-1])
    width = max(1, round(share * (last - first + 1)))
    index = torch.arange(organ.shape[axis], device=organ.device)
    kept = index > last - width if to_right else index < first + width
    return organ & kept.view([-1 if i == axis % organ.ndim else 1 for i in range(organ.ndim)])


class RightPartd(Transform):
    """Leave of the organ's mask its ``right_part``, however the volume is oriented.

    Args:
        share: see ``right_part``.
        organ_key: MetaTensor of shape (1, X, Y[, Z]); items without it stay as they are.
    """

    def __init__(self, share: float, organ_key: str = "organ") -> None:
        self.share, self.organ_key = share, organ_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the part, float32, 0 and 1."""
        if self.organ_key not in data:
            return dict(data)
        organ = data[self.organ_key]
        orientation = io_orientation(convert_to_numpy(organ.affine))
        axis = int(np.flatnonzero(orientation[:, 0] == 0)[0])
        mask = convert_to_tensor(organ, track_meta=False) > 0
        part = right_part(mask, self.share, axis + 1, bool(orientation[axis, 1] > 0))
        return {**data, self.organ_key: MetaTensor(part.float(), meta=organ.meta)}


class AddOrgand(Transform):
    """Add a mask of where to search to items that have none.

    Args:
        everywhere: the mask is the whole image, not its ``foreground``.
        image_key: shape (C, X, Y[, Z]).
        organ_key: where the mask is put.
    """

    def __init__(self, everywhere: bool = False, image_key: str = "image", organ_key: str = "organ") -> None:
        self.everywhere, self.image_key, self.organ_key = everywhere, image_key, organ_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the mask, float32, 0 and 1."""
        if self.organ_key in data:
            return dict(data)
        image = data[self.image_key]
        plain = convert_to_tensor(image, track_meta=False)
        mask = torch.ones_like(plain[:1]) if self.everywhere else foreground(plain).float()
        return {**data, self.organ_key: MetaTensor(mask, meta=image.meta) if isinstance(image, MetaTensor) else mask}


class LesionFreeOrgand(Transform):
    """Take lesions of the label out of the organ, where there are both: so that none is put where one is already."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with what is left of the organ, float32, 0 and 1."""
        if "organ" not in data or "label" not in data:
            return dict(data)
        organ, lesions = (convert_to_tensor(data[key], track_meta=False) > 0 for key in ("organ", "label"))
        left = (organ & ~lesions).float()
        meta = isinstance(data["organ"], MetaTensor)
        return {**data, "organ": MetaTensor(left, meta=data["organ"].meta) if meta else left}


class TotalSegmentatorOrgand(Transform):
    """Add the organ that TotalSegmentator finds in a CT; only if ``organ_source`` is ``totalsegmentator``.

    The package downloads weights when it has none, which nobody asked for: it runs with weights on disk or not at all.

    Args:
        organ_source: the key of the config; for all other values the item stays as it is.
        structure: TotalSegmentator's name of the organ.
        image_key: CT in HU, MetaTensor of shape (1, X, Y, Z).
        organ_key: where the mask is put.
    """

    def __init__(
        self, organ_source: str, structure: str = "liver", image_key: str = "image", organ_key: str = "organ"
    ) -> None:
        self.asked, self.structure = organ_source == "totalsegmentator", structure
        self.image_key, self.organ_key = image_key, organ_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the mask, uint8.

        Raises:
            RuntimeError: if the package or its weights are not there.
        """
        if not self.asked:
            return dict(data)
        image = data[self.image_key]
        mask = segment_structure(convert_to_numpy(image)[0], convert_to_numpy(image.affine), self.structure)
        return {**data, self.organ_key: MetaTensor(mask[None], meta=image.meta)}


def segment_structure(voxels: np.ndarray, affine: np.ndarray, structure: str) -> np.ndarray:
    """Return the mask of a structure, uint8, by TotalSegmentator's fast (3 mm) model.

    Args:
        voxels: CT in HU, shape (X, Y, Z).
        affine: voxel to world in mm.
        structure: TotalSegmentator's name.

    Raises:
        RuntimeError: if the package or its weights are not there.
    """
    run, installed = optional_import("totalsegmentator.python_api", name="totalsegmentator")
    if not installed:
        raise RuntimeError('organ_source totalsegmentator needs the package: pip install "TotalSegmentator>=2.4".')
    home = Path(os.environ.get("TOTALSEG_HOME_DIR", Path.home() / ".totalsegmentator"))
    weights = Path(os.environ.get("TOTALSEG_WEIGHTS_PATH", home / "nnunet" / "results"))
    missing = [name for name in ("Dataset297_*", "Dataset298_*") if not any(weights.glob(name))]
    if missing:
        raise RuntimeError(
            f"organ_source totalsegmentator needs its weights in {weights}, expected {' and '.join(missing)}, "
            "got none: fetch them once with totalseg_download_weights -t total_fast."
        )
    found = run(nib.Nifti1Image(voxels, affine), fast=True, roi_subset=[structure], quiet=True)
    return (np.asarray(found.dataobj) > 0).astype(np.uint8)
