"""What cases lie in a data set, a folder or a file: their items, before any image is read."""

import json
import logging
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from ..files import RESULTS
from ..sequences import SEQUENCES, known_sequence, sequence_in
from ..transforms.channels import FILMS, image_stem
from .dicom import holds_dicom
from .names import twins_of
from .reading import is_film
from .sites import items_of_table

NIFTI = (".nii", ".nii.gz")
OTHER_IMAGES = (".mha", ".mhd", ".nrrd", ".nhdr", ".img", ".hdr", ".mgz", ".mgh", ".mnc", ".dcm", ".ima", ".tif")
"""Endings of images that are not read, but for DICOM in folders of its own."""

MASK_SUFFIXES = ("_liver", "_organ", "_label", "_wanted")
"""File names that end so hold masks of a case, not cases."""

RESULT_NAMES = (*(ending.split(".")[0] for ending in RESULTS), "organ", "wanted")
"""What ``<case>/<case>_<name>`` holds in the folder of a run, which is no case of the next."""

PATHS = ("image", "organ", "label", "wanted", "twin", "slice_labels")
"""What is a path in an item of ``dataset.json``; the image may be a list of them."""

logger = logging.getLogger(__name__)


def found_items(
    source: Path,
    split: str,
    modality: str,
    sequences: Sequence[str] | None,
    label_values: Mapping[str, str] | None = None,
    regions: Sequence[Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Return the items of a source, see ``list_cases``; ``refused`` says of one why it cannot be used.

    Raises:
        FileNotFoundError: if there is nothing at ``source``.
        ValueError: if its ``dataset.json`` is malformed, or names other sequences or labels.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: expected a data set, a folder or a file, got nothing there.")
    if (source / "dataset.json").is_file():
        return _items_of_dataset(source / "dataset.json", split, sequences, label_values, regions)
    if source.suffix.lower() == ".csv":
        listed = items_of_table(source)
        return [_named(item) for item in listed if item.get("split", split) == split]
    if source.is_file():
        item = {**_with_masks(source), "case": image_stem(source)}
        return [_named(_with_sequences(item, sequences, None) if modality == "mr" and sequences else item)]
    found = _search(source, FILMS if modality == "xray" else NIFTI)
    if modality == "ct":
        items = [*map(_with_masks, found.images), *({"image": str(folder)} for folder in found.dicom)]
    else:
        for folder in found.dicom:
            found.left_out.append(f"{folder}: DICOM, which is read of CT alone; convert it, for example with dcm2niix")
        by_sequence = modality == "mr" and sequences is not None
        items = _grouped(found.images, sequences or ()) if by_sequence else [*map(_with_masks, found.images)]
    for reason in found.left_out:
        logger.warning(f"left out: {reason}")
    return _with_names(items, source)


@dataclass
class _Found:
    """Images, folders with DICOM, and what is neither."""

    images: list[Path] = field(default_factory=list)
    dicom: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def _search(source: Path, endings: Sequence[str]) -> _Found:
    """Look through a folder and those in it; links are followed, but none to where one has been."""
    found, seen = _Found(), {source.resolve()}

    def look(folder: Path) -> None:
        files = []
        for path in sorted(folder.iterdir()):
            name = path.name.lower()
            try:
                mode = path.stat().st_mode
            except OSError:
                found.left_out.append(f"{path}: a link that leads nowhere, or to itself")
                continue
            if name.startswith("."):
                continue
            if stat.S_ISDIR(mode):
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    look(path)
                elif path.is_symlink():
                    found.left_out.append(f"{path}: a link to a folder that is looked through already")
            elif not stat.S_ISREG(mode):
                found.left_out.append(f"{path}: no file, but a device, a pipe or a socket")
            elif name.endswith(tuple(endings)):
                if not image_stem(path).endswith(MASK_SUFFIXES) and not _is_result(path):
                    found.images.append(path)
            else:
                files.append(path)
        if holds_dicom(files):
            found.dicom.append(folder)
            return
        for path in files:
            if path.name.lower().endswith((*OTHER_IMAGES, *NIFTI, *FILMS[:3])) and not _is_result(path):
                found.left_out.append(f"{path}: an image of another kind, expected {', '.join(endings)}")

    look(source)
    return found


def _is_result(path: Path) -> bool:
    """Return whether a file is what a run writes for a case."""
    case = path.parent.name
    return image_stem(path) in {f"{case}_{result}" for result in RESULT_NAMES}


def _grouped(images: Iterable[Path], sequences: Sequence[str]) -> list[dict[str, Any]]:
    """Return a case for all files of a folder whose names differ in the sequence alone.

    A name without a sequence is a case of its own. Where a name says ``seg`` in its place, the file is the label, as in
    BraTS.
    """
    cases: dict[tuple[Path, str], dict[str, Path]] = {}
    refusals: dict[tuple[Path, str], str] = {}
    for path in images:
        sequence, case = sequence_in(image_stem(path))
        files = cases.setdefault((path.parent, case), {})
        if files.setdefault(sequence or "all", path) != path:
            refusals[path.parent, case] = (
                f"{path}: expected one file of {sequence}, got also {files[sequence or 'all']}."
            )
    items = []
    for (folder, case), files in cases.items():
        label = {"label": str(files["label"])} if "label" in files else {}
        channels = [files[sequence] for sequence in sequences if sequence in files]
        if "all" in files:
            item = _with_masks(files["all"])
        elif not channels:
            first = next(iter(files.values()))
            item = {"image": str(first), "stem": case}
            refusals[folder, case] = f"{first}: expected {', '.join(sequences)}, got none of them beside it."
        else:
            beside = _with_masks(channels[0].with_name(f"{case}.nii.gz")) if case else {}
            item = {**beside, "image": [str(path) for path in channels], "stem": case}
        refused = {"refused": refusals[folder, case]} if (folder, case) in refusals else {}
        items.append({**item, **label, **refused})
    return items


def _with_names(items: Iterable[dict[str, Any]], source: Path) -> list[dict[str, Any]]:
    """Return items with the name of their file or folder, and with the folders they lie in where that is not enough."""

    def named(item: Mapping[str, Any], whole: bool) -> str:
        first = Path(ensure_tuple(item["image"])[0])
        folder, stem = (first, "") if first.is_dir() else (first.parent, item.get("stem", image_stem(first)))
        folders = folder.relative_to(source).parts
        if not whole and not first.is_dir():
            folders = () if stem else folders[-1:]
        return "_".join(filter(None, (*folders, stem))) or source.resolve().name

    items = list(items)
    names = [named(item, False) for item in items]
    twins = twins_of((name, None) for name in names)
    names = [named(item, True) if name in twins else name for item, name in zip(items, names, strict=True)]
    bare = [{key: value for key, value in item.items() if key != "stem"} for item in items]
    return [_named({**item, "case": name}) for item, name in zip(bare, names, strict=True)]


def _items_of_dataset(
    path: Path,
    split: str,
    sequences: Sequence[str] | None,
    label_values: Mapping[str, str] | None,
    regions: Sequence[Sequence[int]] | None,
) -> list[dict[str, Any]]:
    """Return the items of ``dataset.json`` as they are written there, with paths that start at its folder."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        listed = content[split]
        if not isinstance(listed, list):
            raise TypeError(f"{type(listed).__name__} in its place")
        items = [{"image": item} if isinstance(item, str) else dict(item) for item in listed]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        reason = f"no {split!r}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ValueError(f"{path}: expected JSON with a list {split!r}, got {reason}.") from error
    refuse_other_labels(path, content.get("labels"), label_values, regions)
    for item in items:
        images = item.get("image") or None
        files = [*(images if isinstance(images, list) else [images]), *(item[k] for k in PATHS[1:] if k in item)]
        if not all(isinstance(file, str) for file in files):
            raise ValueError(f"{path}: expected items whose image and masks are paths, got {item}.")
        for key in PATHS:
            if key in item:
                joined: list[str] = [str(path.parent / file) for file in ensure_tuple(item[key])]
                item[key] = joined if isinstance(item[key], list) else joined[0]  # type: ignore[assignment]
    named = _named_sequences(content.get("modality")) if sequences else None
    if named and not set(sequences or ()) <= set(named):
        raise ValueError(
            f"{path}: expected a modality that names {', '.join(sequences or ())}, got {content['modality']}; "
            "set sequences to those there are, with weights that were trained on them."
        )
    return [_named(_with_sequences(item, sequences, named) if sequences else item) for item in items]


def refuse_other_labels(
    path: Path, labels: Any, label_values: Mapping[str, str] | None, regions: Sequence[Sequence[int]] | None
) -> None:
    """Check what ``labels`` in a ``dataset.json`` says of the values in masks.

    Raises:
        ValueError: if there are other values than ``label_values``, or, told apart by regions, in another order.
    """
    if label_values is None or not isinstance(labels, Mapping):
        return
    theirs = {str(value): str(name).lower() for value, name in labels.items() if str(value) != "0"}
    others = set(theirs) - set(label_values)

    def meant(name: str) -> str | None:
        known = [value for value, own in label_values.items() if own in name]
        return max(known, key=lambda value: len(label_values[value]), default=None)

    if others or (regions is not None and any(meant(name) not in (None, value) for value, name in theirs.items())):
        raise ValueError(
            f"{path}: expected labels of {_in_words(label_values)}, got {_in_words(theirs)}; `python -m "
            "common.data.prepare` writes such labels, or set label_values to all that are lesions."
        )


def _in_words(values: Mapping[str, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in values.items())


def _named_sequences(modality: Any) -> list[str | None] | None:
    """Return the sequences that ``modality`` in ``dataset.json`` names, in their order, if it names any."""
    if isinstance(modality, Mapping):
        modality = [modality[key] for key in sorted(modality, key=lambda key: (len(str(key)), str(key)))]
    if not isinstance(modality, list):
        return None
    named = [known_sequence(str(name)) for name in modality]
    return named if any(named) else None


def _with_sequences(
    item: dict[str, Any], sequences: Sequence[str], named: Sequence[str | None] | None
) -> dict[str, Any]:
    """Return an item with those of its sequences that a run takes, in its order.

    What they are says the ``modality`` of ``dataset.json``, or the files' names, or else they are taken for all
    ``SEQUENCES`` in order, with a ``doubt``. An item whose names say otherwise is ``refused``.
    """
    images = ensure_tuple(item["image"])
    told = [sequence_in(image_stem(image))[0] for image in images]
    if len(images) == 1:
        if named and len(named) > 1:  # its volumes are picked when it is loaded
            return {**item, "channels": [named.index(sequence) for sequence in sequences]}
        other = not named and len(sequences) == 1 and not _agree(told, sequences)
        return _refused(item, sequences) if other else item
    if len(set(told)) == 1:
        told = [None] * len(told)  # it is the name of a study or a patient that says so
    by_name = all(told) and len(set(told)) == len(told)
    order = named if named and len(named) == len(images) else told if by_name else SEQUENCES
    if len(order) != len(images) or not set(sequences) <= set(order):
        return item
    if not _agree(told, order):
        return _refused(item, order)
    doubt = f"its files are taken for {', '.join(SEQUENCES)}, as neither a modality in dataset.json nor their names say"
    picked = {"image": [images[list(order).index(sequence)] for sequence in sequences]}
    return {**item, **picked, **({"doubt": doubt} if order is SEQUENCES else {})}


def _agree(told: Sequence[str | None], order: Sequence[str | None]) -> bool:
    """Return whether no name tells another sequence than what is expected at its place."""
    return all(None in pair or pair[0] == pair[1] for pair in zip(told, order, strict=True))


def _refused(item: dict[str, Any], order: Sequence[str | None]) -> dict[str, Any]:
    """Return an item with the sentence that its names say something else."""
    images, expected = ensure_tuple(item["image"]), ", ".join(map(str, order))
    names = ", ".join(Path(image).name for image in images)
    return {**item, "refused": f"{images[0]}: expected {expected} in this order, got {names}."}


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
