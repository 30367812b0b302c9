"""What a study compares, as JSON says it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple


class Method(NamedTuple):
    """What answers, and how the rows of the table are called that it gives.

    Attributes:
        name: of the row; ``{radius}`` in it stands for the filter.
        config: of the bundle, that has the inferer.
        inferer: id in the config.
        settings: keys of the config that differ from its defaults.
        drawn: whether seeds make a difference.
        radii: of the final filter of a map (see ``smooth``), pixels, a row each; the bundle's own by default.
        pictured: those of them whose rows are in figures, None for all.
        against: row that these are also compared with, beside the first.
        members: samples of a segmentation that are made and compared, by default as many as the study says.
        control: whether nothing of it was learnt.
    """

    name: str
    config: str = "inference"
    inferer: str = "inferer"
    settings: Mapping[str, Any] = {}
    drawn: bool = False
    radii: Sequence[Sequence[int]] = ()
    pictured: Sequence[Sequence[int]] | None = None
    against: str = ""
    members: int | None = None
    control: bool = False


def methods(rows: Sequence[Mapping[str, Any]], shared: Mapping[str, Mapping[str, Any]] | None = None) -> list[Method]:
    """Return the methods of the rows of a study.

    A row has attributes of ``Method``, and two more. ``with`` names settings that several rows share. ``vary`` has keys
    of the config with the values to try, of several keys in one string, as "a, b", those to try together; the row then
    stands for all combinations, in whose names ``{key}`` is the value. Of an id, as ``inferer::layer``, the key is the
    last part.

    Args:
        rows: as JSON has them.
        shared: settings by name; a row's own go over them.
    """
    made = []
    for row in rows:
        options = {name: value for name, value in row.items() if name not in ("with", "vary")}
        settings: dict[str, Any] = {}
        for name in row.get("with", ()):
            settings |= (shared or {})[name]
        settings |= row.get("settings", {})
        for varied in combinations(row.get("vary", {})):
            values = {key.rpartition("::")[2]: value for key, value in varied.items()}
            name = row["name"].format(**values, radius="{radius}")
            made.append(Method(**options | {"name": name, "settings": settings | varied}))
    return made


def combinations(vary: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield the combinations of values, the last key's first; without any key one that is empty.

    Args:
        vary: values by key; by several keys, as "a, b", lists of a value for each.
    """
    axes = []
    for keys, choices in vary.items():
        names = keys.split(", ")
        axes.append([dict(zip(names, choice if len(names) > 1 else [choice], strict=True)) for choice in choices])
    for chosen in product(*axes):
        yield {key: value for part in chosen for key, value in part.items()}


def rows_of(method: Method, own_radius: Sequence[int]) -> dict[str, Sequence[int]]:
    """Return the radius of each row of a method, by its name.

    Args:
        method: that gives the rows.
        own_radius: of the bundle's filter.
    """
    return {method.name.format(radius=list(radius)): radius for radius in method.radii or [own_radius]}


def pairs_of(compared: Sequence[Method], own_radius: Sequence[int]) -> dict[str, str]:
    """Return the rows that are also compared with another one, and that one.

    Args:
        compared: the methods.
        own_radius: of the bundle's filter.
    """
    return {
        row: method.against.format(radius=list(radius))
        for method in compared
        for row, radius in rows_of(method, own_radius).items()
        if method.against
    }
