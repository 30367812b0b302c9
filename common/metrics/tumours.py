"""How well tumours of an organ are segmented, and which of them are found."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import rows_with_intervals
from .lesions import SIZE_BINS_MM, LesionRecord, examine_lesions
from .overlap import dice, surface_dice
from .statistics import Record, Row, Statistic, mean_of_cases, mean_of_column, mean_of_slices

EARLY_MM = 20.0
"""Largest diameter of an early tumour."""

LEAST_OVERLAP = 0.1
"""Share of a tumour that a mask covers, for a stricter word for found."""

GROUPS = 3
"""That the cases are cut into by a number, such as age."""


def examine_tumour_segmentation(
    case: str,
    patient: str,
    probability: NDArray[np.floating],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    organ: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Record:
    """Return the record of a case; tumours are components that touch by face, edge or corner.

    Args:
        case: name.
        patient: name.
        probability: of tumour, shape (X, Y, Z).
        mask: what is called tumour.
        truth: what is tumour.
        spacing_mm: size of a voxel along each axis.
        organ: what was searched, and what should have been, where that is known.
        columns: what is known of the case besides, by name; columns of its row.
    """
    found = examine_lesions(probability, mask, truth, spacing_mm)
    millilitres = float(np.prod(spacing_mm)) / 1000
    row = {
        "case": case,
        "patient": patient,
        "tumours": len(found.diameters_mm),
        "true_ml": float(truth.sum() * millilitres),
        "mask_ml": float(mask.sum() * millilitres),
        "dice": float(dice(mask, truth)),
        "nsd_2mm": surface_dice(mask, truth, spacing_mm),
        "false_positives": found.false_positives,
        "organ_dice": float(dice(*organ)) if organ else np.nan,
        **(columns or {}),
    }
    return Record(case, patient, row, _tumour_rows(case, found))


def _tumour_rows(case: str, found: LesionRecord) -> list[Row]:
    return [
        {
            "case": case,
            "tumour": number,
            "diameter_mm": float(diameter),
            "covered": float(overlap),
            "found": float(overlap > 0),
            "found_10_percent": float(overlap >= LEAST_OVERLAP),
        }
        for number, (diameter, overlap) in enumerate(zip(found.diameters_mm, found.overlaps, strict=True), 1)
    ]


def summarise_tumours(records: Sequence[Record], num_resamples: int = 0) -> list[Row]:
    """Return the table of a run: a row a metric, with its interval over patients.

    Args:
        records: of all cases.
        num_resamples: draws of the bootstrap, 0 for no intervals.
    """
    return rows_with_intervals([r.patient for r in records], tumour_statistics(records), num_resamples)


def tumour_statistics(records: Sequence[Record]) -> dict[str, Statistic]:
    """Return all metrics of a run, by their names.

    Args:
        records: of all cases.
    """
    healthy = [not record.slice_rows for record in records]
    statistics = {
        **overlap_statistics(records),
        **sensitivity_statistics(records, f"tumours of at most {EARLY_MM:g} mm", (0.0, EARLY_MM)),
        "sensitivity, all tumours": mean_of_column([record.slice_rows for record in records], "found"),
    }
    for low, high in pairwise(SIZE_BINS_MM):
        name = f"tumours of {low:g} to {high:g} mm" if np.isfinite(high) else f"tumours above {low:g} mm"
        statistics[f"sensitivity, {name}"] = mean_of_column(_between(records, low, high), "found")
    false = [float(record.row["false_positives"]) for record in records]
    clean = [[float(n == 0)] if well else [] for n, well in zip(false, healthy, strict=True)]
    return {
        **statistics,
        "false positives a scan": mean_of_cases(false),
        "share of healthy scans without a false positive": mean_of_slices(clean),
        "Dice of the organ": mean_of_cases([record.row["organ_dice"] for record in records]),
    }


def overlap_statistics(records: Sequence[Record]) -> dict[str, Statistic]:
    """Return DSC and NSD over the cases that have tumours."""
    columns = {"DSC": "dice", "NSD at 2 mm": "nsd_2mm"}
    return {name: mean_of_cases([record.row[key] for record in records]) for name, key in columns.items()}


def sensitivity_statistics(
    records: Sequence[Record], name: str, diameter_mm: tuple[float, float]
) -> dict[str, Statistic]:
    """Return which share of the tumours of some sizes is found, by any overlap, and by one of ``LEAST_OVERLAP``."""
    those = _between(records, *diameter_mm)
    return {
        f"sensitivity, {name}": mean_of_column(those, "found"),
        f"sensitivity, {name}, {100 * LEAST_OVERLAP:.0f} % covered": mean_of_column(those, "found_10_percent"),
    }


def _between(records: Sequence[Record], low: float, high: float) -> list[list[Row]]:
    return [[row for row in record.slice_rows if low < row["diameter_mm"] <= high] for record in records]


def by_column(records: Sequence[Record], column: str, num_resamples: int = 0) -> list[Row]:
    """Return the main metrics of the cases of each value of a column; numbers are cut into ``GROUPS`` of equal size.

    Args:
        records: of all cases.
        column: of their rows; cases without it are a group of their own.
        num_resamples: see ``summarise_tumours``.
    """
    rows = []
    for group, members in _groups([record.row.get(column) for record in records]).items():
        those = [record for record, own in zip(records, members, strict=True) if own]
        statistics = {
            **overlap_statistics(those),
            **sensitivity_statistics(those, f"tumours of at most {EARLY_MM:g} mm", (0.0, EARLY_MM)),
        }
        found = rows_with_intervals([record.patient for record in those], statistics, num_resamples)
        rows += [{"column": column, "group": group, "cases": len(those), **row} for row in found]
    return rows


def _groups(values: Sequence[Any]) -> dict[str, list[bool]]:
    """Return by the name of each group which cases are in it."""
    numbers = [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in values]
    known = [v for v in numbers if np.isfinite(v)]
    if len(set(known)) <= GROUPS:
        names = ["unknown" if value is None else str(value) for value in values]
    else:
        bounds = np.quantile(known, np.linspace(0, 1, GROUPS + 1))
        where = np.searchsorted(bounds[1:-1], numbers, side="left")
        names = [
            f"{bounds[i]:g} to {bounds[i + 1]:g}" if np.isfinite(v) else "unknown"
            for i, v in zip(where, numbers, strict=True)
        ]
    return {group: [name == group for name in names] for group in sorted(set(names))}
