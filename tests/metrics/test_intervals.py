import numpy as np
import pytest

from common.metrics.intervals import patient_bootstrap, rows_with_intervals, with_interval
from common.metrics.statistics import mean_of_cases


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(5, 2, 200)
    low, high = patient_bootstrap(list(range(200)), lambda w: float((w * values).sum() / w.sum()), 2000)
    half_width = 1.96 * values.std() / 200**0.5
    assert low == pytest.approx(values.mean() - half_width, abs=0.06)
    assert high == pytest.approx(values.mean() + half_width, abs=0.06)


def test_cases_of_one_patient_are_drawn_together():
    drawn = []
    patient_bootstrap(["a", "a", "b"], lambda w: drawn.append(w) or 0.0, 50)
    assert all(w[0] == w[1] and w[0] / 1 + w[2] == 2 for w in drawn)


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(10.0)
    first, second = (patient_bootstrap(list("abcdefghij"), lambda w: float(w @ values), 100, seed=3) for _ in range(2))
    assert first == second


def test_draws_without_an_answer_are_left_out():
    low, high = patient_bootstrap(["a", "b"], lambda w: 1.0 if w[0] else float("nan"), 200)
    assert (low, high) == (1.0, 1.0)


def test_one_patient_has_no_interval():
    assert np.isnan(patient_bootstrap(["a", "a"], lambda w: 1.0)).all()


def test_a_table_has_a_row_for_each_statistic():
    statistics = {"mean": mean_of_cases([1, 2, 3]), "largest": lambda weights: 3.0}
    mean, largest = rows_with_intervals("abc", statistics, 100)
    assert (mean["metric"], mean["value"]) == ("mean", 2)
    assert (mean["low"], mean["high"]) == patient_bootstrap("abc", statistics["mean"], 100)
    assert largest == {"metric": "largest", "value": 3, "low": 3, "high": 3}


def test_without_draws_a_table_has_no_intervals():
    (row,) = rows_with_intervals("abc", {"mean": mean_of_cases([1, 2, 3])}, 0)
    assert np.isnan([row["low"], row["high"]]).all()


def test_a_number_may_be_one_of_several_in_a_row():
    mean = mean_of_cases([1, 2, 3])
    low, high = patient_bootstrap("abc", mean)
    assert with_interval("dice", mean, "abc") == {"dice": 2, "dice_low": low, "dice_high": high}
