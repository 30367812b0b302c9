import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from common.metrics.pixels import PooledCounts, count_scores


@st.composite
def scored_pixels(draw):
    """Return scores with many ties, and a truth with both kinds of pixels."""
    size = draw(st.integers(4, 60))
    scores = np.array(draw(st.lists(st.sampled_from([-2.0, 0.0, 0.0, 0.5, 1.0, 7.25]), min_size=size, max_size=size)))
    truth = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    truth[:2] = True, False
    return scores, truth


@given(scored_pixels())
def test_areas_equal_scikit_learns_also_with_ties(pixels):
    scores, truth = pixels
    curve = PooledCounts([count_scores(scores, truth)]).curve()
    assert curve.auroc() == pytest.approx(roc_auc_score(truth, scores))
    assert curve.average_precision() == pytest.approx(average_precision_score(truth, scores))


@given(scored_pixels())
def test_the_best_dice_is_the_best_of_all_thresholds(pixels):
    scores, truth = pixels
    dice, threshold = PooledCounts([count_scores(scores, truth)]).curve().best_dice()
    tried = [f1_score(truth, scores >= t) for t in np.unique(scores)]
    assert dice == pytest.approx(max(tried))
    assert f1_score(truth, scores >= threshold) == pytest.approx(dice)


@given(scored_pixels(), st.floats(-3, 8))
def test_dice_at_a_threshold_is_that_of_the_mask(pixels, threshold):
    scores, truth = pixels
    curve = PooledCounts([count_scores(scores, truth)]).curve()
    assert curve.dice_at(threshold) == pytest.approx(f1_score(truth, scores >= threshold))


@given(scored_pixels(), scored_pixels())
def test_pooling_cases_is_putting_their_pixels_together(first, second):
    pooled = PooledCounts([count_scores(*first), count_scores(*second)]).curve()
    scores, truth = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    assert pooled.average_precision() == pytest.approx(average_precision_score(truth, scores))
    assert pooled.auroc() == pytest.approx(roc_auc_score(truth, scores))


@given(scored_pixels(), scored_pixels())
def test_a_weight_counts_a_case_that_often(first, second):
    pooled = PooledCounts([count_scores(*first), count_scores(*second)])
    repeated = PooledCounts([count_scores(*first)] * 2 + [count_scores(*second)] * 3)
    assert pooled.curve([2, 3]).average_precision() == pytest.approx(repeated.curve().average_precision())
    assert pooled.curve([0, 1]).auroc() == pytest.approx(PooledCounts([count_scores(*second)]).curve().auroc())


def test_without_lesions_there_is_nothing_to_say():
    curve = PooledCounts([count_scores([1.0, 2.0], [False, False])]).curve()
    assert np.isnan([curve.auroc(), curve.average_precision(), *curve.best_dice(), curve.dice_at(0)]).all()


def test_no_case_is_refused():
    with pytest.raises(ValueError, match="one case at least"):
        PooledCounts([])
