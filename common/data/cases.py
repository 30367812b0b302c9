"""The cases of a run: what lies in a data set, a folder or a file, checked before anything is computed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import ensure_tuple
from numpy.typing import NDArray

from ..files import BadFileError, Failures, printable
from ..progress import bar
from ..sequences import SEQUENCES
from ..transforms.slices import axial_axis, read_slice_labels
from .checks import (
    check_ct,
    check_film,
    check_mr,
    check_same_grid,
    coarse,
    refuse_other_values,
    unusual_ct,
    unusual_film,
    unusual_mr,
)
from .dicom import read_series, series_in
from .listing import found_items
from .names import check_name, twins_of
from .reading import FILM_AFFINE, affine_of, is_film, read_film, read_image, read_nifti, unusual_header

logger = logging.getLogger(__name__)


def list_cases(
    dataset_dir: str,
    split: str = "testing",
    organ_source: str = "auto",
    failures: Failures | None = None,
    check: bool = True,
    progress: bool = True,
    modality: str = "ct",
    required: Sequence[str] = (),
    sequences: Sequence[str] | None = SEQUENCES,
    label_values: Mapping[str, str] | None = None,
    regions: Sequence[Sequence[int]] | None = None,
    voxel_mm: Sequence[float] | None = None,
    organ_path: str | None = None,
    organ_labels: int | Sequence[int] | None = None,
    lesions: bool = True,
    num_classes: int = 2,
) -> list[dict[str, Any]]:
    """Return the items of a run: ``case``, ``image``, and where they are known ``organ``, ``label``, ``patient``.

    A ``point`` marks a lesion that nobody has outlined: its world coordinates in mm, to the patient's right, front and
    head, as a NIfTI's affine gives them. ``remarks`` is what is unusual in a case that can be used, in words, and
    ``organ_from`` where its organ's mask comes from, unless a run finds it by itself.

    Args:
        dataset_dir: a folder with ``dataset.json`` (Medical Segmentation Decathlon form), a CSV, see ``data.sites``,
            one file, or a folder of files, of DICOM series and of such folders. Without ``dataset.json`` all images are
            cases of any split; their masks are beside them, ``<case>_liver`` or ``<case>_organ``, ``<case>_label``,
            ``<case>_wanted``. For MR, files of a folder whose names differ in the sequence are the channels of one
            case, see ``sequence_in``.
        split: ``training``, ``validation`` or ``testing``, or another list of ``dataset.json``.
        organ_source: ``file`` demands an organ mask for each case, ``network`` and ``totalsegmentator`` ignore those
            there are, ``auto`` takes what there is.
        failures: where bad cases are recorded; without it the first one raises.
        check: read every file and check it; false trusts them.
        progress: show a progress bar while checking.
        modality: ``ct``; ``mr``, each sequence in a file of its own, or all in one; or ``xray``, PNG, JPEG or NPY.
        required: cases without one of these keys are left out.
        sequences: of MR of the brain, those that make up the image, in this order; others that a case has are left out.
            None takes each file for an image, of any part of the body.
        label_values: the values of a label that a run understands, but for 0, and what they are; None takes any.
        regions: values of the regions that a run tells apart, see ``Regionsd``.
        voxel_mm: of the images that the weights learned from, mm; cases that are much coarser are remarked on.
        organ_path: an organ mask for all cases, instead of those that they have.
        organ_labels: values of organ masks that are the organ, for masks of several; None takes 1.
        lesions: false refuses cases whose labels show some.
        num_classes: that an ``image_label`` may be of.

    Raises:
        FileNotFoundError: if there is no case at all.
        BadFileError: for the first bad case, without ``failures``.
        ValueError: if ``dataset.json`` is malformed or names other sequences or labels, or ``organ_source``,
            ``modality`` or a sequence is unknown.
    """
    if modality not in READERS:
        raise ValueError(f"modality must be one of {', '.join(READERS)}, got {modality!r}.")
    if organ_source not in ("auto", "file", "network", "totalsegmentator"):
        raise ValueError(f"organ_source must be auto, file, network or totalsegmentator, got {organ_source!r}.")
    if not set(sequences or ()) <= set(SEQUENCES):
        raise ValueError(f"sequences must be some of {', '.join(SEQUENCES)}, got {', '.join(sequences or ())}.")
    items = found_items(Path(dataset_dir), split, modality, sequences, label_values, regions)
    if not items:
        raise FileNotFoundError(f"{dataset_dir}: expected {split} cases, got none{_instead(Path(dataset_dir))}.")
    if required:
        items = [item for item in items if all(key in item for key in required)]
        logger.info(f"{len(items)} {split} cases have {', '.join(required)}; others are left out.")
        if not items:
            raise FileNotFoundError(f"{dataset_dir}: expected {split} cases with {', '.join(required)}, got none.")
    kept, record = [], failures or Failures(keep=False)
    twins = twins_of((item["case"], ensure_tuple(item["image"])[0]) for item in items)
    for item in bar(items, desc="checking files", shown=check and progress):
        if organ_path is not None:
            item["organ"] = organ_path
        if organ_source in ("network", "totalsegmentator"):
            item.pop("organ", None)
        with record.recording(item["case"], "checking its files"):
            _refuse_item(item, twins, organ_source)
            expected = (sequences, label_values, voxel_mm, organ_labels, lesions, num_classes)
            remarks = check_item(item, modality, *expected) if check else []
            for remark in remarks:
                logger.warning(f"{item['case']}: {printable(remark, 400)}.")
            if "organ" in item or organ_source == "totalsegmentator":
                item["organ_from"] = "mask from a file" if "organ" in item else "found by TotalSegmentator"
            kept.append({**item, "remarks": "; ".join(remarks)} if remarks else item)
    with_organ = sum("organ" in item for item in kept)
    logger.info(f"{len(kept)} {split} cases" + (f", {with_organ} with a mask of the organ" if with_organ else ""))
    return kept


def _instead(source: Path) -> str:
    """Return what there is where no case is, a clause."""
    if (source / "dataset.json").is_file():
        return ", as that list of its dataset.json is empty"
    files = sorted(path.name for path in source.rglob("*") if path.is_file())
    return f", but {len(files)} files: {printable(', '.join(files[:5]))}" if files else ", and no file at all"


def _refuse_item(item: Mapping[str, Any], twins: Mapping[str, Sequence[str]], organ_source: str) -> None:
    """Refuse what is wrong with an item before its files are read."""
    check_name(item["case"])
    if item["case"] in twins:
        raise BadFileError(
            f"{ensure_tuple(item['image'])[0]}: expected a case of a name of its own, got {item['case']!r} for all of "
            f"{', '.join(twins[item['case']])}; give each a 'case' of its own in dataset.json."
        )
    if "refused" in item:
        raise BadFileError(item["refused"])
    if organ_source == "file" and "organ" not in item:
        raise BadFileError(f"{item['image']}: expected an organ mask beside it or in dataset.json, got none.")


def check_item(
    item: Mapping[str, Any],
    modality: str = "ct",
    sequences: Sequence[str] | None = SEQUENCES,
    label_values: Mapping[str, str] | None = None,
    voxel_mm: Sequence[float] | None = None,
    organ_labels: int | Sequence[int] | None = None,
    lesions: bool = True,
    num_classes: int = 2,
) -> list[str]:
    """Check the files of a case and return what is unusual in them, a clause for each thing, see ``list_cases``.

    Raises:
        BadFileError: for the first file that cannot be used, another class than there are, or a point elsewhere.
    """
    images = [Path(image) for image in ensure_tuple(item["image"])]
    shape, affine, remarks = READERS[modality](images, item, sequences, voxel_mm)
    for key in ("organ", "label", "wanted"):
        if key not in item:
            continue
        if modality == "xray":
            mask = read_film(item[key])
            if mask.shape != tuple(shape):
                raise BadFileError(f"{item[key]}: expected the size of {images[0]}, {shape}, got {mask.shape}.")
        else:
            mask = check_same_grid(shape, affine, item[key], images[0])
        if key == "organ" and organ_labels is not None:
            mask = np.isin(mask, ensure_tuple(organ_labels)).astype(mask.dtype)
        elif key == "organ" or label_values is not None:
            values = [1] if key == "organ" else [int(value) for value in label_values or ()]
            refuse_other_values(mask, (0, *values), item[key], WAYS_OUT[key])
        if key == "organ" and not np.any(mask > 0):
            named = "" if organ_labels is None else f" (organ_labels {organ_labels})"
            raise BadFileError(f"{item[key]}: expected a mask of the organ{named}, got an empty one.")
        if key == "label" and not lesions and np.any(mask > 0):
            raise BadFileError(
                f"{item[key]}: expected a scan without tumours, got {np.count_nonzero(mask > 0)} voxels of them; "
                "set allow_tumours to True to add others."
            )
    if "twin" in item:
        check_same_grid(shape, affine, item["twin"], images[0])
    if "slice_labels" in item:
        _check_tags(item["slice_labels"], shape, affine)
    if item.get("point") is not None and not _lies_within(item["point"], shape, affine):
        raise BadFileError(f"{images[0]}: expected a point in the image, x, y and z in mm, got {item['point']!r}.")
    if item.get("image_label") not in (None, *range(num_classes)):
        classes = "0 or 1" if num_classes == 2 else f"0 to {num_classes - 1}"
        raise BadFileError(f"{images[0]}: expected an image_label of {classes}, got {item['image_label']!r}.")
    return remarks


def _check_tags(path: str, shape: Sequence[int], affine: NDArray[np.float64]) -> None:
    """Check that a CSV gives classes to slices that there are."""
    axis = axial_axis(affine, len(shape))
    count = 1 if axis is None else shape[axis]
    try:
        last = max(read_slice_labels(path), default=0)
    except ValueError as error:
        raise BadFileError(str(error)) from error
    if last >= count:
        raise BadFileError(f"{path}: expected slices of {count}, got number {last}.")


WAYS_OUT = {
    "organ": "write the organ and its lesions as 1, all else as 0",
    "label": "`python -m common.data.prepare` writes such labels, or set label_values to all that are lesions",
    "wanted": "write what a label would have where a lesion is wanted, else 0",
}
"""What to do about a mask of other values."""


def _lies_within(point: Any, shape: Sequence[int], affine: NDArray[np.float64]) -> bool:
    """Return whether a point is three numbers, world coordinates in mm of a voxel of the grid."""
    numbers = isinstance(point, list) and len(point) == 3 and all(isinstance(x, int | float) for x in point)
    if not (numbers and np.isfinite(point).all()):
        return False
    voxel = (np.linalg.inv(affine) @ [*point, 1])[:3]
    return bool(np.all((voxel >= -0.5) & (voxel <= np.array([*shape, 1])[:3] - 0.5)))


Checked = tuple[tuple[int, ...], NDArray[np.float64], list[str]]
"""Shape, affine, and what is unusual."""


def _check_ct(images: Sequence[Path], item: Mapping[str, Any], sequences: Any, voxel_mm: Any) -> Checked:
    image = images[0]
    if len(images) > 1:
        raise BadFileError(f"{image}: expected a CT of one channel, got {len(images)} files.")
    if image.is_dir():
        voxels, affine = read_series(image)
        remarks = []
    else:
        voxels, affine = read_nifti(image)
        check_ct(voxels, image)
        remarks = unusual_header(image)
    return voxels.shape, affine, [*remarks, *unusual_ct(voxels, affine), *coarse(affine, voxels.ndim, voxel_mm)]


def _check_mr(
    images: Sequence[Path], item: Mapping[str, Any], sequences: Sequence[str] | None, voxel_mm: Sequence[float] | None
) -> Checked:
    """Check sequences, in as many files or in one."""
    expected = ("an image",) if sequences is None else sequences
    first, names = images[0], ", ".join(path.name for path in images)
    if len(images) != 1 and len(images) != len(expected):
        raise BadFileError(f"{first}: expected {', '.join(expected)} in {len(expected)} files or one, got {names}.")
    voxels, affine = read_image(first)
    grid, remarks = voxels.shape[:3], [*unusual_header(first), *([item["doubt"]] if "doubt" in item else [])]
    if voxels.ndim > 3:
        if len(images) > 1 or voxels.ndim > 4:
            raise BadFileError(f"{first}: expected one volume, got {voxels.ndim} axes of {voxels.shape}.")
        picked = item.get("channels", range(len(expected)))
        if max(picked) >= voxels.shape[3] or ("channels" not in item and voxels.shape[3] != len(expected)):
            raise BadFileError(f"{first}: expected volumes of {', '.join(expected)}, got {voxels.shape[3]} volumes.")
        channels = [(f"volume {i}", voxels[..., i]) for i in picked]
        if "channels" not in item and sequences is not None:
            remarks.append(
                f"its volumes are taken for {', '.join(expected)}, as no modality in dataset.json names them"
            )
    elif len(images) != len(expected):
        raise BadFileError(f"{first}: expected {', '.join(expected)} in {len(expected)} files or one, got {names}.")
    else:
        twins = len({path.name for path in images}) < len(images)
        shown = [f"{path.parent.name}/{path.name}" if twins else path.name for path in images]
        others = [check_same_grid(grid, affine, path, first) for path in images[1:]]
        channels = list(zip(shown, [voxels, *others], strict=True))
    unlike: dict[str, list[str]] = {}
    for i, (name, channel) in enumerate(channels):
        check_mr(channel, images[i] if len(images) > 1 else first)
        for clause in [] if sequences is None else unusual_mr(channel, affine):
            unlike.setdefault(clause, []).append(name)
    for (one, voxels), (other, same) in combinations(channels, 2):
        if np.array_equal(voxels, same):
            remarks.append(f"{one} and {other} hold the same voxels, as if one had been copied over the other")
    which = {clause: f" ({', '.join(those)})" if len(channels) > 1 else "" for clause, those in unlike.items()}
    remarks += [f"{clause}{those}" for clause, those in which.items()]
    return grid, affine, [*remarks, *coarse(affine, len(grid), voxel_mm)]


def _check_film(images: Sequence[Path], item: Mapping[str, Any], sequences: Any, voxel_mm: Any) -> Checked:
    if len(images) > 1:
        raise BadFileError(f"{images[0]}: expected one X-ray, got {len(images)} files.")
    pixels = read_film(images[0])
    check_film(pixels, images[0])
    return pixels.shape, FILM_AFFINE, unusual_film(pixels, FILM_AFFINE)


READERS: dict[str, Callable[..., Checked]] = {"ct": _check_ct, "mr": _check_mr, "xray": _check_film}
"""By modality what checks the images of a case."""


def with_healthy_slices(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cases that have an axial slice without lesions, or of which nothing is known; name the others."""
    kept = []
    for item in items:
        if _classes_in(item) == {True}:
            logger.warning(f"{item['case']}: left out, as no slice of it is known to have no lesions.")
            continue
        kept.append(item)
    return kept


def with_lesions(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cases whose labels show lesions."""
    return [item for item in items if "label" in item and True in _classes_in(item)]


def tell_healthy(
    items: Sequence[dict[str, Any]], both: bool, healthy: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return cases with labels, each with whether it is ``healthy``: nothing in it is labelled as a tumour.

    Args:
        items: cases; those without a label are left out, unless their ``image_label`` and an organ mask say enough.
        both: labels are 1 in the organ and 2 in its tumours, not 1 in tumours.
        healthy: further cases, that have an organ mask and no tumours.
    """
    lowest, told = 2 if both else 1, []
    for item in items:
        if "label" in item:
            told.append({**item, "healthy": not (read_nifti(item["label"])[0] >= lowest).any()})
        elif item.get("image_label") == 0 and "organ" in item:
            told.append({**item, "healthy": True})
    return told + [{**item, "healthy": True} for item in healthy if "organ" in item or "label" in item]


def with_both_classes(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cases as they are, if there are healthy slices or films among them, and diseased ones.

    Raises:
        ValueError: if all are of one class, of which no network can learn what differs.
    """
    seen: set[bool] = set()
    for item in items:
        seen |= _classes_in(item)
        if len(seen) == 2:
            return list(items)
    found = "diseased" if True in seen else "healthy"
    raise ValueError(f"expected healthy and diseased slices to train on, got {found} ones alone in {len(items)} cases.")


def _classes_in(item: Mapping[str, Any]) -> set[bool]:
    """Return whether there are diseased slices, and whether there are healthy ones; see ``SliceClassesd``."""
    if "label" in item:
        if is_film(Path(item["label"])):
            return {bool(read_film(item["label"]).any())}
        mask, affine = read_nifti(item["label"])
        axis = axial_axis(affine, mask.ndim)
        slices: Any = np.atleast_3d(mask) if axis is None else np.moveaxis(mask, axis, -1)
        return set((slices > 0).any((0, 1)).tolist())
    if "slice_labels" in item:
        tags = read_slice_labels(item["slice_labels"])
        not_listed = _num_slices(Path(ensure_tuple(item["image"])[0])) > len(tags)
        return {tag == 1 for tag in tags.values()} | ({False} if not_listed else set())
    return {item["image_label"] == 1} if "image_label" in item else set()


def _num_slices(image: Path) -> int:
    """Return how many axial slices a file or a folder of DICOM has, from headers alone."""
    if image.is_dir():
        return max(len(files) for files in series_in(image).values())
    header: Any = nib.load(image)
    axis = axial_axis(affine_of(header), len(header.shape[:3]))
    return 1 if axis is None else int(header.shape[axis])


def shard(items: list[dict[str, Any]], rank: int, world_size: int) -> list[dict[str, Any]]:
    """Return the items that one of several processes works on: every ``world_size``-th, perhaps none."""
    return items[rank::world_size]
