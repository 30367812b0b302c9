"""Reading a case, whatever it lies in, and writing results that a killed run leaves whole or not at all."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import Dataset, MetaTensor, NibabelReader, NibabelWriter
from monai.transforms import EnsureChannelFirstd, LoadImaged, MapTransform, SaveImage, SaveImaged, Transform
from monai.utils import convert_to_numpy, ensure_tuple
from numpy.typing import NDArray

from ..files import Failures, replacing
from .checks import refuse_other_grid, refuse_other_values
from .dicom import read_series
from .reading import FILM_AFFINE, is_film, read_film, read_image

warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")  # MONAI makes all its readers, also unused ones
warnings.filterwarnings("ignore", message=r"axcodes \(")  # MONAI on each film: three axes were named, it has two


class CaseReader(NibabelReader):
    """Reads NIfTI files, folders with a DICOM series, and films, for ``LoadImaged``."""

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return whether these are folders, films or files that nibabel reads."""
        paths = [Path(str(path)) for path in ensure_tuple(filename)]
        return all(path.is_dir() or is_film(path) for path in paths) or super().verify_suffix(filename)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Return the paths alone: ``get_data`` reads them, since where ``read`` fails MONAI tries other readers."""
        self.filenames = [Path(str(path)) for path in ensure_tuple(data)]
        return self.filenames

    def get_data(self, img: Sequence[Path]) -> tuple[NDArray[np.float32], dict]:
        """Return voxels and what is known of them; a series comes in HU and RAS, a film with ``FILM_AFFINE``.

        Raises:
            BadFileError: for a file that cannot be read, or that lies on another grid than the first.
        """
        (first, affine), *others = [_read(path) for path in img]
        for path, (voxels, own) in zip(img[1:], others, strict=True):
            refuse_other_grid(voxels.shape, own, first.shape, affine, path, img[0])
        return super().get_data([nib.Nifti1Image(voxels, affine) for voxels, _ in [(first, affine), *others]])


def _read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    if path.is_dir():
        return read_series(path)
    return (read_film(path), FILM_AFFINE) if is_film(path) else read_image(path)


class FitCased(Transform):
    """Leave of an image the volumes that ``channels`` of its item names, and refuse masks that do not fit it.

    Args:
        label_values: see ``list_cases``.
        organ_labels: see ``list_cases``; of a mask of several organs that is left which is asked for.
    """

    def __init__(
        self, label_values: Mapping[str, str] | None = None, organ_labels: int | Sequence[int] | None = None
    ) -> None:
        self.label_values, self.organ_labels = label_values, organ_labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, whose images are MetaTensors of shape (C, X, Y[, Z]).

        Raises:
            BadFileError: if a mask lies on another grid, or a label has other values.
        """
        item = dict(data)
        channels = item.pop("channels", None)
        image = item["image"] if channels is None else item["image"][channels]
        for key in ("organ", "label", "wanted", "twin"):
            if not isinstance(item.get(key), MetaTensor):  # not there, or a path that this run does not load
                continue
            grids = [(tensor.shape[1:], convert_to_numpy(tensor.affine)) for tensor in (item[key], image)]
            refuse_other_grid(*grids[0], *grids[1], f"{key} of {item.get('case', 'a case')}", "the image")
        if isinstance(item.get("label"), MetaTensor) and self.label_values is not None:
            values = (0, *map(int, self.label_values))
            refuse_other_values(convert_to_numpy(item["label"]), values, item["label"].meta["filename_or_obj"])
        organ = item.get("organ")
        if self.organ_labels is not None and isinstance(organ, MetaTensor):
            wanted = torch.as_tensor(ensure_tuple(self.organ_labels)).to(organ)
            item["organ"] = MetaTensor(torch.isin(organ.as_tensor(), wanted).to(organ.dtype), meta=organ.meta)
        return {**item, "image": image}


class LoadCased(MapTransform):
    """Load what a case has of an image, its organ and its label, channel first, see ``FitCased``.

    Args:
        keys: of paths, as far as they are there.
        label_values: see ``list_cases``.
    """

    def __init__(
        self, keys: KeysCollection = ("image", "organ", "label"), label_values: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.load = LoadImaged(keys, reader=CaseReader, allow_missing_keys=True)
        self.channel_first = EnsureChannelFirstd(keys, allow_missing_keys=True)
        self.fit = FitCased(label_values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with MetaTensors of shape (C, X, Y[, Z])."""
        return self.fit(self.channel_first(self.load(data)))


class CaseDataset(Dataset):
    """A data set that gives, for a case that cannot be loaded, its name and why: ``case`` and ``failure``."""

    def __getitem__(self, index: Any) -> Any:
        """Return an item, see MONAI."""
        failures = Failures()
        with failures.recording(case := str(self.data[index].get("case", "a case")), "loading it"):
            return super().__getitem__(index)
        return {"case": case, "failure": failures.reasons[case]}


class CaseWriter(NibabelWriter):
    """Writes NIfTI for ``SaveImaged``: with all axes of the image, also of one slice, and whole or not at all.

    Args:
        description: stands in the header.
        kwargs: see ``NibabelWriter``.
    """

    def __init__(self, *args: Any, description: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.description = description

    def set_data_array(
        self, data_array: Any, channel_dim: int | None = 0, squeeze_end_dims: bool = True, **kwargs: Any
    ) -> None:
        """Take an image of shape (C, *spatial); several channels become the fourth axis, as NIfTI has it."""
        if len(data_array) == 1:
            self.data_obj = data_array[0]
        else:
            volumes = data_array if data_array.ndim == 4 else data_array[..., None]
            self.data_obj = np.moveaxis(convert_to_numpy(volumes), 0, -1)

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        """Take the affine of the image as it is: nothing is resampled, and a slice need not be axial."""
        self.affine = (meta_dict or {}).get("affine")

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write a file; a killed run leaves no half of it."""
        voxels: Any = self.data_obj
        image = self.create_backend_obj(voxels, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        image.header["descrip"] = self.description
        with replacing(filename) as temporary:
            nib.save(image, temporary)


MASKS = ("mask", "labels", "organ", "wanted")
"""Results that hold whole numbers."""


class SaveMapsd(SaveImaged):
    """Save each result of a case as ``<output_dir>/<case>/<case>_<key>.nii.gz``, those in ``MASKS`` as uint8.

    It is a ``SaveImaged``, so that MONAI Label, which saves what it answers by itself, leaves it out.

    Args:
        keys: of the results, shape (C, X, Y[, Z]); float32 but for masks.
        output_dir: of the run.
        postfixes: what stands in the key's place in the names of files, by key.
        descriptions: what stands in the headers of files, by key, at most 79 letters.
        allow_missing_keys: see MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: PathLike,
        postfixes: Mapping[str, str] | None = None,
        descriptions: Mapping[str, str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.savers = {
            key: SaveImage(
                output_dir=output_dir,
                output_postfix=(postfixes or {}).get(str(key), str(key)),
                output_dtype=np.uint8 if key in MASKS else np.float32,
                resample=False,
                writer=cast(Any, partial(CaseWriter, description=(descriptions or {}).get(str(key), ""))),
                print_log=False,
            )
            for key in self.keys
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item as it is, once its results are files."""
        item = dict(data)
        for key in self.key_iterator(item):
            self.savers[key](item[key])
        return item
