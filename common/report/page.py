"""One self-contained HTML page of a run."""

import base64
import platform
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
class Section:
    """A heading with what stands under it.

    Attributes:
        title: the heading.
        text: paragraphs.
        rows: a table, all rows with the same keys.
        pictures: below the table.
    """

    title: str
    text: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    pictures: Sequence[Picture] = field(default_factory=list)


def write_page(path: str | Path, title: str, sections: Sequence[Section], notice: str = "", warning: str = "") -> None:
    """Write a page that needs nothing beside it.

    Args:
        path: of the HTML file.
        title: of the page.
        sections: in order; empty ones are left out.
        notice: said first, in a box.
        warning: said next, in a box.
    """
    shown = [s for s in sections if s.text or s.rows or s.pictures]
    text = rendered(
        "page.html",
        title=title,
        sections=shown,
        notice=notice,
        warning=warning,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(path, text)


def rendered(template: str, **values: Any) -> str:
    """Return a page of one of the templates beside this module; whatever it is given is text, not HTML."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["cell"] = format_cell
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


def format_cell(value: Any) -> str:
    """Return a number with three significant digits or more, anything else as it is; nothing for NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value != value:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
