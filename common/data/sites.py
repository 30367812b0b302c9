"""Data sets of several sites, as tables have them, split within each site and class.

    python -m common.data.sites --src TABLE.csv --dst DIR [--fractions 0.7,0.1,0.2] [--seed 0]
    python -m common.data.sites --src BIDS_DIR --dst DIR --class_column group --classes control,patient

A table has the columns ``image`` (a path, from the table's folder), ``site``, ``image_label`` (0, 1, ...) and
``patient``, and may have ``case`` and ``split``. Of BIDS, ``participants.tsv`` says site and class, and the first file
of each participant and session that ends in ``_T1w`` (``--suffix``) is an image. ``dataset.json`` names the files where
they are. Skulls are to be stripped before, so that the background is 0 (HD-BET does so).
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np

from ..files import write_text

PARTS = ("training", "validation", "testing")
COLUMNS = ("image", "site", "image_label", "patient")

Item = dict[str, Any]


def items_of_table(path: Path) -> list[Item]:
    """Return the rows of a CSV as items of ``dataset.json``, with ``split`` where it has that column.

    Raises:
        ValueError: if a column is missing, a class is no whole number, or a row is not complete.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path}: expected columns {', '.join(COLUMNS)}, got none of {', '.join(missing)} in "
                f"{', '.join(reader.fieldnames or ['nothing'])}."
            )
        items = []
        for number, row in enumerate(reader, 2):
            item = {name: value for name, value in row.items() if name and value not in (None, "")}
            empty = [column for column in COLUMNS if column not in item]
            if empty or not item["image_label"].isdecimal():
                said = f"no {empty[0]}" if empty else f"class {item['image_label']!r}"
                raise ValueError(f"{path}, line {number}: expected {', '.join(COLUMNS)}, a whole number, got {said}.")
            items.append({**item, "image_label": int(item["image_label"]), "image": str(path.parent / item["image"])})
    return items


def items_of_bids(
    folder: Path, site_column: str, class_column: str, classes: Sequence[str], suffix: str = "T1w"
) -> list[Item]:
    """Return the images of a BIDS data set whose participants are of known site and class.

    Args:
        folder: with ``participants.tsv``.
        site_column: of that table.
        class_column: of that table.
        classes: values in it that are classes 0, 1 and so on; participants of others are left out.
        suffix: of the images' names.

    Raises:
        FileNotFoundError: if there is no such image.
        ValueError: if there is no such column.
    """
    with (folder / "participants.tsv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    columns = list(rows[0]) if rows else []
    for column in ("participant_id", site_column, class_column):
        if column not in columns:
            raise ValueError(f"{folder / 'participants.tsv'}: expected a column {column!r}, got {', '.join(columns)}.")
    items = []
    for row in rows:
        if row[class_column] not in classes:
            continue
        for place in sorted({path.parent for path in (folder / row["participant_id"]).rglob(f"*_{suffix}.nii*")}):
            image = min(place.glob(f"*_{suffix}.nii*"))
            known = {"site": row[site_column], "image_label": list(classes).index(row[class_column])}
            case = image.name.split(".")[0]
            items.append({"image": str(image), "patient": row["participant_id"], "case": case, **known})
    if not items:
        raise FileNotFoundError(
            f"{folder}: expected images *_{suffix}.nii.gz of participants whose {class_column} is one of "
            f"{', '.join(classes)}, got none."
        )
    return items


def split_within_cells(
    items: Sequence[Item], fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0
) -> dict[str, list[Item]]:
    """Return the items of each part: of each class at each site the same shares of the patients.

    A patient of several classes or sites is where the first of its images is. Of small cells, shares are rounded.

    Args:
        items: with ``site``, ``image_label`` and ``patient``.
        fractions: of the patients for training, validation and testing.
        seed: of the draw.

    Raises:
        ValueError: if these are no three shares that sum to 1.
    """
    if len(fractions) != len(PARTS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be three numbers for {', '.join(PARTS)} that sum to 1, got {fractions}.")
    sizes = {}
    for cell, patients in _cells(items).items():
        ends = np.rint(np.cumsum([0.0, *fractions]) * len(patients)).astype(int)
        sizes[cell] = dict(zip(PARTS, np.diff(ends).tolist(), strict=True))
    return _drawn(items, sizes, seed)


def redraw(parts: Mapping[str, Sequence[Item]], seed: int) -> dict[str, list[Item]]:
    """Return other parts of the same sizes within each site and class, by patient.

    Args:
        parts: items of each part.
        seed: of the draw.
    """
    sizes: dict[tuple, dict[str, int]] = {}
    for part, items in parts.items():
        for cell, patients in _cells(items).items():
            sizes.setdefault(cell, {})[part] = len(patients)
    return _drawn([item for items in parts.values() for item in items], sizes, seed)


def cases_of_split(
    listing: Callable[..., list[Item]], split: str, split_seed: int | None = None, progress: bool = True
) -> list[Item]:
    """Return the cases of a part as a data set has it, or as it is drawn anew, see ``redraw``.

    Args:
        listing: returns the cases of a ``split``.
        split: ``training``, ``validation`` or ``testing``.
        split_seed: of the draw; None leaves the parts as they are.
        progress: show a progress bar while files are checked.
    """
    if split_seed is None:
        return listing(split=split, progress=progress)
    parts: dict[str, list[Item]] = {}
    for part in PARTS:
        try:
            parts[part] = listing(split=part, progress=progress)
        except FileNotFoundError:
            parts[part] = []
    return redraw(parts, split_seed)[split] or listing(split=split, progress=progress)


def in_drawn_order(patients: Iterable[str], seed: int) -> list[str]:
    """Return patients in the order of a hash, which is the same everywhere, and where one more moves few others."""
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).digest())


def _cells(items: Sequence[Item]) -> dict[tuple[str, int], list[str]]:
    """Return the patients of each site and class."""
    cells: dict[tuple[str, int], list[str]] = {}
    home: dict[str, tuple[str, int]] = {}
    for item in items:
        own = home.setdefault(str(item["patient"]), (str(item.get("site", "")), int(item.get("image_label", 0))))
        if str(item["patient"]) not in cells.setdefault(own, []):
            cells[own].append(str(item["patient"]))
    return cells


def _drawn(items: Sequence[Item], sizes: Mapping[tuple, Mapping[str, int]], seed: int) -> dict[str, list[Item]]:
    """Return the items of each part, the patients of each cell in their drawn order."""
    part_of: dict[str, str] = {}
    for cell, patients in _cells(items).items():
        order = in_drawn_order(patients, seed)
        names = [part for part, count in sizes[cell].items() for _ in range(count)]
        part_of |= dict(zip(order, names, strict=True))
    return {part: [item for item in items if part_of[str(item["patient"])] == part] for part in PARTS}


def write_sites(
    src: str,
    dst: str,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    site_column: str = "site",
    class_column: str = "group",
    classes: Sequence[str] = (),
    suffix: str = "T1w",
) -> None:
    """Write ``dataset.json`` of a table or of BIDS; the files stay where they are.

    Args:
        src: a CSV, or a folder with ``participants.tsv``.
        dst: folder of ``dataset.json``.
        fractions: of the patients for training, validation and testing; not used of a table with a column ``split``.
        seed: of the draw.
        site_column: see ``items_of_bids``.
        class_column: see ``items_of_bids``.
        classes: see ``items_of_bids``.
        suffix: see ``items_of_bids``.
    """
    source = Path(src).resolve()
    if source.is_dir():
        wanted = [str(value) for value in np.atleast_1d(classes)]
        items = items_of_bids(source, site_column, class_column, wanted, suffix)
    else:
        items = items_of_table(source)
    if all("split" in item for item in items):
        parts = {part: [item for item in items if item["split"] == part] for part in PARTS}
    else:
        parts = split_within_cells(items, fractions, seed)
    content = {"name": source.name, "description": f"from {source.name}, seed {seed}", **parts}
    write_text(Path(dst) / "dataset.json", json.dumps(content, indent=1) + "\n")
    for part, own in parts.items():
        cells = {f"{site} {k}": len(patients) for (site, k), patients in sorted(_cells(own).items())}
        print(f"{part}: {len(own)} images; patients of each site and class: {cells}")


if __name__ == "__main__":
    fire.Fire(write_sites, name="python -m common.data.sites")
