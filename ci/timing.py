"""How long a call takes, on a CPU or a GPU."""

import time
from collections.abc import Callable

from common.timing import synchronise


def time_of(call: Callable[[], object], repeats: int = 1, warm_up: int = 0) -> float:
    """Return the seconds that a call takes, the fewest of some.

    Args:
        call: that is timed.
        repeats: how often.
        warm_up: calls before, in which what it needs is compiled and allocated.
    """
    for _ in range(warm_up):
        call()
    spent = []
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        call()
        synchronise()
        spent.append(time.perf_counter() - start)
    return min(spent)


def line(name: str, value: str) -> None:
    """Print a figure under its name."""
    print(f"{name:36s} {value}", flush=True)
