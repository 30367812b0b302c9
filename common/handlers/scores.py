"""What all comparisons of outputs with the truth share: records of all cases, tables as files, sections of the page."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from ..files import write_csv
from ..metrics.statistics import Record, Row, with_all_columns
from ..report.page import Picture, Section, Tile, format_cell
from .output import from_all_ranks

logger = logging.getLogger(__name__)


NOTHING_KNOWN = (
    "No case has a label, so nothing is compared: labels lie beside images as CASE_label, or stand in dataset.json."
)


class Scores(ABC):
    """Compare the outputs of an evaluator with what is known of its cases.

    A subclass says what is kept of a case, and what is told of all of them. When the run ends, ``records`` are those of
    all processes, sorted by case, ``rows`` is the summary, and ``engine.state.metrics`` has its numbers.

    Args:
        output_dir: where ``per_slice.csv``, ``per_patient.csv`` and ``summary.csv`` go, those that have rows; None
            writes nothing.
        num_resamples: draws of the patient bootstrap; 0 gives no intervals, and is silent where no case has a label.
    """

    title: ClassVar[str]
    """Of the section."""

    key_metrics: ClassVar[Sequence[str]] = ()
    """Of the summary, those that are said first, on the page and at the end of the run."""

    def __init__(self, output_dir: str | None = None, num_resamples: int = 0) -> None:
        self.output_dir, self.num_resamples = output_dir, num_resamples
        self.records: list[Any] = []
        self.rows: list[Row] = []

    @abstractmethod
    def examine(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterable[Record]:
        """Return the records of a case, none if nothing is known of it.

        Args:
            item: of the batch.
            output: of the evaluator.
        """

    @abstractmethod
    def summarise(self) -> tuple[list[Row], dict[str, float]]:
        """Return the summary of ``records``, of which there is one at least, and the metrics of the evaluator."""

    def order(self, record: Any) -> tuple[str, ...]:
        """Return by what records are sorted."""
        return (record.case,)

    def tiles(self) -> list[Tile]:
        """Return the key metrics that have a value, where there are several regions of the first."""
        found: dict[str, Row] = {}
        for row in self.rows:
            for key in self.key_metrics:
                if row["metric"] == key or row["metric"].endswith(f": {key}"):
                    found.setdefault(key, row)
        rows = [found[key] for key in self.key_metrics if key in found and np.isfinite(found[key]["value"])]
        return [Tile(row["metric"], format_cell(row["value"]), _interval(row)) for row in rows]

    def pictures(self) -> Sequence[Picture]:
        """Return the pictures below the summary."""
        return []

    def details(self) -> Sequence[Section]:
        """Return what stands between the summary and the table of all cases."""
        return []

    @property
    def case_rows(self) -> list[Row]:
        """A row for each record."""
        return with_all_columns([record.row for record in self.records])

    def tables(self) -> dict[str, list[Row]]:
        """Return the rows of each file, by its name without ending."""
        slice_rows = [row for record in self.records for row in record.slice_rows]
        return {"per_patient": self.case_rows, "per_slice": with_all_columns(slice_rows), "summary": self.rows}

    def write(self, folder: Path) -> None:
        """Write the tables that have rows, and say what matters and where the rest is."""
        tables = {name: rows for name, rows in self.tables().items() if rows}
        for name, rows in tables.items():
            write_csv(folder / f"{name}.csv", rows)
        for tile in self.tiles():
            logger.info(f"{tile.name}: {tile.value}" + (f" ({tile.note})" if tile.note else ""))
        logger.info(f"tables in {folder}: {', '.join(f'{name}.csv' for name in tables)}")

    def sections(self) -> list[Section]:
        """Return what the page of a run shows of it, nothing where nothing is known of its cases."""
        if not self.records:
            return [Section(self.title, [NOTHING_KNOWN])] if self.num_resamples else []
        return [
            Section(self.title, rows=self.rows, pictures=self.pictures()),
            *self.details(),
            Section(f"{self.title} by case", rows=self.case_rows),
        ]

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._examine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)  # when other handlers log the metrics

    def _start(self) -> None:
        self.records, self.rows = [], []

    def _examine(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.records += self.examine(item, output)

    def _finish(self, engine: Any) -> None:
        self.records = sorted(from_all_ranks(self.records), key=self.order)
        if self.num_resamples and idist.get_rank() == 0:
            drawn = f"intervals by {self.num_resamples} draws of {len(self.records)} cases"
            logger.info(drawn) if self.records else logger.warning(NOTHING_KNOWN)
        if self.records:
            self.rows, metrics = self.summarise()
            engine.state.metrics.update(metrics)
            if self.output_dir is not None and idist.get_rank() == 0:
                self.write(Path(self.output_dir))


def _interval(row: Row) -> str:
    low, high = row["low"], row["high"]
    return f"95 % interval {format_cell(low)} to {format_cell(high)}" if np.isfinite([low, high]).all() else ""
