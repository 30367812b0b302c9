"""Confidence intervals by resampling patients."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap


def patient_bootstrap(
    patients: Sequence[Hashable],
    statistic: Callable[[NDArray[np.float64]], float],
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
        Low and high, NaN for fewer than two patients.
    """
    _, owner = np.unique([str(patient) for patient in patients], return_inverse=True)
    count = owner.max() + 1 if len(owner) else 0
    if count < 2:
        return float("nan"), float("nan")
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
