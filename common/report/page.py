"""One self-contained HTML page of a run."""

import base64
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..files import write_text

PACKAGES = ("monai", "torch", "pytorch-ignite", "numpy", "scipy", "scikit-image", "scikit-learn", "nibabel")


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Attributes:
        caption: below it.
        png: its bytes; they are put into the page.
    """

    caption: str
    png: bytes

    @property
    def source(self) -> str:
        """Return the bytes as an address that a page can hold."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Stack:
    """Pictures of one size that lie beside the page, to leaf through.

    Attributes:
        caption: below them.
        files: their paths from the page.
        aspect: width over height.
    """

    caption: str
    files: Sequence[str]
    aspect: float


@dataclass(frozen=True)
class Tile:
    """A number at the top of the page.

    Attributes:
        name: what it is of.
        value: the number, with its unit.
        note: below it, such as its interval.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it.

    Attributes:
        title: the heading.
        text: paragraphs.
        rows: a table, all rows with the same keys; columns without a value in any row are left out.
        pictures: below the table.
        stacks: below the pictures.
        folded: shown when its heading is clicked.
    """

    title: str
    text: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Picture] = field(default_factory=list)
    stacks: Sequence[Stack] = ()
    folded: bool = False

    @property
    def columns(self) -> list[str]:
        """The keys of the columns that say anything, and not the names that the first one says."""
        first, *others = self.rows[0] if self.rows else ("",)
        new = [
            key for key in others if any(row[key] != row[first] or not isinstance(row[key], str) for row in self.rows)
        ]
        return [key for key in (first, *new) if any(_says(row.get(key)) for row in self.rows)]

    @property
    def told(self) -> list[Mapping[str, Any]]:
        """The rows that say anything behind their first column."""
        return [row for row in self.rows if len(row) == 1 or any(_says(value) for value in list(row.values())[1:])]


def _says(value: Any) -> bool:
    return value is not None and value != "" and value == value


def write_page(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    notice: str = "",
    warning: str = "",
    tiles: Sequence[Tile] = (),
) -> None:
    """Write a page that needs nothing beside it but the files of its stacks.

    Args:
        path: of the HTML file.
        title: of the page.
        sections: in order; empty ones are left out.
        notice: said first, in a box.
        warning: said next, in a box.
        tiles: numbers that stand above the sections.
    """
    shown = [s for s in sections if s.text or s.rows or s.pictures or s.stacks]
    text = rendered(
        "page.html",
        title=title,
        sections=shown,
        notice=notice,
        warning=warning,
        tiles=tiles,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(path, text)


def rendered(template: str, **values: Any) -> str:
    """Return a page of one of the templates beside this module; whatever it is given is text, not HTML."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"cell": format_cell, "words": in_words}
    return environment.get_template(template).render(**values)


def versions() -> list[dict[str, str]]:
    """Return the versions of what a result depends on, as rows of a table."""
    rows = [{"package": "Python", "version": platform.python_version()}]
    for name in PACKAGES:
        try:
            rows.append({"package": name, "version": version(name)})
        except PackageNotFoundError:
            continue
    return rows


WORDS = {
    "ap": "AP",
    "auroc": "AUROC",
    "brier": "Brier score",
    "dice": "Dice",
    "hd95": "HD95",
    "high": "to (95 %)",
    "jaccard": "IoU",
    "low": "from (95 %)",
    "mse": "squared error",
    "nsd": "NSD",
    "otsu": "Otsu",
    "p95": "95th percentile",
    "ssim": "SSIM",
    "std": "standard deviation",
}
"""For the parts of a column's name, where the part is not the word itself."""

UNITS = {"cm2": "cm²", "hu": "HU", "ml": "ml", "mm": "mm"}
"""For the last part of a column's name."""


def in_words(column: str) -> str:
    """Return the name of a column in the words of the field.

    >>> in_words("p95_outside"), in_words("mask_cm2"), in_words("mask, ml")
    ('95th percentile outside', 'mask, cm²', 'mask, ml')
    """
    *first, last = column.split("_")
    words = " ".join(WORDS.get(part, part) for part in (first if first and last in UNITS else [*first, last]))
    return f"{words}, {UNITS[last]}" if first and last in UNITS else words


def without_folders(text: str) -> str:
    """Return a text in which absolute paths are names of files, as where a run's files lay is nobody's business.

    >>> without_folders("/home/somebody/ct.nii.gz: expected a slice, got '/data/a/b'.")
    "ct.nii.gz: expected a slice, got 'b'."
    """
    return re.sub(r"(?<![\w.:/~-])/(?:[^/\s'\"]+/)*(?=[^/\s])", "", text)


def seen_from(folder: str | Path, text: str) -> str:
    """Return a path that lies beside a page's folder as it is from there, and of any other its name.

    Args:
        folder: of the page.
        text: the path; what is no absolute path is returned ``without_folders``.
    """
    beside = Path(folder).resolve().parent
    if beside.name and Path(text).is_absolute() and Path(text).is_relative_to(beside):
        return Path(os.path.relpath(text, folder)).as_posix()
    return without_folders(text)


def format_cell(value: Any) -> str:
    """Return a number with three significant digits or more, anything else as it is; nothing for NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value != value:
        return "–"
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e6):
        return f"{int(value)}"
    if 0.9995 <= abs(value) < 0.9999995:
        return f"{value:.6g}"  # what is not quite certain
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
