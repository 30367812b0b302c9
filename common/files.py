"""Files that a killed run leaves whole or not at all, and the cases of a run that could not be done."""

import csv
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name beside a file; what is written there takes the file's place, when it is on the disk and whole.

    A killed run leaves the old file or the new one, never half of one. The name ends as that of the file, as endings
    say how to write, and begins with a dot, by which it is no case.

    Args:
        path: of the file; its folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp.{path.name}")  # the same each time: what a killed run leaves is overwritten
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        if not temporary.is_symlink():  # what a link leads to was there before
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # replacing does nothing where both are links to one file


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file; a killed run leaves no half of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a file in UTF-8; a killed run leaves no half of it."""
    write_bytes(path, text.encode())


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as CSV; a killed run leaves no half of a file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


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
