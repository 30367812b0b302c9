"""Tables of what is compared, with intervals, and how pages show them."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ..metrics.intervals import with_interval
from ..metrics.statistics import Row, Statistic, difference, with_all_columns
from ..progress import bar
from ..report.figures import costs_figure, png
from ..report.page import Picture

NUM_BOOTSTRAPS = 1000
"""Of the intervals of a study."""

Found = TypeVar("Found")


def compared_rows(
    column: str,
    numbers: Mapping[str, Mapping[str, Statistic]],
    patients: Sequence[Hashable],
    compared: Collection[str],
    reference: str,
    num_bootstraps: int,
    ahead: bool = False,
) -> list[Row]:
    """Return a row for each of what is compared: its numbers with intervals, and how far it is from one of them.

    Args:
        column: of the names.
        numbers: of all patients, by name and by metric.
        patients: whose they are, drawn alike for both sides of a difference.
        compared: metrics that differences are taken of, where a row has them.
        reference: name of what all are compared with.
        num_bootstraps: of the intervals.
        ahead: a column ``<metric>_ahead`` has what a row is ahead of the reference, instead of ``<metric>_difference``
            with what the reference is ahead of the row.
    """
    rows: list[Row] = []
    for name, own in bar(numbers.items(), desc="intervals"):
        row: Row = {column: name}
        for metric, statistic in own.items():
            row |= with_interval(metric, statistic, patients, num_bootstraps)
        for metric in (metric for metric in own if metric in compared):
            both = (own[metric], numbers[reference][metric])
            between = difference(*both) if ahead else difference(*reversed(both))
            row |= with_interval(f"{metric}_{'ahead' if ahead else 'difference'}", between, patients, num_bootstraps)
        rows.append(row)
    return with_all_columns(rows)


def paired_rows(
    pairs: Mapping[str, str], found: Mapping[str, Found], compare: Callable[[dict[str, Found]], list[Row]]
) -> list[Row]:
    """Return a row for each pair whose other side was tried, with it under ``against``.

    Args:
        pairs: rows, and what each is compared with.
        found: what all rows say.
        compare: makes the table of two of them, the first of which is the other side.
    """
    return [
        {"against": other, **compare({other: found[other], row: found[row]})[1]}
        for row, other in pairs.items()
        if other in found
    ]


def costs_picture(rows: Sequence[Row], metrics: Mapping[str, str]) -> Picture:
    """Return the picture of what rows score for what a slice of them costs.

    Args:
        rows: the default first; those without a number in ``calls_a_slice`` are not shown.
        metrics: columns with intervals, and their titles.
    """
    points = {
        row["method"]: (
            row["calls_a_slice"] + row["gradients_a_slice"],
            {metric: (row[metric], row[f"{metric}_low"], row[f"{metric}_high"]) for metric in metrics},
        )
        for row in rows
        if np.isfinite(row.get("calls_a_slice", np.nan))
    }
    caption = "Calls of networks and gradients through them a slice, 95 % intervals; the first row is the star."
    return Picture(caption, png(costs_figure(points, metrics)))


def on_page(row: Row) -> Row:
    """Return a row of the table as the page shows it, each interval beside its number."""
    shown: Row = {}
    for name, value in row.items():
        if f"{name}_low" in row:
            shown[name.replace("_", " ")] = f"{value:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
        elif not name.endswith(("_low", "_high")):
            shown[name.replace("_", " ")] = value
    return shown
