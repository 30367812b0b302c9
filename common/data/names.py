"""Names of cases, which become names of folders and files."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from ..files import BadFileError, printable

MAX_BYTES = 200
"""Of a case's name; file systems allow 255 with what a bundle adds to it."""

RESERVED = ("checkpoints", "con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10)))
"""A run's own folder, and what Windows cannot have as a file."""

ENDINGS = (".html", ".csv", ".json", ".png", ".pt", ".npz", ".nii", ".gz")
"""Of files that a run writes beside the folders of its cases, or into them."""


def check_name(case: str) -> None:
    """Check that a case's name is a name: of one folder, on any system, and of one line.

    Raises:
        BadFileError: saying what is wrong with it.
    """
    wrong = [
        ("no name at all", not case.strip()),
        ("one that is a path", "/" in case or "\\" in case),
        ("one that begins with a dot", case.startswith(".")),
        ("one that begins or ends with a space, or ends with a dot", case != case.strip().rstrip(".")),
        (
            "one with characters that break lines",
            any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in case),
        ),
        ("one that a run or a system keeps for itself", case.lower() in RESERVED or case.lower().endswith(ENDINGS)),
        (f"one of more than {MAX_BYTES} bytes", len(case.encode(errors="replace")) > MAX_BYTES),
    ]
    for what, holds in wrong:
        if holds:
            raise BadFileError(f"{printable(case)}: expected a name for a case's folder, got {what}; rename the case.")


def twins_of(cases: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    """Return the names that would share a folder on some system, being equal but for case and composition.

    Args:
        cases: the name of each, and what or where it is.

    Returns:
        For each such name, what or where all are that would share its folder.
    """
    seen: dict[str, list[tuple[str, Any]]] = {}
    for case, what in cases:
        seen.setdefault(unicodedata.normalize("NFC", case).casefold(), []).append((case, what))
    return {case: [what for _, what in alike] for alike in seen.values() if len(alike) > 1 for case, _ in alike}
