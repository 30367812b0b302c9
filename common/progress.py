"""Bars that say what a run is at; where the output is no terminal there are none."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_DOING: ContextVar[str] = ContextVar("_DOING", default="")


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Let the bars that are shown meanwhile say what is done, in words."""
    token = _DOING.set(what)
    try:
        yield
    finally:
        _DOING.reset(token)


def bar(*args: Any, shown: bool = True, **options: Any) -> tqdm:
    """Return a bar that is gone when it is full.

    Args:
        args: see ``tqdm``.
        shown: false hides it on a terminal too.
        options: see ``tqdm``; ``desc`` stands for what ``doing`` says.
    """
    return tqdm(*args, **{"desc": _DOING.get() or None, "leave": False, **options}, disable=None if shown else True)


def time_left(done: int, total: int, seconds: float) -> str:
    """Return how long a run still takes, a clause; nothing before its first case is done.

    Args:
        done: cases.
        total: cases.
        seconds: that those took.
    """
    if not done:
        return ""
    left = round(seconds / done * (total - done))
    return f", {left // 60} min {left % 60} s left" if left >= 60 else f", {left} s left"
