"""Confidence intervals by resampling patients."""

import warnings
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

from .statistics import Row, Statistic


def patient_bootstrap(
    patients: Sequence[Hashable],
    statistic: Statistic,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic over patients drawn with replacement.

    Differences of two methods are one statistic of both, so that they are compared on the same draws.

    Args:
        patients: of each case; a patient's cases are drawn together.
        statistic: from the number of times that each case counts, shape (cases,), to a number; NaN is left out.
        num_resamples: draws.
        confidence: of the interval.
        seed: of the draws.

    Returns:
        Low and high, NaN for fewer than two patients, or of a statistic that is NaN.
    """
    _, owner = np.unique([str(patient) for patient in patients], return_inverse=True)
    count = owner.max() + 1 if len(owner) else 0
    if count < 2 or np.isnan(statistic(np.ones(len(owner)))):
        return float("nan"), float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of statistics that are the same in all draws
        drawn = bootstrap(
            (np.arange(count),),
            lambda chosen: statistic(np.bincount(chosen, minlength=count)[owner].astype(np.float64)),
            n_resamples=num_resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    low, high = np.nanpercentile(drawn, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)


def with_interval(name: str, statistic: Statistic, patients: Sequence[Hashable], num_resamples: int = 1000) -> Row:
    """Return a number and its 95 % interval over patients, as ``name``, ``name_low`` and ``name_high``."""
    low, high = _interval(patients, statistic, num_resamples)
    return {name: statistic(np.ones(len(patients))), f"{name}_low": low, f"{name}_high": high}


def rows_with_intervals(
    patients: Sequence[Hashable], statistics: Mapping[str, Statistic], num_resamples: int
) -> list[Row]:
    """Return a row a statistic, with ``metric``, ``value``, and its 95 % interval, ``low`` and ``high``.

    Args:
        patients: whose each case is.
        statistics: of all cases, by the name of the metric.
        num_resamples: draws of the bootstrap, 0 for no intervals.
    """
    rows = []
    for name, statistic in statistics.items():
        low, high = _interval(patients, statistic, num_resamples)
        rows.append({"metric": name, "value": statistic(np.ones(len(patients))), "low": low, "high": high})
    return rows


def _interval(patients: Sequence[Hashable], statistic: Statistic, num_resamples: int) -> tuple[float, float]:
    return patient_bootstrap(patients, statistic, num_resamples) if num_resamples else (float("nan"), float("nan"))
