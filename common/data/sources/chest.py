"""X-rays of the chest: which are healthy, and which show the finding that is looked for."""

import csv
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from ..checks import check_film
from ..reading import FILM_AFFINE, read_film
from .scans import Channel, Scan, Volume, some

LEFT_OUT = {
    "lateral": "as lateral views",
    "uncertain": "as uncertain (-1) in No Finding or {finding}",
    "unmarked": "as neither No Finding nor {finding} is marked",
    "contradictory": "as both No Finding and {finding} are marked",
}
"""Kinds of films that are taken neither for healthy nor for diseased."""

logger = logging.getLogger(__name__)


def find_chexpert(src: Path, finding: str) -> list[Scan]:
    """Return the frontal films of CheXpert or CheXpert-small that are healthy, and those that show a finding.

    As in Wolleb et al. 2022, healthy is what is marked 1 in "No Finding", and diseased what is marked 1 in the finding;
    which of these films became the 14,179 and 16,776 of the paper is not stated. Others are counted in the log.

    Args:
        src: the folder with ``train.csv`` and ``train``, ``valid.csv`` and ``valid``, or the one it lies in.
        finding: a column after "No Finding"; "Pleural Effusion" in the paper.

    Raises:
        FileNotFoundError: if there is no such film.
        ValueError: if a table is malformed, or has no such finding.
    """
    films: dict[str, list[Scan]] = defaultdict(list)
    for table in [path for name in ("train.csv", "valid.csv") for path in (*src.glob(name), *src.glob(f"*/{name}"))]:
        for row in _rows(table, finding):
            kind = _kind(row, finding)
            films[kind].append(_scan(table, row["Path"], diseased=kind == "diseased"))
    for kind, reason in LEFT_OUT.items():
        if films[kind]:
            logger.info(f"{len(films[kind])} films are left out, {reason.format(finding=finding)}.")
    if films["contradictory"]:
        logger.warning(f"contradictory marks are those of {', '.join(film.case for film in films['contradictory'])}.")
    usable = sorted(films["healthy"] + films["diseased"], key=lambda film: film.case)
    return some(usable, src, f"train.csv or valid.csv with frontal films of No Finding or {finding}")


def _rows(table: Path, finding: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a table that has all columns that are needed."""
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        columns = list(reader.fieldnames or ())
        missing = [name for name in ("Path", "Frontal/Lateral", "No Finding") if name not in columns]
        if missing:
            raise ValueError(f"{table}: expected a table of CheXpert, got one without {', '.join(missing)}.")
        findings = columns[columns.index("No Finding") + 1 :]
        if finding not in findings:
            raise ValueError(f"finding must be one of {', '.join(findings)}, got {finding!r}.")
        yield from reader


def _kind(row: Mapping[str, str], finding: str) -> str:
    """Return ``healthy``, ``diseased``, or why a film is neither."""
    healthy, diseased = (row[name].removesuffix(".0") for name in ("No Finding", finding))
    if row["Frontal/Lateral"] != "Frontal":
        return "lateral"
    if "-1" in (healthy, diseased):
        return "uncertain"
    if healthy == diseased == "1":
        return "contradictory"
    if healthy == "1":
        return "healthy"
    return "diseased" if diseased == "1" else "unmarked"


def _scan(table: Path, path: str, diseased: bool) -> Scan:
    """Return the film that a table names; what its path begins with depends on where it was unpacked."""
    match = re.search(r"(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<view>view\d+_\w+)\.jpg$", path)
    if not match:
        raise ValueError(f"{table}: expected paths as train/patient00001/study1/view1_frontal.jpg, got {path!r}.")
    file = table.with_suffix("") / match[0]
    return Scan("_".join(match.groups()), match["patient"], partial(_read, file, diseased))


def _read(file: Path, diseased: bool) -> Volume:
    pixels = read_film(file)
    check_film(pixels, file)
    return Volume((Channel(pixels, file),), FILM_AFFINE, diseased=diseased)
