import io

import pytest

from common.progress import bar, doing, time_left


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_says_what_is_done_meanwhile():
    terminal = Terminal()
    with doing("ct, 2 of 4"):
        list(bar(range(2), file=terminal))
    list(bar(range(2), file=terminal, desc="intervals"))
    shown = terminal.getvalue()
    assert "ct, 2 of 4:" in shown
    assert "ct, 2 of 4:" not in shown[shown.index("intervals") :]


def test_there_is_no_bar_where_the_output_is_no_terminal_or_none_is_wanted():
    file, terminal = io.StringIO(), Terminal()
    assert list(bar(range(3), file=file)) == list(bar(range(3), file=terminal, shown=False)) == [0, 1, 2]
    assert file.getvalue() == terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("done", "total", "seconds", "said"),
    [(0, 4, 0.0, ""), (1, 4, 10.0, ", 30 s left"), (2, 4, 130.0, ", 2 min 10 s left"), (4, 4, 9.0, ", 0 s left")],
)
def test_the_time_that_is_left_follows_from_the_cases_that_are_done(done, total, seconds, said):
    assert time_left(done, total, seconds) == said
