"""Segmentations and their uncertainty against labels."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

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
from .output import as_seen, spacing_mm
from .scores import Scores


class SegmentationScores(Scores):
    """Compare the masks of an evaluator with labels, and their uncertainty with where they are wrong.

    The items of its output need ``mean``, ``uncertainty`` and ``label`` with a channel for each region, ``mask``, which
    counts the regions, and ``organ``, each of shape (C, X, Y[, Z]); cases without a label are passed over. With
    ``members``, all regions of the first, then of the second, smaller ensembles are compared, in ``members.csv``. Where
    there are several regions, all cases of the first stand before those of the second.
    """

    title = "Segmentation"
    key_metrics = ("Dice in 3-D, mean of patients", "AUROC of the uncertainty for errors")

    def examine(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterator[SegmentationRecord]:
        """Yield a record a region."""
        if output.get("label") is None:
            return
        whole, regions = as_seen(output, ("mask", "organ")), len(output["label"])
        for region in range(regions):
            own = as_seen(output, ("mean", "uncertainty", "label"), channel=region)
            masks = (whole["mask"] > region, whole["organ"] > 0, own["label"] > 0)
            channels = range(region, len(output.get("members", ())), regions)
            members = [as_seen(output, ["members"], channel)["members"] for channel in channels]
            images = (own["mean"], own["uncertainty"], *masks, spacing_mm(output["mask"]), members)
            name = f"region {region + 1}" if regions > 1 else ""
            yield examine_segmentation(item["case"], item["patient"], *images, region=name)

    def summarise(self) -> tuple[list[Row], dict[str, float]]:
        """Return the metrics of each region, in the summary and of the evaluator."""
        rows = [
            {**row, "metric": f"{region}: {row['metric']}" if region else row["metric"]}
            for region, records in self.regions().items()
            for row in summarise_segmentations(records, self.num_resamples)
        ]
        return rows, {row["metric"]: row["value"] for row in rows}

    def order(self, record: SegmentationRecord) -> tuple[str, ...]:
        """Return by what records are sorted."""
        return (record.region, record.case)

    def regions(self) -> dict[str, list[SegmentationRecord]]:
        """Return the records of each region."""
        return {region: list(records) for region, records in groupby(self.records, lambda record: record.region)}

    @property
    def sizes(self) -> list[Row]:
        """A row for each number of members."""
        return [
            {**({"region": region} if region else {}), **row}
            for region, records in self.regions().items()
            for row in summarise_sizes([record.sizes for record in records])
        ]

    def tables(self) -> dict[str, list[Row]]:
        """Return the rows of each file."""
        return {**super().tables(), "members": self.sizes}

    def pictures(self) -> Sequence[Picture]:
        """Return the curves of the first region."""
        first = next(iter(self.regions().values()))
        errors = PooledCounts([record.errors for record in first]).curve()
        calibration = np.sum([record.calibration for record in first], axis=0)
        figure = uncertainty_figure(calibration, *retention(errors))
        return [Picture("Calibration and uncertainty.", png(figure))]

    def details(self) -> Sequence[Section]:
        """Return the ensembles of all sizes, with the curves of the first region."""
        rows = self.sizes
        first = [row for row in rows if row.get("region") == rows[0].get("region")]
        pictures = [Picture("", png(members_figure(first)))] if first else []
        return [Section("Members of the ensemble", rows=rows, pictures=pictures)]
