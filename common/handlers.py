"""Handlers that turn the outputs of an evaluator into tables, pictures and a page."""

import csv
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.transforms import Orientation
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from .checkpoints import load_parts
from .metrics.pixels import PooledCounts
from .metrics.tables import CaseRecord, Row, average_otsu, examine_case, froc, summarise
from .report.figures import CT, Display, curves_figure, froc_figure, overlay_figure, png, samples_figure, save_png
from .report.page import Picture, Section, versions, write_page

logger = logging.getLogger(__name__)


class LoadWeights:
    """Load a bundle's published weights when the engine starts, or say in one sentence why they do not fit.

    Args:
        network: the container.
        path: raw state dict of it.
    """

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        """Add the handler to an engine."""
        engine.add_event_handler(Events.STARTED, lambda: load_parts(self.network, self.path))


class Detection:
    """Compare the maps of an evaluator with labels, where cases have them.

    The items of its output need ``anomaly``, ``mask``, ``organ`` and ``label``, each of shape (1, X, Y[, Z]).
    When the run ends, ``engine.state.metrics`` has the pooled numbers, ``records`` all cases of all processes,
    ``rows`` the summary, ``fitted_threshold`` what masks of such cases should be made with.

    Args:
        output_dir: where ``per_slice.csv``, ``per_patient.csv`` and ``summary.csv`` go; None writes nothing.
        network: container with the threshold that the masks are made with.
        threshold: of the masks where the container has none.
        num_resamples: draws of the patient bootstrap; 0 gives no intervals.
        lesion_slices_only: leave out slices without lesions, as the paper's test set does.
        threshold_rule: what ``fitted_threshold`` is: ``dice``, the one of the largest pooled Dice, or ``otsu``, the
            mean of Otsu's thresholds of the slices with lesions, which then have columns of their own.
    """

    def __init__(
        self,
        network: nn.Module,
        output_dir: str | None = None,
        threshold: float = 20.0,
        num_resamples: int = 0,
        lesion_slices_only: bool = False,
        threshold_rule: str = "dice",
    ) -> None:
        if threshold_rule not in ("dice", "otsu"):
            raise ValueError(f"threshold_rule must be 'dice' or 'otsu', got {threshold_rule!r}.")
        self.output_dir, self.network, self.threshold = output_dir, network, threshold
        self.num_resamples, self.lesion_slices_only = num_resamples, lesion_slices_only
        self.otsu = threshold_rule == "otsu"
        self.records: list[CaseRecord] = []
        self.rows: list[Row] = []
        self.fitted_threshold = float("nan")

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._examine)
        engine.add_event_handler(Events.COMPLETED, self._summarise)

    def _start(self) -> None:
        self.records, self.rows, self.fitted_threshold = [], [], float("nan")

    def _examine(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            label = output.get("label")
            if label is None or (self.lesion_slices_only and not (label > 0).any()):
                continue
            arrays = as_seen(output, ("anomaly", "mask", "organ", "label", "probability"))
            self.records.append(
                examine_case(
                    item["case"],
                    item["patient"],
                    arrays["anomaly"],
                    arrays["mask"] > 0,
                    arrays["organ"] > 0,
                    arrays["label"] > 0,
                    spacing_mm(output["anomaly"]),
                    self.lesion_slices_only,
                    self.otsu,
                    arrays.get("probability"),
                )
            )

    def _summarise(self, engine: Any) -> None:
        self.records = sorted(_from_all_ranks(self.records), key=lambda record: record.case)
        if not self.records:
            return
        fitted = float(getattr(self.network, "threshold", np.nan))
        threshold = fitted if np.isfinite(fitted) else self.threshold
        self.rows = summarise(self.records, threshold, self.num_resamples)
        curve = PooledCounts([record.counts for record in self.records]).curve()
        dice, self.fitted_threshold = curve.best_dice()
        if self.otsu:
            self.fitted_threshold = average_otsu(self.records)
        engine.state.metrics.update(ap=curve.average_precision(), auroc=curve.auroc(), best_dice=dice)
        if self.output_dir is not None and idist.get_rank() == 0:
            folder = Path(self.output_dir)
            write_csv(folder / "per_slice.csv", [row for record in self.records for row in record.slice_rows])
            write_csv(folder / "per_patient.csv", [record.row for record in self.records])
            write_csv(folder / "summary.csv", self.rows)


class CaseReport:
    """Draw each case and write one page of the run.

    Args:
        output_dir: where ``<case>/<case>_overlay.png`` and ``report.html`` go.
        title: of the page.
        notice: said first on the page.
        parameters: shown as a table.
        detection: its tables and curves are shown, if cases have labels.
        failures: cases that could not be done are listed.
        num_slices: most anomalous slices that are drawn of a case.
        display: how they are drawn, see ``report.figures.Display``.
    """

    def __init__(
        self,
        output_dir: str,
        title: str,
        notice: str = "",
        parameters: Mapping[str, Any] | None = None,
        detection: Detection | None = None,
        failures: Any = None,
        num_slices: int = 4,
        display: Display = CT,
    ) -> None:
        self.output_dir, self.title, self.notice, self.parameters = Path(output_dir), title, notice, parameters or {}
        self.detection, self.failures, self.num_slices, self.display = detection, failures, num_slices, display
        self.rows: list[Row] = []
        self._clock = 0.0

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_clock)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._draw)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        self.rows = []

    def _start_clock(self) -> None:
        self._clock = time.perf_counter()

    def _draw(self, engine: Any) -> None:
        seconds, unit = time.perf_counter() - self._clock, self.display.unit
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = item["case"]
            figure = case_figure(case, output, self.num_slices, self.display)
            save_png(figure, self.output_dir / case / f"{case}_overlay.png")
            arrays = as_seen(output, ("anomaly", "mask", "organ"))
            organ = arrays["organ"] > 0
            millilitres = float(np.prod(spacing_mm(output["anomaly"]))) / 1000
            self.rows.append(
                {
                    "case": case,
                    "slices with organ": int(organ.any((0, 1)).sum()) if organ.ndim == 3 else 1,
                    "organ, ml": float(organ.sum() * millilitres),
                    "mask, ml": float((arrays["mask"] > 0).sum() * millilitres),
                    f"mean score, {unit}": float(arrays["anomaly"][organ].mean()),
                    f"highest score, {unit}": float(arrays["anomaly"].max()),
                    "seconds": seconds / len(engine.state.output),
                }
            )

    def _write(self) -> None:
        rows = sorted(_from_all_ranks(self.rows), key=lambda row: row["case"])
        failed = dict(_from_all_ranks(list(self.failures.reasons.items()) if self.failures else []))
        if idist.get_rank() == 0:
            write_page(self.output_dir / "report.html", self.title, self._sections(rows, failed), self.notice)
            logger.info(f"report: {self.output_dir / 'report.html'}")

    def _sections(self, rows: Sequence[Row], failed: Mapping[str, str]) -> list[Section]:
        overlays = [self.output_dir / row["case"] / f"{row['case']}_overlay.png" for row in rows]
        pictures = [Picture(path.parent.name, path.read_bytes()) for path in overlays]
        parameters = [{"parameter": name, "value": str(value)} for name, value in self.parameters.items()]
        return [
            Section("Cases", rows=rows),
            Section("Cases that could not be done", rows=[{"case": c, "reason": r} for c, r in failed.items()]),
            *self._detection_sections(),
            Section("Most anomalous slices", text=[OVERLAY_LEGEND], pictures=pictures) if pictures else Section(""),
            Section("Parameters", rows=parameters),
            Section("Versions", rows=versions()),
        ]

    def _detection_sections(self) -> list[Section]:
        if self.detection is None or not self.detection.records:
            return []
        records = self.detection.records
        pooled = PooledCounts([record.counts for record in records]).curve()
        pictures = [Picture("All pixels of the organs, pooled.", png(curves_figure({"map": pooled})))]
        false_positives, sensitivity, _ = froc(records)
        pictures.append(Picture("Peaks of the map against lesions.", png(froc_figure(false_positives, sensitivity))))
        return [
            Section("Detection", rows=self.detection.rows, pictures=pictures),
            Section("Detection by case", rows=[record.row for record in records]),
        ]


class TrainingPairs:
    """List synthetic images and their masks in a ``dataset.json``, as training cases.

    Args:
        output_dir: where it goes, and the folders of the cases are.
        image: postfix of the synthetic images.
        label: postfix of the masks.
    """

    def __init__(self, output_dir: str, image: str, label: str) -> None:
        self.output_dir, self.image, self.label = Path(output_dir), image, label
        self.items: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.items.clear())
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _add(self, engine: Any) -> None:
        for item, _ in zip(engine.state.batch, engine.state.output, strict=True):
            case = item["case"]
            paths = {key: f"{case}/{case}_{getattr(self, key)}.nii.gz" for key in ("image", "label")}
            self.items.append({"case": case, "patient": item["patient"], **paths, "image_label": 1})

    def _write(self) -> None:
        items = sorted(_from_all_ranks(self.items), key=lambda item: item["case"])
        if idist.get_rank() == 0:
            content = {"name": "synthetic lesions", "training": items, "validation": [], "testing": []}
            (self.output_dir / "dataset.json").write_text(json.dumps(content, indent=1) + "\n")


class Previews:
    """Show the most anomalous slices of each case in TensorBoard.

    Args:
        log_dir: of TensorBoard.
        display: see ``CaseReport``.
    """

    def __init__(self, log_dir: str, display: Display = CT) -> None:
        self.log_dir, self.display = log_dir, display
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._draw)

    def _draw(self, engine: Any) -> None:
        with SummaryWriter(self.log_dir) as writer:
            for item, output in zip(engine.state.batch, engine.state.output, strict=True):
                figure = case_figure(item["case"], output, 4, self.display)
                writer.add_figure(item["case"], figure, engine.state.epoch)


def write_samples(path: str, real: Any, generated: Any) -> None:
    """Write real slices above generated ones as PNG.

    Args:
        path: of the picture.
        real: HU, shape (N, X, Y).
        generated: HU, shape (N, X, Y).
    """
    save_png(samples_figure(convert_to_numpy(real), convert_to_numpy(generated)), Path(path))
    logger.info(f"real and generated slices: {path}")


OVERLAY_LEGEND = (
    "Cyan: the organ that was searched. Yellow: what the mask calls lesion. Lime: lesions by the label. "
    "Slices are counted from the feet; the patient's right is on the left."
)


def case_figure(case: str, output: Mapping[str, Any], num_slices: int, display: Display = CT) -> Figure:
    """Return the most anomalous slices of a case, see ``overlay_figure``.

    Args:
        case: title of the figure.
        output: of an evaluator, with ``image``, ``healthy``, ``anomaly``, ``mask``, ``organ`` and perhaps ``label``.
        num_slices: at the most.
        display: see ``CaseReport``.
    """
    arrays = as_seen(output, ("anomaly", "mask", "organ", "label"))
    arrays |= as_seen(output, ("image", "healthy"), display.channel)
    right, front = spacing_mm(output["anomaly"])[:2]
    truth = arrays["label"] > 0 if "label" in arrays else None
    mask, organ = arrays["mask"] > 0, arrays["organ"] > 0
    images = (arrays["image"], arrays["healthy"], arrays["anomaly"], mask, organ, truth)
    return overlay_figure(*images, num_slices, case, front / right, display)


def as_seen(output: Mapping[str, Any], keys: Sequence[str], channel: int = 0) -> dict[str, NDArray[Any]]:
    """Return those images of an item that it has, as arrays (X, Y[, Z]) to the patient's right, front and head.

    Args:
        output: of an evaluator; MetaTensors of shape (C, X, Y[, Z]).
        keys: of the images.
        channel: which one is taken.
    """
    orient = Orientation(axcodes="RAS", labels=None)
    present = [key for key in keys if output.get(key) is not None]
    return {key: convert_to_numpy(orient(output[key][channel : channel + 1]))[0] for key in present}


def spacing_mm(image: MetaTensor) -> list[float]:
    """Return the size of a MetaTensor's voxels along right, front and head, mm."""
    oriented: Any = Orientation(axcodes="RAS", labels=None)(image)
    return [float(size) for size in oriented.pixdim]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with the same keys as CSV; a killed run leaves no half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def _from_all_ranks(values: list) -> list:
    """Return the values of all processes, one after another."""
    if idist.get_world_size() == 1:
        return values
    gathered: list[list] = [[] for _ in range(idist.get_world_size())]
    torch.distributed.all_gather_object(gathered, values)
    return [value for part in gathered for value in part]
