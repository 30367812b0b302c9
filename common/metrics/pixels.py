"""Pixel-wise detection metrics, pooled over cases, exact where scores tie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid


@dataclass(frozen=True)
class ScoreCounts:
    """The pixels of a case, counted by score: little to keep, as most pixels of a map share the score 0.

    Attributes:
        scores: distinct scores, increasing.
        positives: pixels of lesions with that score.
        negatives: all other pixels with it.
    """

    scores: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


def count_scores(scores: ArrayLike, truth: ArrayLike) -> ScoreCounts:
    """Return the counts of a case.

    Args:
        scores: of the pixels that are searched, any shape.
        truth: whether each of them is lesion, of the same shape.
    """
    values, index = np.unique(np.asarray(scores, dtype=np.float64).ravel(), return_inverse=True)
    lesion = np.asarray(truth, dtype=bool).ravel()
    positives = np.bincount(index[lesion], minlength=len(values))
    return ScoreCounts(values, positives, np.bincount(index, minlength=len(values)) - positives)


@dataclass(frozen=True)
class Curve:
    """Counts at every threshold that makes a difference, from the highest: a pixel counts if its score reaches it.

    Attributes:
        thresholds: distinct scores, decreasing.
        true_positives: pixels of lesions at or above the threshold.
        false_positives: other pixels at or above it.
    """

    thresholds: NDArray[np.float64]
    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the pixels found that are lesion."""
        return self.true_positives / np.maximum(self.true_positives + self.false_positives, 1e-300)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the lesions' pixels that are found, NaN without lesions."""
        return _share(self.true_positives)

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """Share of the other pixels that are found, NaN without any."""
        return _share(self.false_positives)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice, which is F1, of the pixels found and the lesions."""
        total = self.true_positives + self.false_positives + self.true_positives[-1]
        return 2 * self.true_positives / np.maximum(total, 1e-300)

    def auroc(self) -> float:
        """Return the area under the ROC curve; pixels that tie count half."""
        rate, recall = np.r_[0, self.false_positive_rate], np.r_[0, self.recall]
        return float(trapezoid(recall, rate))

    def average_precision(self) -> float:
        """Return the sum of precisions weighted by the gain in recall, as scikit-learn does."""
        return float(np.sum(np.diff(np.r_[0, self.recall]) * self.precision))

    def best_dice(self) -> tuple[float, float]:
        """Return the largest Dice over all thresholds and the threshold that gives it; NaN for both without lesions."""
        if self.true_positives[-1] == 0:
            return float("nan"), float("nan")
        best = int(np.argmax(self.dice))
        return float(self.dice[best]), float(self.thresholds[best])

    def dice_at(self, threshold: float) -> float:
        """Return the Dice of the pixels at or above a threshold, NaN without lesions."""
        if self.true_positives[-1] == 0:
            return float("nan")
        reached = np.searchsorted(-self.thresholds, -threshold, side="right")
        return float(self.dice[reached - 1]) if reached else 0.0


def _share(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / counts[-1] if counts[-1] > 0 else np.full(len(counts), np.nan)


class PooledCounts:
    """Cases put together once, so that resampling them costs no sorting.

    Args:
        cases: counts of each case.

    Raises:
        ValueError: if there are none.
    """

    def __init__(self, cases: Sequence[ScoreCounts]) -> None:
        if not cases:
            raise ValueError("expected the counts of one case at least, got none.")
        scores = np.concatenate([case.scores for case in cases])
        order = np.argsort(-scores, kind="stable")
        self._case = np.repeat(np.arange(len(cases)), [len(case.scores) for case in cases])[order]
        self._positives = np.concatenate([case.positives for case in cases])[order]
        self._negatives = np.concatenate([case.negatives for case in cases])[order]
        scores = scores[order]
        self._last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])  # of each group that ties
        self._thresholds = scores[self._last]
        self.num_cases = len(cases)

    def curve(self, weights: ArrayLike | None = None) -> Curve:
        """Return the curve of all cases.

        Args:
            weights: how often each case counts, shape (cases,); once by default.
        """
        weight = np.ones(self.num_cases) if weights is None else np.asarray(weights, dtype=np.float64)
        each = weight[self._case]
        return Curve(
            self._thresholds,
            np.cumsum(self._positives * each)[self._last],
            np.cumsum(self._negatives * each)[self._last],
        )
