"""Tumours for readers who are not told which of them are real, and what their answers are worth.

python -m common.report.readings answers.csv readings_key.csv
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import fire
import numpy as np

from ..files import read_csv, write_csv, write_text
from .figures import png
from .page import Picture, rendered
from .tumours import TumourView, views_figure

KINDS = ("real", "synthetic")
ORGANS = ("liver", "pancreas", "kidney")


def write_readings(
    folder: str | Path, views: Mapping[str, Sequence[TumourView]], organ: str, num_pairs: int, seed: int = 0
) -> int:
    """Write ``readings.html``, which asks of each tumour whether it is real and of which organ, and how many there are.

    As many real as synthetic ones are drawn, in an order drawn too. What each is stands in ``readings_key.csv`` alone,
    which is not for readers.

    Args:
        folder: where they go.
        views: of tumours by kind, one of ``KINDS``.
        organ: whose tumours they are.
        num_pairs: at the most.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    count = min(num_pairs, *(len(views[kind]) for kind in KINDS))
    chosen = [(kind, views[kind][i]) for kind in KINDS for i in random.choice(len(views[kind]), count, replace=False)]
    if not chosen:
        return 0
    items, key = [], []
    for number, index in enumerate(random.permutation(len(chosen)), 1):
        kind, view = chosen[index]
        items.append({"number": number, "picture": Picture("", png(views_figure([view], [""], outlines=False)))})
        key.append({"item": number, "kind": kind, "organ": organ, "case": view.case})
    page = rendered("readings.html", items=items, kinds=KINDS, organs=ORGANS)
    write_text(Path(folder) / "readings.html", page)
    write_csv(Path(folder) / "readings_key.csv", key)
    return len(items)


def score_readings(answers: str | Path, key: str | Path) -> list[dict[str, float | str]]:
    """Return what a reader's answers are worth, a row for each organ and one for all, in percent.

    Real tumours are the positives: ``sensitivity`` is the share of them that were called real, ``specificity`` the
    share of synthetic ones that were called synthetic, as in Table 1 of Chen et al. 2024.

    Args:
        answers: CSV with ``item``, ``kind`` and ``organ``, as the page saves it; what is empty counts as wrong.
        key: that was written beside the page.

    Raises:
        ValueError: if an item is answered that the key does not have, or none is.
    """
    truth = {row["item"]: row for row in read_csv(key)}
    said = {row["item"]: row for row in read_csv(answers)}
    if not said or not said.keys() <= truth.keys():
        others = sorted(said.keys() - truth.keys())[:3]
        raise ValueError(f"{answers}: expected answers to items of {key}, got {others or 'none'}.")
    rows: list[dict[str, float | str]] = []
    for organ in [*sorted({row["organ"] for row in truth.values()}), "all"]:
        those = {item: row for item, row in truth.items() if item in said and organ in (row["organ"], "all")}
        right = {item: said[item]["kind"] == row["kind"] for item, row in those.items()}
        by_kind = {kind: [right[item] for item, row in those.items() if row["kind"] == kind] for kind in KINDS}
        of_organ = [said[item].get("organ") == row["organ"] for item, row in those.items()]
        rows.append(
            {
                "organ": organ,
                "items": len(those),
                "sensitivity": _percent(by_kind["real"]),
                "specificity": _percent(by_kind["synthetic"]),
                "accuracy": _percent(list(right.values())),
                "right organ": _percent(of_organ),
            }
        )
    return rows


def _percent(right: Sequence[bool]) -> float:
    return round(100 * float(np.mean(right)), 1) if right else float("nan")


def main(answers: str, key: str) -> None:
    """Print what a reader's answers are worth, see ``score_readings``."""
    for row in score_readings(answers, key):
        print(", ".join(f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in row.items()))


if __name__ == "__main__":
    fire.Fire(main, name="python -m common.report.readings")
