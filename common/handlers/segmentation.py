"""Segmentations and their uncertainty against labels."""

from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from ..metrics.pixels import PooledCounts
from ..metrics.segmentation import (
    SegmentationRecord,
    examine_segmentation,
    retention,
    summarise_segmentations,
)
from ..metrics.tables import Row
from ..report.figures import png, uncertainty_figure
from ..report.page import Picture, Section
from .output import as_seen, from_all_ranks, spacing_mm, write_csv


class SegmentationScores:
    """Compare the masks of an evaluator with labels, and their uncertainty with where they are wrong.

    The items of its output need ``mean``, ``uncertainty``, ``mask`` and ``organ``, each of shape (C, X, Y[, Z]), and
    ``label``; other cases are passed over. Of several regions the first is judged: the one that holds the others. When
    the run ends, ``engine.state.metrics`` has the means, ``records`` all cases of all processes, ``rows`` the summary.

    Args:
        output_dir: where ``per_slice.csv``, ``per_patient.csv`` and ``summary.csv`` go; None writes nothing.
        num_resamples: draws of the patient bootstrap; 0 gives no intervals.
    """

    def __init__(self, output_dir: str | None = None, num_resamples: int = 0) -> None:
        self.output_dir, self.num_resamples = output_dir, num_resamples
        self.records: list[SegmentationRecord] = []
        self.rows: list[Row] = []

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._examine)
        engine.add_event_handler(Events.COMPLETED, self._summarise)

    def _start(self) -> None:
        self.records, self.rows = [], []

    def _examine(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if output.get("label") is None:
                continue
            arrays = as_seen(output, ("mean", "uncertainty", "mask", "organ", "label"))
            mean, uncertainty = arrays["mean"], arrays["uncertainty"]
            mask, organ, truth = (arrays[key] > 0 for key in ("mask", "organ", "label"))
            images = (mean, uncertainty, mask, organ, truth)
            self.records.append(
                examine_segmentation(item["case"], item["patient"], *images, spacing_mm(output["mask"]))
            )

    def _summarise(self, engine: Any) -> None:
        self.records = sorted(from_all_ranks(self.records), key=lambda record: record.case)
        if not self.records:
            return
        self.rows = summarise_segmentations(self.records, self.num_resamples)
        engine.state.metrics.update({row["metric"]: row["value"] for row in self.rows})
        if self.output_dir is not None and idist.get_rank() == 0:
            folder = Path(self.output_dir)
            write_csv(folder / "per_patient.csv", [record.row for record in self.records])
            write_csv(folder / "per_slice.csv", [row for record in self.records for row in record.slice_rows])
            write_csv(folder / "summary.csv", self.rows)

    def sections(self) -> list[Section]:
        """Return what the page of a run shows of it."""
        if not self.records:
            return []
        errors = PooledCounts([record.errors for record in self.records]).curve()
        calibration = np.sum([record.calibration for record in self.records], axis=0)
        figure = uncertainty_figure(calibration, *retention(errors))
        return [
            Section("Segmentation", rows=self.rows, pictures=[Picture("Calibration and uncertainty.", png(figure))]),
            Section("Segmentation by case", rows=[record.row for record in self.records]),
        ]
