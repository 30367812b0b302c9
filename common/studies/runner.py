"""The one loop of sweeps and studies: settings times cases."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from ..progress import bar

Case = TypeVar("Case")
Setting = TypeVar("Setting", bound=Hashable)
Record = TypeVar("Record")


def examined(
    sources: Iterable[tuple[str, Callable[[Case], Mapping[Setting, Record]]]], cases: Sequence[Case]
) -> Iterator[tuple[str, dict[Setting, list[Record]]]]:
    """Yield the name of each source with the records of all cases, by setting.

    A source is asked for all cases before the next one is made, so that no two networks are in memory.

    Args:
        sources: names, and what examines a case with one or several settings, which share what they can, an answer of
            the network for instance: (case) -> record by setting, nothing of a case that is left out.
        cases: what the sources take.
    """
    for name, source in sources:
        found: dict[Setting, list[Record]] = {}
        for case in bar(cases, desc=name):
            for setting, record in source(case).items():
                found.setdefault(setting, []).append(record)
        yield name, found
