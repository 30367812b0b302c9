import numpy as np
import pytest

from common.metrics.statistics import (
    difference,
    mean_of,
    mean_of_cases,
    mean_of_column,
    mean_of_slices,
    share_of,
    with_all_columns,
    within,
)

ONCE = np.ones(3)
TWICE_THE_FIRST = np.array([2.0, 1.0, 0.0])


def test_a_case_counts_as_often_as_it_is_drawn():
    mean = mean_of_cases([1, 2, 6])
    assert mean(ONCE) == 3
    assert mean(TWICE_THE_FIRST) == pytest.approx(4 / 3)


def test_cases_without_a_number_do_not_count():
    assert mean_of_cases([1, np.nan, 6])(TWICE_THE_FIRST) == 1
    assert np.isnan(mean_of_cases([np.nan, 1, np.nan])(np.array([1.0, 0, 1])))


def test_all_slices_of_a_case_count_as_often_as_it_does():
    assert mean_of_slices([[1, 2], [], [6]])(ONCE) == 3
    assert mean_of_slices([[1, 2], [], [6]])(TWICE_THE_FIRST) == 1.5


def test_slices_without_a_number_in_a_column_do_not_count():
    rows = [[{"dice": 1.0}, {"dice": np.nan}], [{"dice": 0.5}], []]
    assert mean_of_column(rows, "dice")(ONCE) == 0.75
    assert np.isnan(mean_of_column(rows, "dice")(np.array([0.0, 0, 1])))


def test_a_share_of_nothing_is_no_number():
    assert share_of(np.array([1, 0, 2]), np.array([2, 0, 4]))(ONCE) == 0.5
    assert np.isnan(share_of(np.array([1, 0, 2]), np.array([2, 0, 4]))(np.array([0.0, 1, 0])))


def test_numbers_of_seeds_and_of_methods_are_taken_on_the_same_draw():
    first, second = mean_of_cases([1, 2, 6]), mean_of_cases([3, 4, 8])
    assert mean_of([first, second])(ONCE) == 4
    assert difference(second, first)(TWICE_THE_FIRST) == pytest.approx(2)


def test_rows_get_the_columns_of_all_in_the_order_of_the_longest():
    rows = with_all_columns([{"case": "a"}, {"case": "b", "dice": 1.0, "site": "x"}, {"case": "c", "site": "y"}])
    assert [list(row) for row in rows] == [["case", "dice", "site"]] * 3
    assert np.isnan(rows[2]["dice"])
    assert rows[2]["site"] == "y"


def test_a_number_of_some_cases_is_one_of_all():
    some = within(mean_of_cases([1.0, 3.0]), [True, False, True])
    assert some(np.array([1.0, 5.0, 1.0])) == 2
    assert some(np.array([3.0, 5.0, 1.0])) == 1.5
