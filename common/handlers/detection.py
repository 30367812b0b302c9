"""Maps against labels, marked points and the classes of whole images."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Orientation
from monai.utils import convert_to_numpy
from numpy.typing import NDArray

from ..metrics.detection import (
    CaseRecord,
    ImageRecord,
    average_otsu,
    examine_case,
    examine_image,
    froc,
    pool_images,
    pool_pixels,
    slices_with_lesions,
    summarise,
    summarise_images,
)
from ..metrics.lesions import peak_to_point_mm
from ..metrics.statistics import Record, Row, with_all_columns
from ..metrics.twins import TwinRecord, examine_twin, scored, summarise_twins
from ..report.figures import curves_figure, froc_figure, png
from ..report.page import Picture
from .output import as_seen, spacing_mm
from .scores import Scores

IMAGES = ("anomaly", "mask", "organ", "label", "probability")
"""What a detection is judged by, of the output of an evaluator."""


logger = logging.getLogger(__name__)


class Detection(Scores):
    """Compare the maps of an evaluator with labels, marked points, or the classes of whole images.

    The items of its output need ``anomaly``, ``mask`` and ``organ``, each of shape (1, X, Y[, Z]), and ``label`` of the
    same shape. What the masks are made with the evaluator's inferer says, ``mask_threshold``. Cases without a label
    count if the batch has ``slice_class`` (see ``SliceClassesd``), or the ``image_label`` of a film or a single slice.
    A ``point`` of the batch, world coordinates in mm, marks a lesion that nobody has outlined; its ``twin`` is the same
    image of one channel without lesions, with which ``healthy`` is compared. Other cases are passed over.

    Args:
        output_dir: see ``Scores``.
        num_resamples: see ``Scores``.
        lesion_slices_only: leave out slices without lesions, as the paper's test set does.
        min_area: also leave out those whose lesions fill a smaller share of the slice; how many are kept is in the log.
        threshold_rule: what ``fitted_threshold`` is: ``dice``, the one of the largest pooled Dice, or ``otsu``, the
            mean of Otsu's thresholds of the diseased slices and films, which then have columns of their own.
        overlaps: also tell IoU and HD95 of slices.
        in_mm: pixels have a size in mm; false, as of films, leaves out all areas, volumes and diameters.
    """

    title = "Detection"
    key_metrics = (
        "pixel AUROC, pooled",
        "pixel AP, pooled",
        "Dice at the fitted threshold, pooled",
        "lesion sensitivity (any overlap)",
        "false positive components a scan",
        "image-level AUROC of the map",
        "image-level AUROC of the classifier",
    )

    def __init__(
        self,
        output_dir: str | None = None,
        num_resamples: int = 0,
        lesion_slices_only: bool = False,
        min_area: float = 0.0,
        threshold_rule: str = "dice",
        overlaps: bool = False,
        in_mm: bool = True,
    ) -> None:
        super().__init__(output_dir, num_resamples)
        if threshold_rule not in ("dice", "otsu"):
            raise ValueError(f"threshold_rule must be 'dice' or 'otsu', got {threshold_rule!r}.")
        self.otsu, self.in_mm = threshold_rule == "otsu", in_mm
        self.mask_threshold = float("nan")
        self.options: dict[str, Any] = {
            "lesion_slices_only": lesion_slices_only or min_area > 0,
            "min_area": min_area,
            "overlaps": overlaps,
        }

    @property
    def images(self) -> list[ImageRecord]:
        """All cases whose slices or films are known to be healthy or diseased."""
        return [record for record in self.records if isinstance(record, ImageRecord)]

    @property
    def labelled(self) -> list[CaseRecord]:
        """Of these, all cases with labels."""
        return [record for record in self.images if isinstance(record, CaseRecord)]

    @property
    def twins(self) -> list[TwinRecord]:
        """What is kept of cases whose twin is known."""
        return [record for record in self.records if isinstance(record, TwinRecord)]

    @property
    def fitted_threshold(self) -> float:
        """What the masks of such cases should be made with, NaN where none has lesions."""
        if self.otsu:
            return average_otsu(self.images)
        return pool_pixels(self.labelled).curve().best_dice()[1] if self.labelled else float("nan")

    @property
    def case_rows(self) -> list[Row]:
        """A row for each case of which anything is known."""
        rows: dict[str, Row] = {}
        for record in self.records:
            rows[record.case] = rows.get(record.case, {}) | record.row
        return with_all_columns(list(rows.values()))

    def examine(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterator[Record]:
        """Yield what label or classes say of a case's map, and then what its point and its twin do."""
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
                yield examine_case(**common, truth=masks["label"], **self.options)
        elif "slice_class" in item:
            classes: Any = np.atleast_3d(as_seen(item, ["slice_class"])["slice_class"])
            yield examine_image(**common, diseased=classes.any((0, 1)).tolist())
        elif image_label is not None and common["anomaly"].ndim == 2:
            yield examine_image(**common, diseased=[bool(image_label)])
        if item.get("point") is not None:
            row = {"case": item["case"], "patient": item["patient"], **mark_row(item, output)}
            yield Record(item["case"], item["patient"], row, [])
        if isinstance(item.get("twin"), torch.Tensor):
            shown = as_seen({**output, "image": item["image"], "twin": item["twin"]}, ("image", "healthy", "twin"))
            yield examine_twin(item["case"], item["patient"], **shown)

    def _kept(self, case: str, lesions: NDArray[np.bool_]) -> int:
        """Return how many slices of a case count, and say it where some with lesions do not."""
        share = self.options["min_area"]
        kept, all_with_lesions = (int(slices_with_lesions(lesions, least).sum()) for least in (share, 0))
        if kept < all_with_lesions:
            logger.info(
                f"{case}: {kept} of {all_with_lesions} slices with lesions are kept, where these fill {share:.0%}."
            )
        return kept

    def _finish(self, engine: Any) -> None:
        self.mask_threshold = engine.inferer.mask_threshold(engine.network)
        super()._finish(engine)

    def summarise(self) -> tuple[list[Row], dict[str, float]]:
        """Return metrics of pixels, lesions and images, and those of pixels and images for the evaluator."""
        rows, metrics = [], {}
        if self.labelled:
            rows = summarise(self.labelled, self.mask_threshold, self.num_resamples)
            curve = pool_pixels(self.labelled).curve()
            metrics = {"ap": curve.average_precision(), "auroc": curve.auroc(), "best_dice": curve.best_dice()[0]}
        rows += summarise_images(self.images, self.num_resamples)
        if twins := scored(self.twins):
            others = [record for record in self.records if not isinstance(record, TwinRecord)]
            self.records = sorted([*others, *twins], key=self.order)
            rows += summarise_twins(twins, self.num_resamples)
        pooled = pool_images(self.images)
        return rows, {**metrics, **{f"image_auroc_{name}": counts.curve().auroc() for name, counts in pooled.items()}}

    def write(self, folder: Path) -> None:
        """Write the tables, and say how many slices they are of."""
        if self.images:
            slices = sum(len(record.slice_rows) for record in self.images)
            logger.info(f"{slices} slices of {len(self.images)} cases are compared with labels.")
        super().write(folder)

    def pictures(self) -> list[Picture]:
        """Return the curves of pixels, lesions and images, of which there are any."""
        pictures = []
        curves = {name: pooled.curve() for name, pooled in pool_images(self.images).items()}
        if self.labelled:
            figure = curves_figure({"map": pool_pixels(self.labelled).curve()})
            pictures.append(Picture("All pixels that are searched, pooled.", png(figure)))
            false_positives, sensitivity, _ = froc(self.labelled)
            figure = froc_figure(false_positives, sensitivity)
            pictures.append(Picture("Peaks of the map against lesions.", png(figure)))
        if any(np.isfinite(curve.auroc()) for curve in curves.values()):
            pictures.append(
                Picture("Diseased slices against healthy ones; a 2-D image is one.", png(curves_figure(curves)))
            )
        return pictures


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
