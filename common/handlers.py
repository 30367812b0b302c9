"""Handlers that turn the outputs of an evaluator into tables, pictures and a page."""

import csv
import io
import json
import logging
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
from .metrics.lesions import peak_to_point_mm
from .metrics.pixels import PooledCounts
from .metrics.tables import (
    CaseRecord,
    ImageRecord,
    Row,
    average_otsu,
    examine_case,
    examine_image,
    froc,
    pool_images,
    summarise,
    summarise_images,
    with_all_columns,
)
from .report.figures import CT, Display, curves_figure, froc_figure, overlay_figure, png, samples_figure, save_png
from .report.page import Picture, Section, versions, write_page, write_text

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


IMAGES = ("anomaly", "mask", "organ", "label", "probability")
"""What a detection is judged by, of the output of an evaluator."""


class Detection:
    """Compare the maps of an evaluator with labels, marked points, or the classes of whole images.

    The items of its output need ``anomaly``, ``mask`` and ``organ``, each of shape (1, X, Y[, Z]), and ``label`` of the
    same shape; films and single slices without a label count if their ``image_label`` is known. A ``point`` of the
    batch, world coordinates in mm, marks a lesion that nobody has outlined. Other cases are passed over. When the run
    ends, ``engine.state.metrics`` has the pooled numbers, ``records`` all cases with labels of all processes,
    ``unlabelled`` those whose class alone is known, ``rows`` the summary, ``case_rows`` a row for each case,
    ``fitted_threshold`` what masks of such cases should be made with.

    Args:
        output_dir: where ``per_slice.csv``, ``per_patient.csv`` and ``summary.csv`` go; None writes nothing.
        network: container with the threshold that the masks are made with.
        threshold: of the masks where the container has none.
        num_resamples: draws of the patient bootstrap; 0 gives no intervals.
        lesion_slices_only: leave out slices without lesions, as the paper's test set does.
        threshold_rule: what ``fitted_threshold`` is: ``dice``, the one of the largest pooled Dice, or ``otsu``, the
            mean of Otsu's thresholds of the diseased slices and films, which then have columns of their own.
        in_mm: pixels have a size in mm; false, as of films, leaves out all areas, volumes and diameters.
    """

    def __init__(
        self,
        network: nn.Module,
        output_dir: str | None = None,
        threshold: float = 20.0,
        num_resamples: int = 0,
        lesion_slices_only: bool = False,
        threshold_rule: str = "dice",
        in_mm: bool = True,
    ) -> None:
        if threshold_rule not in ("dice", "otsu"):
            raise ValueError(f"threshold_rule must be 'dice' or 'otsu', got {threshold_rule!r}.")
        self.output_dir, self.network, self.threshold = output_dir, network, threshold
        self.num_resamples, self.lesion_slices_only = num_resamples, lesion_slices_only
        self.otsu, self.in_mm = threshold_rule == "otsu", in_mm
        self.records: list[CaseRecord] = []
        self.unlabelled: list[ImageRecord] = []
        self.marked: list[Row] = []
        self.rows: list[Row] = []
        self.fitted_threshold = float("nan")

    @property
    def images(self) -> list[ImageRecord]:
        """All cases whose slices or films are known to be healthy or diseased."""
        return sorted([*self.records, *self.unlabelled], key=lambda record: record.case)

    @property
    def case_rows(self) -> list[Row]:
        """A row for each case of which anything is known."""
        rows = {record.case: record.row for record in self.images}
        for marked in self.marked:
            rows[marked["case"]] = rows.get(marked["case"], {}) | marked
        return with_all_columns([rows[case] for case in sorted(rows)])

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._examine)
        engine.add_event_handler(Events.COMPLETED, self._summarise)

    def _start(self) -> None:
        self.records, self.unlabelled, self.marked = [], [], []
        self.rows, self.fitted_threshold = [], float("nan")

    def _examine(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            arrays, image_label = as_seen(output, IMAGES), item.get("image_label")
            masks, size = {key: arrays[key] > 0 for key in IMAGES[1:4] if key in arrays}, spacing_mm(output["anomaly"])
            common: dict[str, Any] = {
                "case": item["case"],
                "patient": item["patient"],
                "anomaly": arrays["anomaly"],
                "mask": masks["mask"],
                "organ": masks["organ"],
                "spacing_mm": size if self.in_mm else [np.nan] * len(size),
                "otsu": self.otsu,
                "probability": arrays.get("probability"),
            }
            if "label" in masks:
                if not self.lesion_slices_only or (masks["label"] & masks["organ"]).any():
                    truth, chosen = masks["label"], self.lesion_slices_only
                    self.records.append(examine_case(**common, truth=truth, lesion_slices_only=chosen))
            elif image_label is not None and common["anomaly"].ndim == 2:
                self.unlabelled.append(examine_image(**common, diseased=bool(image_label)))
            if item.get("point") is not None:
                self.marked.append({"case": item["case"], "patient": item["patient"], **mark_row(item, output)})

    def _summarise(self, engine: Any) -> None:
        self.records = sorted(_from_all_ranks(self.records), key=lambda record: record.case)
        self.unlabelled, self.marked = _from_all_ranks(self.unlabelled), _from_all_ranks(self.marked)
        folder = None if self.output_dir is None or idist.get_rank() > 0 else Path(self.output_dir)
        if folder is not None and self.case_rows:
            write_csv(folder / "per_patient.csv", self.case_rows)
        images = self.images
        if not images:
            return
        if self.records:
            fitted = float(getattr(self.network, "threshold", np.nan))
            threshold = fitted if np.isfinite(fitted) else self.threshold
            self.rows = summarise(self.records, threshold, self.num_resamples)
            curve = PooledCounts([record.counts for record in self.records]).curve()
            dice, self.fitted_threshold = curve.best_dice()
            engine.state.metrics.update(ap=curve.average_precision(), auroc=curve.auroc(), best_dice=dice)
        self.rows += summarise_images(images, self.num_resamples)
        for name, pooled in pool_images(images).items():
            engine.state.metrics[f"image_auroc_{name}"] = pooled.curve().auroc()
        if self.otsu:
            self.fitted_threshold = average_otsu(images)
        if folder is not None:
            slice_rows = [row for record in images for row in record.slice_rows]
            write_csv(folder / "per_slice.csv", with_all_columns(slice_rows))
            write_csv(folder / "summary.csv", self.rows)


def mark_row(item: Mapping[str, Any], output: Mapping[str, Any]) -> Row:
    """Return what a map says of the marked point of a case.

    Args:
        item: of the batch, with ``point``, world coordinates in mm, and ``case``.
        output: of the evaluator, with ``anomaly`` and perhaps the ``probability`` of disease in each slice.
    """
    point = np.array([float(coordinate) for coordinate in item["point"]])
    oriented: Any = Orientation(axcodes="RAS", labels=None)(output["anomaly"])
    affine = convert_to_numpy(oriented.affine)
    arrays = {key: np.atleast_3d(x) for key, x in as_seen(output, ("anomaly", "probability")).items()}
    anomaly, probability = arrays["anomaly"], arrays.get("probability")
    marked = np.arange(anomaly.shape[2]) == round((np.linalg.inv(affine) @ [*point, 1])[2])
    row = {
        "peak_to_point_mm": peak_to_point_mm(anomaly, point, affine),
        "peak_to_point_in_its_slice_mm": peak_to_point_mm(np.where(marked, anomaly, 0), point, affine),
    }
    if probability is not None:
        row["probability"] = float(probability.max())
        row["probability_at_point"] = float(probability[..., marked].max(initial=0))
    return row


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
            millilitres = float(np.prod(spacing_mm(output["anomaly"]))) / 1000 if organ.ndim == 3 else np.nan
            probability = as_seen(output, ["probability"]).get("probability")
            self.rows.append(
                {
                    "case": case,
                    "slices with organ": int(organ.any((0, 1)).sum()) if organ.ndim == 3 else 1,
                    "organ, ml": float(organ.sum() * millilitres),
                    "mask, ml": float((arrays["mask"] > 0).sum() * millilitres),
                    "mask, % of the organ": 100 * float((arrays["mask"] > 0)[organ].mean()),
                    f"mean score, {unit}": float(arrays["anomaly"][organ].mean()),
                    f"highest score, {unit}": float(arrays["anomaly"].max()),
                    **({} if probability is None else {"highest probability of disease": float(probability.max())}),
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
        if self.detection is None or not self.detection.case_rows:
            return []
        images, records, pictures = self.detection.images, self.detection.records, []
        curves = {name: pooled.curve() for name, pooled in pool_images(images).items()}
        if records:
            pooled = PooledCounts([record.counts for record in records]).curve()
            pictures.append(Picture("All pixels of the organs, pooled.", png(curves_figure({"map": pooled}))))
            false_positives, sensitivity, _ = froc(records)
            figure = froc_figure(false_positives, sensitivity)
            pictures.append(Picture("Peaks of the map against lesions.", png(figure)))
        if any(np.isfinite(curve.auroc()) for curve in curves.values()):
            pictures.append(Picture("Diseased slices or films against healthy ones.", png(curves_figure(curves))))
        return [
            Section("Detection", rows=self.detection.rows, pictures=pictures),
            Section("Detection by case", rows=self.detection.case_rows),
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
            write_text(self.output_dir / "dataset.json", json.dumps(content, indent=1) + "\n")


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
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _from_all_ranks(values: list) -> list:
    """Return the values of all processes, one after another."""
    if idist.get_world_size() == 1:
        return values
    gathered: list[list] = [[] for _ in range(idist.get_world_size())]
    torch.distributed.all_gather_object(gathered, values)
    return [value for part in gathered for value in part]
