import time

import pytest

from ci.timing import time_of


def test_the_fastest_of_some_calls_is_what_a_call_takes():
    waits = iter([0.3, 0.01, 0.3])
    assert 0.01 <= time_of(lambda: time.sleep(next(waits)), repeats=3) < 0.3


def test_calls_for_warming_up_do_not_count():
    waits = iter([0.0, 0.0, 0.05])
    assert time_of(lambda: time.sleep(next(waits)), warm_up=2) >= 0.05
    with pytest.raises(StopIteration):
        next(waits)
