"""Numbers with their intervals."""

import numpy as np
import pytest

from common.studies.tables import difference, mean_of, on_page, with_interval


def mean(values):
    return lambda weights: float(np.average(values, weights=weights))


def test_a_number_that_all_patients_agree_on_has_an_interval_without_width():
    assert with_interval("dice", mean([0.5, 0.5]), ["a", "b"], 20) == {"dice": 0.5, "dice_low": 0.5, "dice_high": 0.5}


def test_an_interval_holds_its_number():
    row = with_interval("dice", mean([0.1, 0.4, 0.9]), ["a", "b", "c"], 100)
    assert row["dice_low"] < row["dice"] < row["dice_high"]


def test_differences_and_means_are_those_of_the_same_patients():
    weights = np.array([1.0, 3.0])
    assert difference(mean([0.8, 0.4]), mean([0.1, 0.3]))(weights) == pytest.approx(0.5 - 0.25)
    assert mean_of([mean([0.8, 0.4]), mean([0.1, 0.3])])(weights) == pytest.approx(0.375)


def test_on_the_page_an_interval_stands_beside_its_number():
    row = {"method": "ours", "dice": 0.5, "dice_low": 0.25, "dice_high": 0.75, "threshold": 3.0}
    assert on_page(row) == {"method": "ours", "dice": "0.500 [0.250, 0.750]", "threshold": 3.0}
