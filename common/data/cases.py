"""The cases of a run: what lies in a data set, a folder or a file, checked before anything is computed."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import load_decathlon_datalist, partition_dataset
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from tqdm import tqdm

from ..files import Failures
from ..sequences import SEQUENCES
from ..transforms.channels import FILMS, image_stem
from ..transforms.slices import axial_axis, read_slice_labels
from .checks import (
    FILM_AFFINE,
    BadFileError,
    check_ct,
    check_film,
    check_mr,
    check_same_grid,
    is_film,
    read_film,
    read_nifti,
    read_nifti_channels,
    refuse_twins,
    unusual_mr,
)
from .dicom import read_series, series_in

MASK_SUFFIXES = ("_liver", "_organ", "_label", "_wanted")
"""File names that end so hold masks of a case, not cases."""

PATHS = ("image", "organ", "label", "wanted", "slice_labels")
"""What is a path in an item of ``dataset.json``; the image may be a list of them."""

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
    sequences: Sequence[str] | None = tuple(SEQUENCES),
) -> list[dict[str, Any]]:
    """Return the items of a run: ``case``, ``image``, and where they are known ``organ``, ``label``, ``patient``.

    A ``point`` marks a lesion that nobody has outlined: its world coordinates in mm, to the patient's right, front and
    head, as a NIfTI's affine gives them.

    Args:
        dataset_dir: a folder with ``dataset.json`` (Medical Segmentation Decathlon form), one file, a folder of files,
            one DICOM series or a folder of DICOM series. Without ``dataset.json`` all images are cases of any split;
            their masks are beside them, ``<case>_liver`` or ``<case>_organ``, ``<case>_label``, ``<case>_wanted``. For
            MR, files whose names differ in one of the words of ``SEQUENCES`` are the channels of one case; they may lie
            in folders of the folder.
        split: ``training``, ``validation`` or ``testing``.
        organ_source: ``file`` demands an organ mask for each case, ``network`` and ``totalsegmentator`` ignore those
            there are, ``auto`` takes what there is.
        failures: where bad cases are recorded; without it the first one raises.
        check: read every file and check it; false trusts them.
        progress: show a progress bar while checking.
        modality: ``ct``; ``mr``, each sequence in a file of its own, or all in one; or ``xray``, PNG, JPEG or NPY.
        required: cases without one of these keys are left out.
        sequences: of MR of the brain, those that make up the image, in this order; others that a case has are left out.
            None takes each file for an image, of any part of the body.

    Raises:
        FileNotFoundError: if there is no case at all.
        BadFileError: for the first bad case, without ``failures``.
        ValueError: if two cases have the same name, ``dataset.json`` is malformed, or ``organ_source``, ``modality`` or
            a sequence is unknown.
    """
    if modality not in READERS:
        raise ValueError(f"modality must be one of {', '.join(READERS)}, got {modality!r}.")
    if organ_source not in ("auto", "file", "network", "totalsegmentator"):
        raise ValueError(f"organ_source must be auto, file, network or totalsegmentator, got {organ_source!r}.")
    if not set(sequences or ()) <= set(SEQUENCES):
        raise ValueError(f"sequences must be some of {', '.join(SEQUENCES)}, got {', '.join(sequences or ())}.")
    items = [_named(item) for item in _found(Path(dataset_dir), split, modality, sequences)]
    if not items:
        raise FileNotFoundError(f"{dataset_dir}: expected {split} cases, got none.")
    found = ((item["case"], item["image"]) for item in items)
    refuse_twins(found, "give them a 'case' of their own in dataset.json")
    if required:
        items = [item for item in items if all(key in item for key in required)]
        logger.info(f"{len(items)} {split} cases have {', '.join(required)}; others are left out.")
        if not items:
            raise FileNotFoundError(f"{dataset_dir}: expected {split} cases with {', '.join(required)}, got none.")
    kept = []
    for item in tqdm(items, desc="checking files", disable=not (check and progress), leave=False):
        if organ_source in ("network", "totalsegmentator"):
            item.pop("organ", None)
        try:
            if organ_source == "file" and "organ" not in item:
                raise BadFileError(f"{item['image']}: expected an organ mask beside it or in dataset.json, got none.")
            if check:
                check_item(item, modality, sequences)
        except BadFileError as error:
            if failures is None:
                raise
            failures.add(item["case"], str(error))
            continue
        logger.info(f"{item['case']}: organ from {'file ' + str(item['organ']) if 'organ' in item else organ_source}")
        kept.append(item)
    return kept


def check_item(item: dict[str, Any], modality: str = "ct", sequences: Sequence[str] | None = tuple(SEQUENCES)) -> None:
    """Check the files of a case.

    Raises:
        BadFileError: for the first file that cannot be used, a class that is not 0 or 1, or a point elsewhere.
    """
    images = [Path(image) for image in ensure_tuple(item["image"])]
    shape, affine = _check_mr(images, sequences) if modality == "mr" else READERS[modality](images)
    for key in ("organ", "label", "wanted"):
        if key not in item:
            continue
        if modality == "xray":
            mask = read_film(item[key])
            if mask.shape != tuple(shape):
                raise BadFileError(f"{item[key]}: expected the size of {images[0]}, {shape}, got {mask.shape}.")
        else:
            mask = check_same_grid(shape, affine, item[key], images[0])
        if key == "organ" and not np.any(mask > 0):
            raise BadFileError(f"{item[key]}: expected a mask of the organ, got an empty one.")
    if item.get("point") is not None and not _lies_within(item["point"], shape, affine):
        raise BadFileError(f"{images[0]}: expected a point in the image, x, y and z in mm, got {item['point']!r}.")
    if item.get("image_label") not in (None, 0, 1):
        raise BadFileError(f"{images[0]}: expected an image_label of 0 or 1, got {item['image_label']!r}.")


def _lies_within(point: Any, shape: Sequence[int], affine: NDArray[np.float64]) -> bool:
    """Return whether a point is three numbers, world coordinates in mm of a voxel of the grid."""
    if not (isinstance(point, list) and len(point) == 3 and all(isinstance(x, int | float) for x in point)):
        return False
    voxel = (np.linalg.inv(affine) @ [*point, 1])[:3]
    return bool(np.all((voxel >= -0.5) & (voxel <= np.array([*shape, 1])[:3] - 0.5)))


Grid = tuple[tuple[int, ...], NDArray[np.float64]]
"""Shape and affine."""


def _check_ct(images: Sequence[Path]) -> Grid:
    image = images[0]
    if len(images) > 1:
        raise BadFileError(f"{image}: expected a CT of one channel, got {len(images)} files.")
    if image.is_dir():
        voxels, affine = read_series(image)
    else:
        voxels, affine = read_nifti(image)
        check_ct(voxels, image)
    return voxels.shape, affine


def _check_mr(images: Sequence[Path], sequences: Sequence[str] | None) -> Grid:
    """Check sequences, in as many files or in one; warn where they are unlike those that networks learn from."""
    expected = ("an image",) if sequences is None else sequences
    first, count = images[0], len(expected)
    if len(images) == 1 < count:
        stacked, affine = read_nifti_channels(first, count)
        channels = [(first, stacked[..., i]) for i in range(count)]
    elif len(images) == count:
        voxels, affine = read_nifti(first)
        others = [(path, check_same_grid(voxels.shape, affine, path, first)) for path in images[1:]]
        channels = [(first, voxels), *others]
    else:
        names = ", ".join(path.name for path in images)
        raise BadFileError(f"{first}: expected {', '.join(expected)} in {count} files or one, got {names}.")
    for path, voxels in channels:
        check_mr(voxels, path)
    for clause in [] if sequences is None else unusual_mr(channels[0][1], affine):
        logger.warning(f"{first}: {clause}.")
    return channels[0][1].shape, affine


def _check_film(images: Sequence[Path]) -> Grid:
    if len(images) > 1:
        raise BadFileError(f"{images[0]}: expected one X-ray, got {len(images)} files.")
    pixels = read_film(images[0])
    check_film(pixels, images[0])
    return pixels.shape, FILM_AFFINE


READERS: dict[str, Callable[..., Grid]] = {"ct": _check_ct, "mr": _check_mr, "xray": _check_film}
"""By modality what checks the images of a case; of MR it wants to know the sequences."""


def with_healthy_slices(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cases that have an axial slice without lesions, and name the others."""
    kept = []
    for item in items:
        if "label" in item and _classes_in(item) == {True}:
            logger.warning(f"{item['case']}: left out, as there are lesions in each of its slices.")
            continue
        kept.append(item)
    return kept


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
        shown: Any = np.atleast_3d(np.asarray(nib.as_closest_canonical(nib.load(item["label"])).dataobj) > 0)
        return set(shown.any((0, 1)).tolist())
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
    axis = axial_axis(header.affine, len(header.shape[:3]))
    return 1 if axis is None else int(header.shape[axis])


def shard(items: list[dict[str, Any]], rank: int, world_size: int) -> list[dict[str, Any]]:
    """Return the items that one of several processes works on: every ``world_size``-th.

    Raises:
        ValueError: if there are fewer items than processes, as one without work would keep the others waiting.
    """
    if len(items) < world_size:
        raise ValueError(f"expected a case at least for each of {world_size} processes, got {len(items)} cases.")
    return partition_dataset(items, num_partitions=world_size, shuffle=False, even_divisible=False)[rank]


def _found(source: Path, split: str, modality: str, sequences: Sequence[str] | None) -> list[dict[str, Any]]:
    if not source.exists():
        raise FileNotFoundError(f"{source}: expected a data set, a folder or a file, got nothing there.")
    if (source / "dataset.json").is_file():
        items = _items_of_dataset(source / "dataset.json", split)
        return items if sequences is None else [_with_sequences(item, sequences) for item in items]
    if source.is_file():
        return [_with_masks(source)]
    images = _images_in(source, modality)
    if modality == "mr" and sequences is not None:
        return _grouped_by_sequence(
            images or [path for folder in _folders_in(source) for path in _images_in(folder, modality)], sequences
        )
    if images or modality == "xray":
        return [_with_masks(path) for path in images]
    folders = [source, *_folders_in(source)]
    return [{"image": str(folder), "case": _folder_name(folder, source)} for folder in folders if _holds_dicom(folder)]


def _images_in(folder: Path, modality: str) -> list[Path]:
    """Return the files in a folder that hold images, not masks."""
    endings = FILMS if modality == "xray" else (".nii", ".nii.gz")
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    readable = (path for path in files if path.name.lower().endswith(endings))
    return [path for path in readable if not image_stem(path).endswith(MASK_SUFFIXES)]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_dir())


def _with_sequences(item: dict[str, Any], sequences: Sequence[str]) -> dict[str, Any]:
    """Return an item of ``dataset.json`` with some of its sequences, if it has a file for each."""
    images = ensure_tuple(item["image"])
    if len(images) != len(SEQUENCES) or tuple(sequences) == tuple(SEQUENCES):
        return item
    by_name = dict(zip(SEQUENCES, images, strict=True))
    return {**item, "image": [by_name[sequence] for sequence in sequences]}


def _grouped_by_sequence(images: Sequence[Path], sequences: Sequence[str]) -> list[dict[str, Any]]:
    """Return a case for all files whose names differ in the sequence alone; a name without one is a case of its own.

    Where a name says ``seg`` in a sequence's place, the file is the label, as in BraTS.

    Raises:
        ValueError: if a case has a sequence twice.
    """
    words = {word: sequence for sequence, aliases in SEQUENCES.items() for word in aliases} | {"seg": "label"}
    pattern = re.compile(rf"[-_. ]?(?<![a-z0-9])({'|'.join(words)})(?![a-z0-9])", re.IGNORECASE)
    cases: dict[str, dict[str, Path]] = {}
    for path in images:
        found = pattern.search(image_stem(path))
        case = pattern.sub("", image_stem(path), count=1).strip("-_. ") if found else image_stem(path)
        sequence = words[found[1].lower()] if found else "all"
        other = cases.setdefault(case, {}).setdefault(sequence, path)
        if other != path:
            raise ValueError(f"{path}: expected one file of {sequence} in the case {case!r}, got also {other}.")
    items = []
    for case, files in cases.items():
        label = {"label": str(files["label"])} if "label" in files else {}
        known = [files[sequence] for sequence in SEQUENCES if sequence in files]
        if "all" in files or not known:
            items.append({**_with_masks(files.get("all") or files["label"]), **label})
            continue
        absent = known[0].with_name(pattern.sub(lambda m: m[0].replace(m[1], sequences[0]), known[0].name, count=1))
        channels = [files[sequence] for sequence in sequences if sequence in files] or [absent]
        masks = _with_masks(channels[0].with_name(f"{case}.nii.gz"))
        items.append({**masks, **label, "case": case, "image": [str(path) for path in channels]})
    return items


def _items_of_dataset(path: Path, split: str) -> list[dict[str, Any]]:
    """Return the items of ``dataset.json`` as they are written there, with paths that start at its folder."""
    try:
        joined = load_decathlon_datalist(path, data_list_key=split)
        items = json.loads(path.read_text())[split]
    except (ValueError, TypeError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{path}: expected JSON with a list {split!r}, got {reason}.") from error
    for item in items:
        images = item.get("image") or None
        files = [*(images if isinstance(images, list) else [images]), *(item[k] for k in PATHS[1:] if k in item)]
        if not all(isinstance(file, str) for file in files):
            raise ValueError(f"{path}: expected items whose image and masks are paths, got {item}.")
    # MONAI joins whatever exists in the folder, also the name of a case, a patient or a site.
    return [{**item, **{k: paths[k] for k in PATHS if k in paths}} for item, paths in zip(items, joined, strict=True)]


def _folder_name(folder: Path, source: Path) -> str:
    """Return a name for a series' folder that no other folder of the source has."""
    return "_".join(folder.relative_to(source).parts) or folder.resolve().name


def _with_masks(image: Path) -> dict[str, Any]:
    """Return an image with the masks that lie beside it."""
    item = {"image": str(image)}
    for key, suffixes in (("organ", ("_liver", "_organ")), ("label", ("_label",)), ("wanted", ("_wanted",))):
        for suffix in suffixes:
            for extension in FILMS if is_film(image) else (".nii.gz", ".nii"):
                beside = image.with_name(f"{image_stem(image)}{suffix}{extension}")
                if key not in item and beside.is_file():
                    item[key] = str(beside)
    return item


def case_name(item: Mapping[str, Any]) -> str:
    """Return what the case of an item of ``dataset.json`` is called: its ``case``, or as its first image's file."""
    return str(item.get("case") or image_stem(ensure_tuple(item["image"])[0]))


def _named(item: dict[str, Any]) -> dict[str, Any]:
    case = case_name(item)
    return {**item, "case": case, "patient": str(item.get("patient", case))}


def _holds_dicom(folder: Path) -> bool:
    """Return whether files of a folder have the mark of DICOM at byte 128, whatever their names."""
    for path in folder.iterdir():
        if path.is_file() and path.stat().st_size > 132:
            with open(path, "rb") as file:
                file.seek(128)
                if file.read(4) == b"DICM":
                    return True
    return False
