"""MR of low-grade glioma as it lies on Kaggle: slices of three sequences in TIFF, the skull still on.

Labels are 1 where FLAIR is abnormal. Every patient has a tumour.
"""

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from PIL import Image

from ...files import BadFileError
from ..checks import check_mr, check_same_grid
from .scans import Channel, Scan, Volume, not_empty, some

CHANNELS = {"t1": 0, "flair": 1, "t1ce": 2}
"""Which channel of a slice is which; one that was not made is a copy of FLAIR."""

VOXEL_MM = (0.9375, 0.9375, 5.0)
"""Nominal: the files do not say."""

AFFINE = np.diag([-VOXEL_MM[0], -VOXEL_MM[1], VOXEL_MM[2], 1.0])
"""Columns lead to the patient's left, rows to the back, slices to the head."""

logger = logging.getLogger(__name__)


def find_kaggle_3m(src: Path, sequences: Sequence[str], brain_masks: str | None, with_skull: bool) -> list[Scan]:
    """Return the patients of kaggle_3m whose sequences are all there.

    Args:
        src: the folder with ``TCGA_*/TCGA_*_<n>.tif`` and ``TCGA_*_<n>_mask.tif``, or the one it lies in.
        sequences: of ``t1``, ``t1ce`` and ``flair``, those that are wanted, in their order.
        brain_masks: folder with ``<case>.nii.gz``, 1 in the brain, on the grid of the images that are written; HD-BET
            makes such masks of those with a skull.
        with_skull: leave the images as they are.

    Raises:
        FileNotFoundError: if there is no such patient.
        ValueError: if there are no masks, or sequences that are not there.
    """
    sequences = ensure_tuple(sequences)
    if not sequences or set(sequences) - CHANNELS.keys():
        raise ValueError(f"sequences must be some of {', '.join(CHANNELS)}, got {', '.join(sequences) or 'none'}.")
    expected = f"TCGA_*/TCGA_*_<n>.tif with {', '.join(sequences)}"
    folders = some(sorted({path.parent for path in src.rglob("TCGA_*_*.tif")}), src, expected)
    if with_skull == (brain_masks is not None):
        raise ValueError(
            "brain_masks must be a folder of masks of the brain, <case>.nii.gz, as these images have a skull, or "
            f"with_skull be true, which writes them as they are, for HD-BET; got {brain_masks} and {with_skull}."
        )
    scans = []
    for folder in folders:
        slices = _slices(folder)
        if absent := [name for name in _copies(slices) if name in sequences]:
            logger.info(f"{folder.name} is left out: it has no {' and no '.join(absent)}.")
            continue
        case, mask = folder.name, None if brain_masks is None else Path(brain_masks) / f"{folder.name}.nii.gz"
        patient = "_".join(case.split("_")[:3])
        scans.append(Scan(case, patient, partial(_read, slices, sequences, mask), site=case.split("_")[1]))
    return some(scans, src, expected)


def _slices(folder: Path) -> list[Path]:
    """Return the slices of a patient in their order, without the masks."""
    matches = [(re.fullmatch(r".*_(\d+)\.tif", path.name), path) for path in folder.glob("*.tif")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]


def _copies(slices: Sequence[Path]) -> list[str]:
    """Return the sequences that are copies of FLAIR in the middle of a stack; what is wrong with it, reading says."""
    try:
        pixels = _pixels(slices[len(slices) // 2]) if slices else np.empty(0, dtype=np.uint8)
    except BadFileError:
        return []
    if pixels.ndim != 3 or pixels.shape[2] != len(CHANNELS):
        return []
    flair = pixels[..., CHANNELS["flair"]]
    return [name for name, channel in CHANNELS.items() if name != "flair" and (pixels[..., channel] == flair).all()]


def _read(slices: Sequence[Path], sequences: Sequence[str], mask: Path | None) -> Volume:
    if not slices:
        raise BadFileError("expected slices, TCGA_*_<n>.tif, got masks alone.")
    folder = slices[0].parent
    stack = [_pixels(path) for path in slices]
    sizes = {pixels.shape for pixels in stack}
    if len(sizes) > 1 or len(stack[0].shape) != 3 or stack[0].shape[2] != len(CHANNELS):
        raise BadFileError(f"{folder}: expected slices of one size with three channels, got {sorted(sizes)}.")
    volume = np.stack(stack).astype(np.float32).transpose(2, 1, 0, 3)
    labels = [_pixels(path.with_name(f"{path.stem}_mask.tif")) for path in slices]
    label = np.stack([pixels.reshape(*pixels.shape[:2], -1)[..., 0] for pixels in labels]).transpose(2, 1, 0) > 0
    if label.shape != volume.shape[:3]:
        raise BadFileError(f"{folder}: expected masks of the images' size {volume.shape[:3]}, got {label.shape}.")
    brain = np.ones(label.shape, dtype=bool)
    if mask is not None:
        brain = not_empty(check_same_grid(label.shape, AFFINE, mask, folder) > 0, "brain", mask)
    channels = []
    for name in sequences:
        voxels = np.where(brain, volume[..., CHANNELS[name]], 0)
        check_mr(voxels, f"{folder}, {name}")
        channels.append(Channel(voxels, None, f"_{name}"))
    return Volume(tuple(channels), AFFINE, brain, (label & brain).astype(np.uint8), diseased=True)


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except OSError as error:
        raise BadFileError(f"{path}: expected a picture, got a file that cannot be read ({error}).") from error
