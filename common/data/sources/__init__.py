"""Data sets as they are downloaded, by the name that ``common.data.prepare`` has for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...sequences import SEQUENCES
from ..checks import unusual_ct, unusual_film, unusual_mr
from . import abdomen, brain, chest, glioma, kidney, liver, pancreas
from .scans import Scan


@dataclass(frozen=True)
class Source:
    """What is to be known of a data set before any of its files is read.

    Attributes:
        name: of the data set.
        find: returns its cases; takes the folder and ``options``.
        organ: that it shows.
        description: of what is written, for its ``dataset.json``, with ``{organ}`` and options to be filled in.
        modality: of each channel, unless there are ``sequences`` among the options.
        masks: which are written.
        unusual: returns what is to be warned of in an image that can be used.
        slices: whether a case has slices, healthy ones and others; else it is an image that is one or the other.
        options: of ``prepare``, those that are for this data set alone.
        fractions: of its patients for training, validation and testing, unless others are asked for.
    """

    name: str
    find: Callable[..., list[Scan]]
    organ: str
    description: str
    modality: tuple[str, ...]
    masks: tuple[str, ...] = ("organ", "label")
    unusual: Callable[[NDArray[np.float32], NDArray[np.float64]], list[str]] = lambda voxels, affine: []
    slices: bool = True
    options: tuple[str, ...] = ()
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)


_CT = partial(
    Source,
    description="CT in HU; organ: the {organ} with its lesions, label: the lesions.",
    modality=("CT",),
    unusual=unusual_ct,
)
_MR = partial(
    Source,
    description="MR of the {organ}; label: 1 necrotic or non-enhancing core, 2 oedema, 3 enhancing tumour.",
    modality=tuple(SEQUENCES),
    masks=("label",),
    unusual=unusual_mr,
)
_ABDOMEN = partial(
    Source,
    description="T2-SPIR MR of the {organ}; label: {structure}, which stand for what is looked for.",
    modality=("T2-SPIR",),
    masks=("label",),
    options=("structure",),
)
_FILM = partial(
    Source,
    description="Frontal X-rays of the {organ}; image_label: 0 No Finding, 1 {finding}.",
    modality=("X-ray",),
    unusual=unusual_film,
    masks=(),
    slices=False,
    options=("finding", "views"),
)

SOURCES = {
    "lits": _CT("LiTS", liver.find_lits, liver.ORGAN, options=("exclude_ircad",)),
    "msd_liver": _CT("MSD Task03_Liver", liver.find_msd_liver, liver.ORGAN),
    "ircad": _CT("3D-IRCADb-01", liver.find_ircad, liver.ORGAN, fractions=(0, 0, 1)),
    "nifti": _CT("CT in NIfTI", liver.find_nifti, liver.ORGAN),
    "dicom": _CT("CT in DICOM", liver.find_dicom, liver.ORGAN),
    "brats": _MR("BraTS", brain.find_brats, "brain"),
    "msd_brain": _MR("MSD Task01_BrainTumour", brain.find_msd_brain, "brain"),
    "kaggle_3m": Source(
        "LGG segmentation (kaggle_3m)",
        glioma.find_kaggle_3m,
        "brain",
        description="MR of the {organ}, sizes of voxels nominal; label: 1 where FLAIR is abnormal.",
        modality=("t1", "t1ce", "flair"),
        masks=("label",),
        unusual=unusual_mr,
        options=("sequences", "brain_masks", "with_skull"),
    ),
    "msd_pancreas": _CT("MSD Task07_Pancreas", pancreas.find_msd_pancreas, pancreas.ORGAN),
    "kits": _CT("KiTS", kidney.find_kits, kidney.ORGAN),
    "chaos": _ABDOMEN("CHAOS", abdomen.find_chaos, "abdomen"),
    "chexpert": _FILM("CheXpert", chest.find_chexpert, "chest"),
    "nih": _FILM("NIH ChestX-ray14", chest.find_nih, "chest"),
}
