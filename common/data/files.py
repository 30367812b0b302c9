"""Reading a case, whatever it lies in, and writing results that a killed run leaves whole or not at all."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import NibabelReader, NibabelWriter
from monai.transforms import EnsureChannelFirstd, LoadImaged, MapTransform, SaveImage, SaveImaged
from monai.utils import convert_to_numpy, ensure_tuple

from ..files import replacing
from .checks import FILM_AFFINE, is_film, read_film
from .dicom import read_series


class CaseReader(NibabelReader):
    """Reads NIfTI files, folders with a DICOM series, and films, for ``LoadImaged``."""

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return whether these are folders, films or files that nibabel reads."""
        paths = [Path(str(path)) for path in ensure_tuple(filename)]
        return all(path.is_dir() or is_film(path) for path in paths) or super().verify_suffix(filename)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Return an image with voxels and affine; a series comes in HU and RAS, a film with ``FILM_AFFINE``."""
        paths = [Path(str(path)) for path in ensure_tuple(data)]
        if len(paths) == 1 and (paths[0].is_dir() or is_film(paths[0])):
            self.filenames = paths
            voxels, affine = read_series(paths[0]) if paths[0].is_dir() else (read_film(paths[0]), FILM_AFFINE)
            return nib.Nifti1Image(voxels, affine)
        return super().read(data, **kwargs)


class LoadCased(MapTransform):
    """Load what a case has of an image, its organ and its label, channel first.

    Args:
        keys: of paths, as far as they are there.
    """

    def __init__(self, keys: KeysCollection = ("image", "organ", "label")) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.load = LoadImaged(keys, reader=CaseReader, allow_missing_keys=True)
        self.channel_first = EnsureChannelFirstd(keys, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with MetaTensors of shape (C, X, Y[, Z])."""
        return dict(self.channel_first(self.load(data)))


class CaseWriter(NibabelWriter):
    """Writes NIfTI for ``SaveImaged``: with all axes of the image, also of one slice, and whole or not at all."""

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
        with replacing(filename) as temporary:
            super().write(temporary, verbose=verbose, **obj_kwargs)


MASKS = ("mask", "organ", "wanted")
"""Results that hold whole numbers."""


class SaveMapsd(SaveImaged):
    """Save each result of a case as ``<output_dir>/<case>/<case>_<key>.nii.gz``, those in ``MASKS`` as uint8.

    It is a ``SaveImaged``, so that MONAI Label, which saves what it answers by itself, leaves it out.

    Args:
        keys: of the results, shape (C, X, Y[, Z]); float32 but for masks.
        output_dir: of the run.
        postfixes: what stands in the key's place in the names of files, by key.
        allow_missing_keys: see MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: PathLike,
        postfixes: Mapping[str, str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.savers = {
            key: SaveImage(
                output_dir=output_dir,
                output_postfix=(postfixes or {}).get(str(key), str(key)),
                output_dtype=np.uint8 if key in MASKS else np.float32,
                resample=False,
                writer=CaseWriter,
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
