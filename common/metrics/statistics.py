"""What is kept of cases, and numbers of all of them, each of which may count several times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Row = dict[str, Any]
"""Of a table, by column."""


@dataclass(frozen=True)
class Record:
    """What is kept of a case, enough for all tables.

    Attributes:
        case: its name.
        patient: whose it is.
        row: of the table per patient.
        slice_rows: of the table per slice; a film is a slice.
    """

    case: str
    patient: str
    row: Row
    slice_rows: list[Row]


Statistic = Callable[[NDArray[np.float64]], float]
"""Takes how often each case counts, shape (cases,)."""


def mean_of_cases(values: ArrayLike) -> Statistic:
    """Return the mean of a number over the cases that have one.

    Args:
        values: of each case, NaN where it has none.
    """
    number = np.asarray(values, dtype=np.float64)
    known = np.isfinite(number)

    def mean(weights: NDArray[np.float64]) -> float:
        total = weights[known].sum()
        return float((weights[known] * number[known]).sum() / total) if total else float("nan")

    return mean


def mean_of_slices(values: Sequence[Sequence[float]]) -> Statistic:
    """Return the mean of all slices, each counting as often as its case does."""
    return share_of(np.array([sum(v) for v in values]), np.array([len(v) for v in values]))


def mean_of_column(rows: Sequence[Sequence[Row]], key: str) -> Statistic:
    """Return the mean of a column over the slices that have a number in it.

    Args:
        rows: of the slices of each case.
        key: of the column.
    """
    return mean_of_slices([[row[key] for row in slices if np.isfinite(row[key])] for slices in rows])


def share_of(parts: NDArray[Any], wholes: NDArray[Any]) -> Statistic:
    """Return the sum of parts over the sum of wholes, each case counting as often as it is drawn."""

    def share(weights: NDArray[np.float64]) -> float:
        total = (weights * wholes).sum()
        return float((weights * parts).sum() / total) if total else float("nan")

    return share


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of the same number over seeds or runs."""
    return lambda weights: float(np.mean([statistic(weights) for statistic in statistics]))


def within(statistic: Statistic, inside: Sequence[bool]) -> Statistic:
    """Return the number of some cases, as one of all cases; NaN where none of them counts.

    Args:
        statistic: of those cases.
        inside: whether each case is one of them.
    """
    own = np.asarray(inside, dtype=bool)
    return lambda weights: statistic(weights[own]) if weights[own].any() else float("nan")


def difference(ours: Statistic, theirs: Statistic) -> Statistic:
    """Return what ours is ahead of theirs, patients drawn alike."""
    return lambda weights: ours(weights) - theirs(weights)


def with_all_columns(rows: Sequence[Row]) -> list[Row]:
    """Return rows that all have the columns of all, NaN where they had none."""
    longest_first = sorted(rows, key=len, reverse=True)
    columns = dict.fromkeys((column for row in longest_first for column in row), np.nan)
    return [columns | row for row in rows]
