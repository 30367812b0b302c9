import numpy as np
import pytest

from common.metrics.statistics import mean_of_cases
from common.studies.tables import compared_rows, costs_picture, on_page


@pytest.mark.parametrize(("ahead", "column", "sign"), [(False, "dice_difference", -1), (True, "dice_ahead", 1)])
def test_rows_have_intervals_and_their_distance_from_one_of_them(ahead, column, sign):
    ours, theirs = [0.5, 0.7, 0.9, 0.6], [0.4, 0.5, 0.9, 0.6]
    numbers = {
        "theirs": {"dice": mean_of_cases(theirs), "ap": mean_of_cases(theirs)},
        "ours": {"dice": mean_of_cases(ours), "only_ours": mean_of_cases(ours)},
    }
    rows = compared_rows("method", numbers, "abcd", ["dice"], "theirs", 100, ahead)
    assert [row["method"] for row in rows] == ["theirs", "ours"]
    assert rows[0][column] == rows[0][f"{column}_low"] == 0
    assert rows[1][column] == pytest.approx(sign * (np.mean(ours) - np.mean(theirs)))
    assert rows[1][f"{column}_low"] < rows[1][column] < rows[1][f"{column}_high"]
    assert np.isnan(rows[0]["only_ours"])
    assert "ap_difference" not in rows[0]


def test_on_the_page_an_interval_stands_beside_its_number():
    row = {"method": "ours", "dice": 0.5, "dice_low": 0.25, "dice_high": 0.75, "threshold": 3.0}
    assert on_page(row) == {"method": "ours", "dice": "0.500 [0.250, 0.750]", "threshold": 3.0}


def test_what_rows_cost_is_shown_beside_what_they_score():
    row = {"calls_a_slice": 20.0, "gradients_a_slice": 10.0, "ap": 0.5, "ap_low": 0.4, "ap_high": 0.6}
    rows = [{"method": "default", **row}, {"method": "fewer", **row, "calls_a_slice": 4.0}]
    shown = costs_picture(rows, {"ap": "AP"})
    assert shown.png.startswith(b"\x89PNG")
    free = {"method": "without a network", **row, "calls_a_slice": float("nan"), "gradients_a_slice": float("nan")}
    assert costs_picture([*rows, free], {"ap": "AP"}).png == shown.png
