"""Names for the channels of a result, and for its files."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, ConcatItemsd, DeleteItemsd, MapTransform, Orientationd, Transform
from monai.utils import convert_to_tensor

CASE_KEYS = ("image", "organ", "label", "slice_class")
"""What a case may have on the grid of its image; see ``SliceClassesd`` for the last."""

FILMS = (".png", ".jpg", ".jpeg", ".npy")
"""Endings of X-rays, in lower case."""


class SplitChannelsd(MapTransform):
    """Put the channels of a result under names of their own, in place of the result.

    Args:
        keys: one key of a tensor of shape (C, *spatial).
        names: of the C channels; those of one name, which follow one another, stay together.
        allow_missing_keys: see MONAI.
    """

    def __init__(self, keys: KeysCollection, names: Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = names

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its channels apart.

        Raises:
            ValueError: if there are not as many channels as names.
        """
        parted = dict(data)
        for key in self.key_iterator(parted):
            result = convert_to_tensor(parted.pop(key), track_meta=True)  # ``Invertd`` wants MetaTensors
            if len(result) != len(self.names):
                raise ValueError(f"{key} must have {len(self.names)} channels {tuple(self.names)}, got {len(result)}.")
            for name, channels in groupby(range(len(result)), lambda channel: self.names[channel]):
                first, *others = channels
                parted[name] = result[first : first + 1 + len(others)]
        return parted


class Regionsd(MapTransform):
    """Turn a label map into a channel for each region, 0 or 1.

    Args:
        keys: label maps, shape (1, *spatial).
        regions: values of each region; they may lie within one another, as ``[[1, 2, 3], [1, 3], [3]]``, the whole
            tumour, core and enhancing tumour as ``data.prepare`` writes them. None is one region, of all above 0.
        allow_missing_keys: see MONAI.
    """

    def __init__(
        self, keys: KeysCollection, regions: Sequence[Sequence[int]] | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions = regions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its regions.

        Raises:
            ValueError: for a label with several channels.
        """
        parted = dict(data)
        for key in self.key_iterator(parted):
            label = parted[key]
            if len(label) != 1:
                raise ValueError(f"{data.get('case', key)}: expected a label of one channel, got {len(label)}.")
            if self.regions is None:
                found = [label > 0]
            else:
                found = [torch.isin(label, torch.tensor(values).to(label)) for values in self.regions]
            parted[key] = torch.cat(found).to(label)
        return parted


class NameCased(Transform):
    """Let an image carry the name of its case, which ``SaveImaged`` names folder and files by.

    Args:
        key: of the image.
    """

    def __init__(self, key: str = "image") -> None:
        self.key = key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item; one without ``case``, as MONAI Label trains with, gets the name of its file as that."""
        named = dict(data)
        image = named[self.key]
        if isinstance(image, MetaTensor):
            if "case" in named:
                image.meta["filename_or_obj"] = f"{named['case']}.nii.gz"
            else:
                named["case"] = named["patient"] = image_stem(image.meta.get("filename_or_obj", "case"))
        return named


class ToInputs(Transform):
    """Turn a loaded case into what inferers take: in RAS, the organ's mask, if there is one, as a further channel."""

    def __init__(self) -> None:
        self.steps = Compose(
            [
                Orientationd(CASE_KEYS, axcodes="RAS", labels=None, allow_missing_keys=True),
                NameCased(),
                ConcatItemsd(["image", "organ"], "image", allow_missing_keys=True),
                DeleteItemsd("organ"),
            ]
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, whose image carries the name of its case."""
        return self.steps(data)  # type: ignore[return-value]


def image_stem(path: str | Path) -> str:
    """Return a file's name without the ending of NIfTI or of a film."""
    name = Path(path).name
    ending = next((e for e in (".nii.gz", ".nii", *FILMS) if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]
