"""The cases of a run: what lies in a data set, a folder or a file, checked before anything is computed."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import load_decathlon_datalist, partition_dataset
from tqdm import tqdm

from .checks import BadFileError, check_ct, check_same_grid, read_nifti
from .dicom import read_series

MASK_SUFFIXES = ("_liver", "_organ", "_label")
"""File names that end so hold masks of a case, not cases."""

logger = logging.getLogger(__name__)


class Failures:
    """The cases of a run that could not be done, with the reason; a run ends with them as its exit status."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def add(self, case: str, reason: str) -> None:
        """Record a case and say why it is left out."""
        self.reasons[case] = reason
        logger.error(f"{case} is left out: {reason}")

    def exit_if_any(self) -> None:
        """End the program with status 1 and a summary if cases failed.

        Raises:
            SystemExit: naming each failed case.
        """
        if self.reasons:
            listed = "\n".join(f"  {case}: {reason}" for case, reason in self.reasons.items())
            raise SystemExit(f"{len(self.reasons)} of the cases could not be done:\n{listed}")


def list_cases(
    dataset_dir: str,
    split: str = "testing",
    organ_source: str = "auto",
    failures: Failures | None = None,
    check: bool = True,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Return the items of a run: ``case``, ``image``, and where they are known ``organ``, ``label``, ``patient``.

    Args:
        dataset_dir: a folder with ``dataset.json`` (Medical Segmentation Decathlon form), one NIfTI file, a folder of
            NIfTI files, one DICOM series or a folder of DICOM series. Without ``dataset.json`` all images are cases of
            any split, and ``<case>_liver``, ``<case>_organ`` and ``<case>_label`` beside an image are its masks.
        split: ``training``, ``validation`` or ``testing``.
        organ_source: ``file`` demands an organ mask for each case, ``network`` and ``totalsegmentator`` ignore those
            there are, ``auto`` takes what there is.
        failures: where bad cases are recorded; without it the first one raises.
        check: read every file and check it; false trusts them.
        progress: show a progress bar while checking.

    Raises:
        FileNotFoundError: if there is no case at all.
        BadFileError: for the first bad case, without ``failures``.
        ValueError: if two cases have the same name, or ``organ_source`` is unknown.
    """
    if organ_source not in ("auto", "file", "network", "totalsegmentator"):
        raise ValueError(f"organ_source must be auto, file, network or totalsegmentator, got {organ_source!r}.")
    items = [_named(item) for item in _found(Path(dataset_dir), split)]
    if not items:
        raise FileNotFoundError(f"{dataset_dir}: expected {split} cases, got none.")
    _refuse_twins(items)
    kept = []
    for item in tqdm(items, desc="checking files", disable=not (check and progress), leave=False):
        if organ_source in ("network", "totalsegmentator"):
            item.pop("organ", None)
        try:
            if organ_source == "file" and "organ" not in item:
                raise BadFileError(f"{item['image']}: expected an organ mask beside it or in dataset.json, got none.")
            if check:
                check_item(item)
        except BadFileError as error:
            if failures is None:
                raise
            failures.add(item["case"], str(error))
            continue
        logger.info(f"{item['case']}: organ from {'file ' + str(item['organ']) if 'organ' in item else organ_source}")
        kept.append(item)
    return kept


def check_item(item: dict[str, Any]) -> None:
    """Check the files of a CT case.

    Raises:
        BadFileError: for the first file that cannot be used.
    """
    image = Path(item["image"])
    if image.is_dir():
        voxels, affine = read_series(image)
    else:
        voxels, affine = read_nifti(image)
        check_ct(voxels, image)
    for key in ("organ", "label"):
        if key in item:
            mask = check_same_grid(voxels.shape, affine, item[key], image)
            if key == "organ" and not np.any(mask > 0):
                raise BadFileError(f"{item[key]}: expected a mask of the organ, got an empty one.")


def shard(items: list[dict[str, Any]], rank: int, world_size: int) -> list[dict[str, Any]]:
    """Return the items that one of several processes works on: every ``world_size``-th."""
    if world_size == 1:
        return items
    return partition_dataset(items, num_partitions=world_size, shuffle=False, even_divisible=False)[rank]


def _found(source: Path, split: str) -> list[dict[str, Any]]:
    if not source.exists():
        raise FileNotFoundError(f"{source}: expected a data set, a folder or a file, got nothing there.")
    if (source / "dataset.json").is_file():
        try:
            return load_decathlon_datalist(source / "dataset.json", is_segmentation=True, data_list_key=split)
        except (ValueError, json.JSONDecodeError) as error:
            raise ValueError(f"{source / 'dataset.json'}: expected JSON with a list {split!r}, got {error}.") from error
    if source.is_file():
        return [_with_masks(source)]
    images = [path for path in sorted(source.iterdir()) if _is_nifti(path) and not _stem(path).endswith(MASK_SUFFIXES)]
    if images:
        return [_with_masks(path) for path in images]
    folders = [source, *sorted(path for path in source.rglob("*") if path.is_dir())]
    return [{"image": str(folder), "case": _folder_name(folder, source)} for folder in folders if _holds_dicom(folder)]


def _folder_name(folder: Path, source: Path) -> str:
    """Return a name for a series' folder that no other folder of the source has."""
    return "_".join(folder.relative_to(source).parts) or folder.resolve().name


def _with_masks(image: Path) -> dict[str, Any]:
    """Return an image with the masks that lie beside it."""
    item = {"image": str(image)}
    for key, suffixes in (("organ", ("_liver", "_organ")), ("label", ("_label",))):
        for suffix in suffixes:
            for extension in (".nii.gz", ".nii"):
                beside = image.with_name(f"{_stem(image)}{suffix}{extension}")
                if key not in item and beside.is_file():
                    item[key] = str(beside)
    return item


def _named(item: dict[str, Any]) -> dict[str, Any]:
    first = item["image"][0] if isinstance(item["image"], list) else item["image"]
    case = str(item.get("case") or _stem(Path(first)))
    return {**item, "case": case, "patient": str(item.get("patient", case))}


def _refuse_twins(items: Iterable[dict[str, Any]]) -> None:
    seen: dict[str, Any] = {}
    for item in items:
        if item["case"] in seen:
            raise ValueError(
                f"two cases are called {item['case']!r}: {seen[item['case']]} and {item['image']}; "
                "give them a 'case' of their own in dataset.json."
            )
        seen[item["case"]] = item["image"]


def _is_nifti(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith(".")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _holds_dicom(folder: Path) -> bool:
    """Return whether files of a folder have the mark of DICOM at byte 128, whatever their names."""
    for path in folder.iterdir():
        if path.is_file() and path.stat().st_size > 132:
            with open(path, "rb") as file:
                file.seek(128)
                if file.read(4) == b"DICM":
                    return True
    return False
