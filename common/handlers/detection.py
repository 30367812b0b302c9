"""Maps against labels, marked points and the classes of whole images."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.transforms import Orientation
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from torch import nn

from ..files import write_csv
from ..metrics.detection import (
    CaseRecord,
    ImageRecord,
    average_otsu,
    examine_case,
    examine_image,
    froc,
    pool_images,
    slices_with_lesions,
    summarise,
    summarise_images,
)
from ..metrics.lesions import peak_to_point_mm
from ..metrics.pixels import PooledCounts
from ..metrics.statistics import Row, with_all_columns
from ..report.figures import curves_figure, froc_figure, png
from ..report.page import Picture, Section
from .output import as_seen, from_all_ranks, spacing_mm

IMAGES = ("anomaly", "mask", "organ", "label", "probability")
"""What a detection is judged by, of the output of an evaluator."""


logger = logging.getLogger(__name__)


class Detection:
    """Compare the maps of an evaluator with labels, marked points, or the classes of whole images.

    The items of its output need ``anomaly``, ``mask`` and ``organ``, each of shape (1, X, Y[, Z]), and ``label`` of the
    same shape. Cases without a label count if the batch has ``slice_class`` (see ``SliceClassesd``), or the
    ``image_label`` of a film or a single slice. A ``point`` of the batch, world coordinates in mm, marks a lesion that
    nobody has outlined. Other cases are passed over. When the run ends, ``engine.state.metrics`` has the pooled
    numbers, ``records`` all cases with labels of all processes, ``unlabelled`` those whose class alone is known,
    ``rows`` the summary, ``case_rows`` a row for each case,
    ``fitted_threshold`` what masks of such cases should be made with.

    Args:
        output_dir: where ``per_slice.csv``, ``per_patient.csv`` and ``summary.csv`` go; None writes nothing.
        network: container with the threshold that the masks are made with.
        threshold: of the masks where the container has none.
        num_resamples: draws of the patient bootstrap; 0 gives no intervals.
        lesion_slices_only: leave out slices without lesions, as the paper's test set does.
        min_area: also leave out those whose lesions fill a smaller share of the slice; how many are kept is in the log.
        threshold_rule: what ``fitted_threshold`` is: ``dice``, the one of the largest pooled Dice, or ``otsu``, the
            mean of Otsu's thresholds of the diseased slices and films, which then have columns of their own.
        overlaps: also tell IoU and HD95 of slices.
        in_mm: pixels have a size in mm; false, as of films, leaves out all areas, volumes and diameters.
    """

    def __init__(
        self,
        network: nn.Module,
        output_dir: str | None = None,
        threshold: float = 20.0,
        num_resamples: int = 0,
        lesion_slices_only: bool = False,
        min_area: float = 0.0,
        threshold_rule: str = "dice",
        overlaps: bool = False,
        in_mm: bool = True,
    ) -> None:
        if threshold_rule not in ("dice", "otsu"):
            raise ValueError(f"threshold_rule must be 'dice' or 'otsu', got {threshold_rule!r}.")
        self.output_dir, self.network, self.threshold = output_dir, network, threshold
        self.num_resamples, self.otsu, self.in_mm = num_resamples, threshold_rule == "otsu", in_mm
        self.options: dict[str, Any] = {
            "lesion_slices_only": lesion_slices_only or min_area > 0,
            "min_area": min_area,
            "overlaps": overlaps,
        }
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
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._summarise)  # when other handlers log the metrics

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
                if not self.options["lesion_slices_only"] or self._kept(item["case"], masks["label"] & masks["organ"]):
                    self.records.append(examine_case(**common, truth=masks["label"], **self.options))
            elif "slice_class" in item:
                classes: Any = np.atleast_3d(as_seen(item, ["slice_class"])["slice_class"])
                self.unlabelled.append(examine_image(**common, diseased=classes.any((0, 1)).tolist()))
            elif image_label is not None and common["anomaly"].ndim == 2:
                self.unlabelled.append(examine_image(**common, diseased=[bool(image_label)]))
            if item.get("point") is not None:
                self.marked.append({"case": item["case"], "patient": item["patient"], **mark_row(item, output)})

    def _kept(self, case: str, lesions: NDArray[np.bool_]) -> int:
        """Return how many slices of a case count, and say it where some with lesions do not."""
        share = self.options["min_area"]
        kept, all_with_lesions = (int(slices_with_lesions(lesions, least).sum()) for least in (share, 0))
        if kept < all_with_lesions:
            logger.info(
                f"{case}: {kept} of {all_with_lesions} slices with lesions are kept, where these fill {share:.0%}."
            )
        return kept

    def _summarise(self, engine: Any) -> None:
        self.records = sorted(from_all_ranks(self.records), key=lambda record: record.case)
        self.unlabelled, self.marked = from_all_ranks(self.unlabelled), from_all_ranks(self.marked)
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
            logger.info(f"{len(slice_rows)} slices of {len(images)} cases are compared with labels.")
            write_csv(folder / "per_slice.csv", with_all_columns(slice_rows))
            write_csv(folder / "summary.csv", self.rows)

    def sections(self) -> list[Section]:
        """Return what the page of a run shows of it."""
        if not self.case_rows:
            return []
        images, records, pictures = self.images, self.records, []
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
            Section("Detection", rows=self.rows, pictures=pictures),
            Section("Detection by case", rows=self.case_rows),
        ]


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
