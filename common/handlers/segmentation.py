"""Segmentations and their uncertainty against labels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from ..files import write_csv
from ..metrics.pixels import PooledCounts
from ..metrics.segmentation import (
    SegmentationRecord,
    examine_segmentation,
    retention,
    summarise_segmentations,
    summarise_sizes,
)
from ..metrics.statistics import Row
from ..report.figures import members_figure, png, uncertainty_figure
from ..report.page import Picture, Section
from .output import as_seen, from_all_ranks, spacing_mm


class SegmentationScores:
    """Compare the masks of an evaluator with labels, and their uncertainty with where they are wrong.

    The items of its output need ``mean``, ``uncertainty`` and ``label`` with a channel for each region, ``mask``, which
    counts the regions, and ``organ``, each of shape (C, X, Y[, Z]); cases without a label are passed over. With
    ``members``, all regions of the first, then of the second, smaller ensembles are compared. When the run
    ends, ``engine.state.metrics`` has the means, ``records`` those of each region, ``rows`` the summary.

    Args:
        output_dir: where ``per_slice.csv``, ``per_patient.csv`` and ``summary.csv`` go; None writes nothing.
        num_resamples: draws of the patient bootstrap; 0 gives no intervals.
    """

    def __init__(self, output_dir: str | None = None, num_resamples: int = 0) -> None:
        self.output_dir, self.num_resamples = output_dir, num_resamples
        self.records: dict[str, list[SegmentationRecord]] = {}
        self.rows: list[Row] = []
        self.sizes: list[Row] = []
        self._found: list[tuple[str, SegmentationRecord]] = []

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._examine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._summarise)  # when other handlers log the metrics

    def _start(self) -> None:
        self.records, self.rows, self.sizes, self._found = {}, [], [], []

    def _examine(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if output.get("label") is None:
                continue
            whole, regions = as_seen(output, ("mask", "organ")), len(output["label"])
            for region in range(regions):
                own = as_seen(output, ("mean", "uncertainty", "label"), channel=region)
                masks = (whole["mask"] > region, whole["organ"] > 0, own["label"] > 0)
                drawn = range(region, len(output.get("members", ())), regions)
                members = [as_seen(output, ["members"], channel)["members"] for channel in drawn]
                images = (own["mean"], own["uncertainty"], *masks, spacing_mm(output["mask"]), members)
                name = f"region {region + 1}: " if regions > 1 else ""
                self._found.append((name, examine_segmentation(item["case"], item["patient"], *images)))

    def _summarise(self, engine: Any) -> None:
        for name, record in sorted(from_all_ranks(self._found), key=lambda found: (found[0], found[1].case)):
            self.records.setdefault(name, []).append(record)
        for name, records in self.records.items():
            rows = summarise_segmentations(records, self.num_resamples)
            self.rows += [{**row, "metric": name + row["metric"]} for row in rows]
            self.sizes += [{**_region(name), **row} for row in summarise_sizes([r.sizes for r in records])]
        engine.state.metrics.update({row["metric"]: row["value"] for row in self.rows})
        if self.records and self.output_dir is not None and idist.get_rank() == 0:
            folder = Path(self.output_dir)
            write_csv(folder / "per_patient.csv", self._by_region(lambda record: [record.row]))
            write_csv(folder / "per_slice.csv", self._by_region(lambda record: record.slice_rows))
            write_csv(folder / "summary.csv", self.rows)
            if self.sizes:
                write_csv(folder / "members.csv", self.sizes)

    def _by_region(self, rows: Callable[[SegmentationRecord], Sequence[Row]]) -> list[Row]:
        """Return rows of all records; where there are several regions, each says of which it is."""
        return [
            {**_region(name), **row}
            for name, records in self.records.items()
            for record in records
            for row in rows(record)
        ]

    def sections(self) -> list[Section]:
        """Return what the page of a run shows of it; its curves are of the first region."""
        if not self.records:
            return []
        name, first = next(iter(self.records.items()))
        sizes = [row for row in self.sizes if _region(name).items() <= row.items()]
        members = [Picture("", png(members_figure(sizes)))] if sizes else []
        errors = PooledCounts([record.errors for record in first]).curve()
        calibration = np.sum([record.calibration for record in first], axis=0)
        figure = uncertainty_figure(calibration, *retention(errors))
        return [
            Section("Segmentation", rows=self.rows, pictures=[Picture("Calibration and uncertainty.", png(figure))]),
            Section("Members of the ensemble", rows=self.sizes, pictures=members),
            Section("Segmentation by case", rows=self._by_region(lambda record: [record.row])),
        ]


def _region(name: str) -> Row:
    """Return the column of a region where there are several."""
    return {"region": name.rstrip(": ")} if name else {}
