"""CT of the kidneys."""

from functools import partial
from pathlib import Path

import numpy as np

from ..checks import check_same_grid, refuse_other_values
from .scans import Channel, Scan, Volume, not_empty, read_ct, some

ORGAN = "kidneys"

KIDNEY, TUMOUR, CYST = 1, 2, 3


def find_kits(src: Path) -> list[Scan]:
    """Return the cases of KiTS19, KiTS21 or KiTS23: ``case_<n>/imaging.nii.gz`` and ``segmentation.nii.gz``.

    The segmentation is 1 in the kidneys, 2 in tumours and 3 in cysts, which are taken for kidney. Cases without one, as
    those of the challenges' test sets, are left out.

    Args:
        src: the folder they lie in, at any depth.

    Raises:
        FileNotFoundError: if there is none.
    """
    folders = sorted(path.parent for path in src.rglob("imaging.nii.gz"))
    labelled = [folder for folder in folders if (folder / "segmentation.nii.gz").is_file()]
    scans = [Scan(folder.name, folder.name, partial(_read_kits, folder)) for folder in labelled]
    return some(scans, src, "case_<n>/imaging.nii.gz and segmentation.nii.gz")


def _read_kits(folder: Path) -> Volume:
    image, labels = folder / "imaging.nii.gz", folder / "segmentation.nii.gz"
    voxels, affine = read_ct(image)
    values = check_same_grid(voxels.shape, affine, labels, image)
    refuse_other_values(values, (0, KIDNEY, TUMOUR, CYST), labels)
    return Volume((Channel(voxels, image),), affine, not_empty(values > 0, ORGAN, labels), np.asarray(values == TUMOUR))
