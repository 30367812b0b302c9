"""Real data sets whose cases are dealt anew, perhaps with phantoms beside those that are learnt from."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.prepare import PARTS
from ..data.sites import in_drawn_order
from ..files import write_text

Item = dict[str, Any]
FILES = ("image", "organ", "label")


def write_folds(
    src: str,
    dst: str,
    lists: Sequence[str],
    fold: int | None = None,
    num_folds: int = 3,
    tested: Sequence[str] = (),
    num_validation: int = 3,
    beside: str = "",
    site: str = "",
    seed: int = 0,
) -> None:
    """Write a data set whose testing cases are a fold of a real one.

    Cases are dealt in the order of their names, those with lesions and those without apart. Of the others some with
    lesions are for validation, by a draw, and the rest for training. Without ``fold`` and ``tested`` the parts are
    those of the lists.

    Args:
        src: folder with the data sets.
        dst: folder, made if it is not there; files are copied into it.
        lists: of cases, such as ``lits/dataset.json``.
        fold: from 0.
        num_folds: of all cases.
        tested: cases, in place of a fold.
        num_validation: cases.
        beside: folder of a further data set in ``dst``, whose training cases are learnt from, too.
        site: of cases whose list says none.
        seed: of the draw.

    Raises:
        ValueError: if ``tested`` has a case that is not there, or nothing is left to learn from.
    """
    parts, modality = _lists(Path(src), lists)
    items = sorted((item for part in PARTS for item in parts[part]), key=lambda item: item["case"])
    names = list(tested)
    if unknown := set(names) - {item["case"] for item in items}:
        raise ValueError(f"expected cases of {', '.join(lists)} to test on, but has none named {', '.join(unknown)}.")
    if fold is not None:
        groups = [[item["case"] for item in items if item["image_label"] == k] for k in (0, 1)]
        names = [case for group in groups for case in group[fold::num_folds]]
    if names:
        known = [item for item in items if item["case"] not in names]
        diseased = [item["case"] for item in known if item["image_label"]]
        judged = in_drawn_order(diseased, seed)[:num_validation]
        parts = {
            "training": [item for item in known if item["case"] not in judged],
            "validation": [item for item in known if item["case"] in judged],
            "testing": [item for item in items if item["case"] in names],
        }
    further = json.loads((Path(dst) / beside / "dataset.json").read_text())["training"] if beside else []
    if site:
        parts = {part: [{"site": site} | item for item in parts[part]] for part in PARTS}
    where = "as listed" if not names else f"fold {fold}" if fold is not None else f"{len(names)} cases for testing"
    _write(Path(dst), lists, where, modality, parts, [_moved(item, beside) for item in further])


def write_shares(
    src: str, dst: str, lists: Sequence[str], shares: Sequence[int], left_out: Sequence[str] = (), seed: int = 0
) -> None:
    """Write a data set of a real one whose cases are dealt anew, so that each site has about its share in each part.

    Sites come in the order of their names, and the cases of each in a drawn order; each case goes to the part that is
    furthest behind its share.

    Args:
        src: folder with the data sets.
        dst: folder, made if it is not there; files are copied into it.
        lists: of cases with their ``site``, such as ``lgg/dataset.json``.
        shares: of training, validation and testing, as 5, 1, 4.
        left_out: cases.
        seed: of the draw.

    Raises:
        ValueError: if nothing is left to learn from.
    """
    listed, modality = _lists(Path(src), lists)
    items = {item["case"]: item for part in PARTS for item in listed[part] if item["case"] not in left_out}
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    drawn = in_drawn_order(sorted(items), seed)
    for number, case in enumerate(sorted(drawn, key=lambda case: items[case]["site"]), start=1):
        behind = {
            part: share * number / sum(shares) - len(parts[part]) for part, share in zip(PARTS, shares, strict=True)
        }
        parts[max(behind, key=lambda part: behind[part])].append(items[case])
    where = f"dealt within sites by {', '.join(str(share) for share in shares)}"
    _write(Path(dst), lists, where, modality, parts)


def write_healthy(
    src: str, dst: str, healthy: Sequence[str], diseased: Sequence[str], sequence: str, left_out: Sequence[str] = ()
) -> None:
    """Write a data set of one sequence that is learnt from healthy people, and tried on them and on others.

    Nothing is learnt from the diseased: their cases for training are for testing, too.

    Args:
        src: folder with the data sets.
        dst: folder, made if it is not there; files are copied into it.
        healthy: lists of cases, such as ``ixi_hh/dataset.json``.
        diseased: lists of others.
        sequence: what the image's name ends with.
        left_out: cases.

    Raises:
        ValueError: if nothing is left to learn from, or a case lacks the sequence.
    """
    taught, _ = _lists(Path(src), healthy)
    tried, _ = _lists(Path(src), diseased)
    parts = {
        "training": taught["training"],
        "validation": taught["validation"] + tried["validation"],
        "testing": taught["testing"] + tried["testing"] + tried["training"],
    }
    shown = {
        part: [item | {"image": image_of(item, sequence)} for item in parts[part] if item["case"] not in left_out]
        for part in PARTS
    }
    _write(Path(dst), (*healthy, *diseased), "learnt from healthy ones alone", {"0": sequence}, shown)


def image_of(item: Item, sequence: str) -> str:
    """Return the path of the image of an item that shows a sequence, as its name's end says.

    Raises:
        ValueError: if there is none.
    """
    for path in [item["image"]] if isinstance(item["image"], str) else item["image"]:
        if path.endswith(f"_{sequence}.nii.gz"):
            return path
    raise ValueError(f"expected an image of {item['case']} whose name ends with {sequence}.nii.gz, has none.")


def _write(
    dst: Path,
    lists: Sequence[str],
    where: str,
    modality: Mapping[str, str],
    parts: Mapping[str, Sequence[Item]],
    further: Sequence[Item] = (),
) -> None:
    """Copy the files of all parts, and write ``dataset.json``; further items are learnt from where they are."""
    if not parts["training"]:
        raise ValueError(f"expected cases of {', '.join(lists)} to learn from, none is left.")
    written = {part: [_copied(item, dst) for item in parts[part]] for part in PARTS}
    written["training"] += further
    named = {"modality": modality} if modality else {}
    content = {"name": ", ".join(lists), "description": f"real patients, {where}", **named, **written}
    write_text(dst / "dataset.json", json.dumps(content, indent=1) + "\n")


def _lists(src: Path, lists: Iterable[str]) -> tuple[dict[str, list[Item]], dict[str, str]]:
    """Return the items of each part of all lists, with paths to their files, and what the channels are."""
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    modality: dict[str, str] = {}
    for name in lists:
        content = json.loads((src / name).read_text())
        modality |= content.get("modality", {})
        for part in PARTS:
            parts[part] += [_moved(item, str((src / name).parent)) for item in content.get(part, [])]
    return parts, modality


def _moved(item: Item, folder: str) -> Item:
    """Return an item whose files lie in a folder."""
    return {
        key: _each(value, lambda path: f"{folder}/{path}") if key in FILES else value for key, value in item.items()
    }


def _copied(item: Item, dst: Path) -> Item:
    """Copy the files of an item and return it with their names."""

    def copy(path: str) -> str:
        dst.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, dst / Path(path).name)
        return Path(path).name

    return {key: _each(x, copy) if key in FILES else x for key, x in item.items()}


def _each(paths: Any, function: Any) -> Any:
    """Return what a function makes of a path, or of each of several."""
    return function(paths) if isinstance(paths, str) else [function(path) for path in paths]
