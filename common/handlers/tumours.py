"""Segmentations of tumours against labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..metrics.statistics import Record, Row
from ..metrics.tumours import EARLY_MM, by_column, examine_tumour_segmentation, summarise_tumours
from ..report.page import Section
from .output import as_seen, spacing_mm
from .scores import Scores

NUM_WORST = 5


class TumourScores(Scores):
    """Compare the masks of an evaluator with labels: overlap, and tumour by tumour what is found.

    When the run ends, ``groups`` has the main metrics by the values of each column.

    The items of its output need ``probability``, ``mask``, ``organ`` and ``label``, 1 in tumours, each of shape
    (1, X, Y, Z), and those of its batch may have ``true_organ``; cases without a label are passed over. Besides the
    tables of all scores there are ``per_tumour.csv`` and ``by_column.csv``.

    Args:
        output_dir: see ``Scores``.
        num_resamples: see ``Scores``.
        columns: of ``dataset.json``, such as ``sex``, ``age`` or ``scanner``, by whose values cases are told apart.
    """

    title = "Segmentation"
    key_metrics = ("DSC", "NSD at 2 mm", f"sensitivity, tumours of at most {EARLY_MM:g} mm", "false positives a scan")

    def __init__(self, output_dir: str | None = None, num_resamples: int = 0, columns: Sequence[str] = ()) -> None:
        super().__init__(output_dir, num_resamples)
        self.columns = columns
        self.groups: list[Row] = []

    def examine(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterator[Record]:
        """Yield the record of a case, its tumours in place of slices."""
        if output.get("label") is None:
            return
        seen = as_seen(output, ("probability", "mask", "organ", "label")) | as_seen(item, ["true_organ"])
        organ = (seen["organ"] > 0, seen["true_organ"] > 0) if "true_organ" in seen else None
        known = {column: _plain(item[column]) for column in self.columns if column in item}
        images = (seen["probability"], seen["mask"] > 0, seen["label"] > 0, spacing_mm(output["mask"]), organ)
        yield examine_tumour_segmentation(item["case"], str(item.get("patient", item["case"])), *images, known)

    def summarise(self) -> tuple[list[Row], dict[str, float]]:
        """Return the metrics, in the summary and of the evaluator."""
        rows = summarise_tumours(self.records, self.num_resamples)
        self.groups = [row for column in self.columns for row in by_column(self.records, column, self.num_resamples)]
        return rows, {row["metric"]: row["value"] for row in rows}

    def tables(self) -> dict[str, list[Row]]:
        """Return the rows of each file."""
        tables = super().tables()
        tables["per_tumour"] = tables.pop("per_slice")
        return {**tables, "by_column": self.groups}

    def details(self) -> Sequence[Section]:
        """Return the cases that are segmented worst, and the groups."""
        scored = [record.row for record in self.records if record.slice_rows]
        worst = sorted(scored, key=lambda row: row["dice"])[:NUM_WORST] if len(scored) > NUM_WORST else []
        return [Section("Worst cases", rows=worst), Section("By column", rows=self.groups)]


def _plain(value: Any) -> Any:
    """Return a value as it stood in ``dataset.json``: a batch has made a tensor of a number."""
    return value.item() if hasattr(value, "item") else value
