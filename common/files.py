"""Files that a killed run leaves whole or not at all, and the cases of a run that could not be done."""

import csv
import io
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

RESULTS = (
    *(
        f"{name}.nii.gz"
        for name in ("anomaly", "healthy", "synthetic", "mask", "mean", "uncertainty", "probability", "labels")
    ),
    "overlay.png",
)
"""How the names of a case's results end, but for masks that a data set may have under the same name."""

LEFT_AFTER_S = 3600
"""A half-written file that nobody has written to for so long is what a killed run has left."""

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name beside a file; what is written there takes the file's place, when it is on the disk and whole.

    A killed run leaves the old file or the new one, never half of one. The name is one that no other run writes to. It
    ends as that of the file, as endings say how to write, and begins with a dot, by which it is no case.

    Args:
        path: of the file; its folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_what_killed_runs_left(path.parent.resolve())
    temporary = path.with_name(f".tmp.{token_hex(4)}.{path.name}")
    try:
        yield temporary
        if not temporary.is_symlink():  # what a link leads to was there before
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # replacing does nothing where both are links to one file


@cache  # once for each folder: to list it takes long where it has many files
def _remove_what_killed_runs_left(folder: Path) -> None:
    for left in folder.glob(".tmp.*"):
        with suppress(OSError):  # another run may have put it in its place meanwhile
            if left.lstat().st_ctime < time.time() - LEFT_AFTER_S:
                left.unlink()


@contextmanager
def locked(path: str | os.PathLike, refusal: str) -> Iterator[None]:
    """Hold a lock that one process at a time can have; the kernel takes it from one that is killed.

    Where there are no such locks, as on Windows and some network drives, nothing is held.

    Args:
        path: of the lock's own file, which is there while it is held; its folder is made.
        refusal: said to whom cannot have it.

    Raises:
        RuntimeError: if another process holds it.
    """
    if fcntl is None:
        yield
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        os.register_at_fork(after_in_child=file.close)  # processes that load data outlive a killed one for seconds
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(file.fileno()), path.stat())  # and not one that was just given back
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError as error:
            logger.warning(f"{path} cannot be locked: {error}; let no other process work there.")
            held = True
        if not held:
            raise RuntimeError(refusal)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


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
    writer.writerows({key: _as_cell(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """Return the rows of a CSV, as ``write_csv`` or a spreadsheet writes it."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _as_cell(value: Any) -> Any:
    """Return a value of a table as it is, a text that programs would take for a formula with a mark before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


class Failures:
    """The cases of a run that could not be done, with the reason; a run ends with them as its exit status.

    Args:
        output_dir: of the run; what an earlier one said of such a case does not stay there. None leaves all as it is.
        keep: record what goes wrong with a case and go on; false raises it.
    """

    def __init__(self, output_dir: str | os.PathLike | None = None, keep: bool = True) -> None:
        self.output_dir, self.keep = output_dir, keep
        self.reasons: dict[str, str] = {}

    def add(self, case: str, reason: str) -> None:
        """Record a case and say why it is left out; its ``RESULTS`` are removed."""
        case, reason = printable(case), printable(reason, 1000)
        self.reasons[case] = reason
        logger.error(f"{case} is left out: {reason}")
        if self.output_dir is None:
            return
        root = Path(self.output_dir).resolve()
        folder = (root / case).resolve()
        if (folder.parent, folder.name) == (root, case) and folder.is_dir():  # a link leads to what is not ours
            for ending in RESULTS:
                (folder / f"{case}_{ending}").unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()

    @contextmanager
    def recording(self, case: str, place: str) -> Iterator[None]:
        """Record whatever goes wrong with a case, but for a missing package; the traceback goes to the log.

        Args:
            case: its name.
            place: what is being done with it, in words.
        """
        try:
            yield
        except Exception as error:
            cause = root_cause(error)
            fault = isinstance(cause, FAULTS) and os.environ.get(RAISE_FAULTS)
            if not self.keep or fault or isinstance(cause, ImportError):
                raise
            foreseen = isinstance(cause, ValueError | OSError)
            logger.log(logging.DEBUG if foreseen else logging.ERROR, f"while {place}", exc_info=error)
            self.add(case, failure_reason(cause, place))

    def exit_if_any(self) -> None:
        """End the program with status 1 and a summary if cases failed.

        Raises:
            SystemExit: naming each failed case.
        """
        if self.reasons:
            listed = "\n".join(f"  {case}: {reason}" for case, reason in self.reasons.items())
            raise SystemExit(f"{len(self.reasons)} of the cases could not be done:\n{listed}")


class BadFileError(ValueError):
    """A file that cannot be used; the message names it and says what was expected and what came."""


FAULTS = (TypeError, AttributeError, KeyError)
"""What faults of a program raise, rather than bad files."""

RAISE_FAULTS = "RAISE_FAULTS"
"""Environment variable that lets faults through, so that tests see them; else they too are those of one case alone."""


def root_cause(error: BaseException) -> BaseException:
    """Return the error that MONAI wrapped, as it does with one of a transform or of a component of a config."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def failure_reason(error: BaseException, place: str) -> str:
    """Return why a case could not be done: the sentence of a bad file, or what happened, its type and where."""
    if isinstance(error, BadFileError):
        return str(error)
    text = " ".join(str(error).split()).rstrip(".")
    return f"{text or 'something'} ({type(error).__name__} while {place})."


def printable(text: str, length: int = 120) -> str:
    """Return a text in one line, what cannot be seen in it escaped, as it stands in logs and sentences."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= length else f"{shown[:length]}..."
