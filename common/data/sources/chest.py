"""X-rays of the chest: which are healthy, and which show the finding that is looked for."""

import csv
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..checks import check_film
from ..reading import FILM_AFFINE, read_film
from .scans import Channel, Scan, Volume, some

VIEWS = ("all", "PA", "AP")
"""Which frontal films are taken: all, or those of rays from behind or from in front."""

LEFT_OUT = {
    "lateral": "as lateral views",
    "other view": "as they are not {views}",
    "uncertain": "as uncertain (-1) in No Finding or {finding}",
    "unmarked": "as neither No Finding nor {finding} is marked",
    "contradictory": "as both No Finding and {finding} are marked",
    "absent": "as they are not there",
}
"""Kinds of films that are taken neither for healthy nor for diseased."""

logger = logging.getLogger(__name__)


def find_chexpert(src: Path, finding: str, views: str = "all") -> list[Scan]:
    """Return the frontal films of CheXpert or CheXpert-small that are healthy, and those that show a finding.

    As in Wolleb et al. 2022, healthy is what is marked 1 in "No Finding", and diseased what is marked 1 in the finding;
    which of these films became the 14,179 and 16,776 of the paper is not stated. Others are counted in the log.

    Args:
        src: the folder with ``train.csv`` and ``train``, ``valid.csv`` and ``valid``, or the one it lies in.
        finding: a column after "No Finding"; "Pleural Effusion" in the paper.
        views: one of ``VIEWS``.

    Raises:
        FileNotFoundError: if there is no such film.
        ValueError: if a table is malformed, or has no such finding, or there are no such views.
    """
    refuse_other_views(views)
    needed = ["Path", "Frontal/Lateral", "No Finding", *(["AP/PA"] if views != "all" else [])]
    films: dict[str, list[Scan]] = defaultdict(list)
    for table in [path for name in ("train.csv", "valid.csv") for path in (*src.glob(name), *src.glob(f"*/{name}"))]:
        for row in _rows(table, needed, partial(_refuse_other_finding, finding)):
            kind = _kind(row, finding, views)
            films[kind].append(_scan(table, row["Path"], diseased=kind == "diseased"))
    if films["contradictory"]:
        logger.warning(f"contradictory marks are those of {', '.join(film.case for film in films['contradictory'])}.")
    return _usable(films, src, finding, views, "train.csv or valid.csv with frontal films")


NIH_NAMES = {"Pleural Effusion": "Effusion"}
"""What ChestX-ray14 calls findings that have another name in CheXpert."""


def find_nih(src: Path, finding: str, views: str = "all") -> list[Scan]:
    """Return the films of NIH ChestX-ray14 without any finding, and those with one.

    Args:
        src: the folder with ``Data_Entry_2017.csv`` (or ``Data_Entry_2017_v2020.csv``), and in any folders below it the
            films, ``00000001_000.png``. Films that a table names and that are not there are left out.
        finding: what is looked for; "Pleural Effusion" is called "Effusion" there.
        views: one of ``VIEWS``.

    Raises:
        FileNotFoundError: if there is no such film.
        ValueError: if the table is malformed, or nowhere has such a finding, or there are no such views.
    """
    refuse_other_views(views)
    finding = NIH_NAMES.get(finding, finding)
    files = {path.name: path for path in sorted(src.rglob("*.png"))}
    films: dict[str, list[Scan]] = defaultdict(list)
    known: set[str] = set()
    for table in sorted(src.glob("Data_Entry_2017*.csv")):
        for row in _rows(table, ("Image Index", "Finding Labels", "Patient ID", "View Position")):
            found = row["Finding Labels"].split("|")
            known |= set(found)
            kind = "healthy" if found == ["No Finding"] else "diseased" if finding in found else "unmarked"
            kind = kind if views in ("all", row["View Position"]) else "other view"
            kind = kind if row["Image Index"] in files else "absent"
            path = files.get(row["Image Index"], table)
            patient = f"{int(row['Patient ID']):05d}"
            read = partial(_read, path, kind == "diseased")
            films[kind].append(Scan(row["Image Index"].removesuffix(".png"), patient, read))
    if known and finding not in known:
        raise ValueError(f"finding must be one of {', '.join(sorted(known - {'No Finding'}))}, got {finding!r}.")
    return _usable(films, src, finding, views, "Data_Entry_2017.csv with films")


def refuse_other_views(views: str) -> None:
    """Check that there are such views.

    Raises:
        ValueError: if there are not.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {views!r}.")


def _usable(films: Mapping[str, list[Scan]], src: Path, finding: str, views: str, expected: str) -> list[Scan]:
    """Return healthy and diseased films, and say how many others there are."""
    for kind, reason in LEFT_OUT.items():
        if films[kind]:
            logger.info(f"{len(films[kind])} films are left out, {reason.format(finding=finding, views=views)}.")
    usable = sorted(films["healthy"] + films["diseased"], key=lambda film: film.case)
    return some(usable, src, f"{expected} of No Finding or {finding}")


def _rows(
    table: Path, needed: Sequence[str], accept: Callable[[Sequence[str]], None] = lambda columns: None
) -> Iterator[dict[str, str]]:
    """Yield the rows of a table that has all columns that are needed, and whose columns are accepted."""
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        columns = list(reader.fieldnames or ())
        missing = [name for name in needed if name not in columns]
        if missing:
            raise ValueError(f"{table}: expected a table of films, got one without {', '.join(missing)}.")
        accept(columns)
        yield from reader


def _refuse_other_finding(finding: str, columns: Sequence[str]) -> None:
    """Check that a table of CheXpert has a finding."""
    findings = columns[columns.index("No Finding") + 1 :]
    if finding not in findings:
        raise ValueError(f"finding must be one of {', '.join(findings)}, got {finding!r}.")


def _kind(row: Mapping[str, str], finding: str, views: str) -> str:
    """Return ``healthy``, ``diseased``, or why a film is neither."""
    healthy, diseased = (row[name].removesuffix(".0") for name in ("No Finding", finding))
    if row["Frontal/Lateral"] != "Frontal":
        return "lateral"
    if views != "all" and row["AP/PA"] != views:
        return "other view"
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
