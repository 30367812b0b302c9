"""What counts as a difference of two results."""

import numpy as np
import pytest

from ci.compare_commits import differing

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [[1.0, 2.0], [1.0, NAN], [INF, -INF], [NAN]])
def test_the_same_numbers_do_not_differ(value):
    assert differing({"map": np.array(value)}, {"map": np.array(value)}) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [([NAN], [0.2]), ([1.0, NAN, 2.0], [1.0, 5.0, 2.0]), ([1.0, INF], [1.0, 5.0]), ([INF], [-INF]), ([INF], [NAN])],
)
def test_what_is_no_number_on_one_side_alone_is_a_difference(one, other):
    assert "NaN or infinite" in differing({"map": np.array(one)}, {"map": np.array(other)})
    assert "NaN or infinite" in differing({"map": np.array(other)}, {"map": np.array(one)})


def test_numbers_differ_by_a_share_of_their_range():
    one, other = np.array([0.0, 10.0, NAN]), np.array([0.0, 9.0, NAN])
    assert differing({"map": one}, {"map": other}) == "differs by up to 0.1 of its range"
    assert differing({"count": np.array([4])}, {"count": np.array([5])}) == "differs by up to 0.25 of its range"
