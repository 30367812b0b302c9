"""MR of the abdomen: CHAOS, which has a PNG of grey levels for each DICOM slice."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...files import BadFileError
from ..checks import check_mr, refuse_other_values
from ..dicom import read_series, series_in
from ..reading import read_film
from .scans import Channel, Scan, Volume, not_empty, some

GREY_LEVELS = {"liver": (63,), "kidneys": (126, 189), "spleen": (252,)}
"""Of the organs in CHAOS's labels, the right kidney first; 0 is anything else."""

SEQUENCE = "T2SPIR"

logger = logging.getLogger(__name__)


def find_chaos(src: Path, structure: str) -> list[Scan]:
    """Return the T2-SPIR volumes of CHAOS, in any folders: ``<case>/T2SPIR/DICOM_anon`` with slices in DICOM.

    ``<case>/T2SPIR/Ground`` has the label of each slice in a PNG of the slice's name. A structure stands for the
    lesions: a slice is diseased that shows it, as in Hu et al. 2023. Cases without ``Ground``, those of the challenge's
    test set, are left out.

    Args:
        src: the folder that was downloaded, or one above or below.
        structure: one of ``GREY_LEVELS``.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the structure is unknown.
    """
    if structure not in GREY_LEVELS:
        raise ValueError(f"structure must be one of {', '.join(GREY_LEVELS)}, got {structure!r}.")
    scans = []
    for folder in sorted(src.rglob(SEQUENCE)):
        case = f"chaos_{folder.parent.name}"
        if (folder / "Ground").is_dir():
            scans.append(Scan(case, case, partial(_read_chaos, folder, structure)))
        elif (folder / "DICOM_anon").is_dir():
            logger.info(f"{case}: left out, as it has no labels.")
    return some(scans, src, f"<case>/{SEQUENCE}/DICOM_anon")


def _read_chaos(folder: Path, structure: str) -> Volume:
    image, labels = folder / "DICOM_anon", folder / "Ground"
    series = series_in(image)
    if len(series) != 1:
        raise BadFileError(f"{image}: expected one DICOM series, got {len(series)}.")
    (files,) = series.values()
    voxels, affine = read_series(files, hu=False)
    check_mr(voxels, image)
    values, _ = read_series(files, hu=False, pixels=lambda path: read_film(labels / f"{path.stem}.png"))
    refuse_other_values(values, (0, *(level for levels in GREY_LEVELS.values() for level in levels)), labels)
    return Volume((Channel(voxels),), affine, label=_drawn(values, structure, labels))


def _drawn(values: NDArray[np.float32], structure: str, labels: Path) -> NDArray[np.bool_]:
    return not_empty(np.isin(values, GREY_LEVELS[structure]), structure, labels)
