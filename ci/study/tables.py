"""Numbers with their intervals, in tables and on pages."""

from collections.abc import Sequence

import numpy as np

from common.metrics.intervals import patient_bootstrap
from common.metrics.tables import Row, Statistic

NUM_BOOTSTRAPS = 1000


def with_interval(name: str, statistic: Statistic, patients: Sequence[str]) -> Row:
    """Return a number and its 95 % interval over patients, as ``name``, ``name_low`` and ``name_high``."""
    low, high = patient_bootstrap(patients, statistic, NUM_BOOTSTRAPS)
    return {name: statistic(np.ones(len(patients))), f"{name}_low": low, f"{name}_high": high}


def difference(ours: Statistic, theirs: Statistic) -> Statistic:
    """Return what ours is ahead of theirs, patients drawn alike."""
    return lambda weights: ours(weights) - theirs(weights)


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of the same number over seeds or runs."""
    return lambda weights: float(np.mean([statistic(weights) for statistic in statistics]))


def on_page(row: Row) -> Row:
    """Return a row of the table as the page shows it, each interval beside its number."""
    shown: Row = {}
    for name, value in row.items():
        if f"{name}_low" in row:
            shown[name.replace("_", " ")] = f"{value:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
        elif not name.endswith(("_low", "_high")):
            shown[name.replace("_", " ")] = value
    return shown
