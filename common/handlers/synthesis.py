"""Tumours that were put into images, beside those that patients have."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import convert_to_numpy
from numpy.typing import NDArray

from ..metrics.intervals import rows_with_intervals
from ..metrics.radiomics import SHAPES, separability, tumour_features
from ..metrics.statistics import Record, Row, Statistic, mean_of_column
from ..metrics.synthesis import examine_tumours, pieces_of
from ..report.figures import png
from ..report.page import Picture, Section
from ..report.readings import write_readings
from ..report.tumours import TumourView, view_of, views_figure
from .output import as_seen, spacing_mm
from .scores import Scores

CHANGED_HU = 10.0
"""A tumour that changes its voxels by less, on average, is hardly one."""


FAILURES: dict[str, Callable[[Row, Mapping[str, float]], bool]] = {
    f"hardly to be seen: changes by less than {CHANGED_HU:g} HU": lambda row, _: row["change_hu"] < CHANGED_HU,
    "flat, a strip or a sickle: elongated by more than 3, or less than 0.7 of its hull": lambda _, features: (
        features["elongation"] < 1 / 3 or features["solidity"] < 0.7
    ),
    "as dark as fat: below -20 HU": lambda row, _: row["mean_hu"] < -20,
    "noise unlike that around: less than 0.7 or more than 1.4 of it": lambda row, _: (
        row["noise_ratio"] < 0.7 or row["noise_ratio"] > 1.4
    ),
}
"""What makes a tumour unlike a real one, by the words for it: Chen et al. 2024, appendix F.2, and what is not seen."""

PICTURED = 3
"""Tumours that are shown of each failure."""


@dataclass(frozen=True)
class SynthesisRecord(Record):
    """What is kept of a case; its tumours stand in place of slices.

    Attributes:
        features: of each tumour, see ``tumour_features``.
        views: of each tumour.
    """

    features: list[dict[str, float]]
    views: list[TumourView]


class SynthesisScores(Scores):
    """Measure the tumours that an evaluator has put into its cases, and compare them with those that patients have.

    The items of its output need ``image``, ``synthetic``, ``mask`` and ``organ``, each of shape (1, X, Y, Z). Besides
    the tables of all scores there is ``per_tumour.csv``.

    Args:
        real: items with ``image``, HU and the organ's mask, and ``label``; their tumours are measured in the same way.
        reconstruct: returns a row for each real item, how well its organ is reconstructed, for ``reconstruction.csv``.
        organ: whose tumours they are.
        num_pairs: of made and real tumours on a page for readers, see ``write_readings``.
        output_dir: see ``Scores``.
        num_resamples: see ``Scores``.
    """

    title = "Tumours"
    key_metrics = (
        "diameter, mm",
        "contrast, HU",
        "noise within over around",
        "AUROC of a classifier, made or real, by grey values",
    )

    def __init__(
        self,
        output_dir: str | None = None,
        num_resamples: int = 0,
        real: Sequence[Mapping[str, Any]] = (),
        reconstruct: Callable[[], list[Row]] | None = None,
        organ: str = "liver",
        num_pairs: int = 20,
    ) -> None:
        super().__init__(output_dir, num_resamples)
        self.real, self.reconstruct, self.organ, self.num_pairs = real, reconstruct, organ, num_pairs
        self.real_rows: list[Row] = []
        self.real_features: list[dict[str, float]] = []
        self.real_views: list[TumourView] = []

    def examine(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterator[Record]:
        """Yield the record of a case, its tumours in place of slices."""
        seen = as_seen(output, ("image", "synthetic", "mask", "organ"))
        masks = (seen["mask"] > 0, seen["organ"] > 0)
        size_mm = spacing_mm(output["mask"])
        tumours = examine_tumours(seen["synthetic"], *masks, size_mm, before=seen["image"])
        case, patient = item["case"], str(item.get("patient", item["case"]))
        row = {"case": case, "tumours": len(tumours), **_means(tumours)}
        rows = [{"case": case, **tumour} for tumour in tumours]
        described = _described(case, seen["synthetic"], masks[0], size_mm, seen["image"])
        yield SynthesisRecord(case, patient, row, rows, *described)

    def summarise(self) -> tuple[list[Row], dict[str, float]]:
        """Return means over all tumours, in the summary and of the evaluator."""
        if self.real and not self.real_rows:
            self._measure_real_tumours()
        made = [record.slice_rows for record in self.records]
        for tumours in made:
            for tumour in tumours:
                tumour["changed"] = float(tumour["change_hu"] >= CHANGED_HU)
        statistics: dict[str, Statistic] = {
            "diameter, mm": mean_of_column(made, "diameter_mm"),
            "share inside the organ": mean_of_column(made, "inside"),
            f"share that changes by {CHANGED_HU:g} HU or more": mean_of_column(made, "changed"),
            "change within, HU": mean_of_column(made, "change_hu"),
            "contrast, HU": mean_of_column(made, "contrast_hu"),
            "noise within over around": mean_of_column(made, "noise_ratio"),
        }
        if self.real_rows:
            low, high = np.nanpercentile([row["contrast_hu"] for row in self.real_rows], [5, 95])
            for tumours in made:
                for tumour in tumours:
                    tumour["as_real"] = float(low <= tumour["contrast_hu"] <= high)
            statistics["share with a contrast that 90 % of real tumours have"] = mean_of_column(made, "as_real")
        patients = [record.patient for record in self.records]
        rows = rows_with_intervals(patients, statistics, self.num_resamples)
        if self.real_rows:
            rows += self._lookalikes()
        for name, value in _means(self.real_rows).items():
            rows.append({"metric": f"real tumours: mean {name}", "value": value, "low": np.nan, "high": np.nan})
        return rows, {row["metric"]: row["value"] for row in rows}

    def _measure_real_tumours(self) -> None:
        for index in range(len(self.real)):
            item = self.real[index]
            image, truth = convert_to_numpy(item["image"]), convert_to_numpy(item["label"])[0] > 0
            organ = image[1] > 0 if len(image) > 1 else np.ones_like(truth)
            size_mm = spacing_mm(item["label"])
            found = examine_tumours(image[0], truth, organ, size_mm)
            self.real_rows += [{"case": item["case"], **tumour} for tumour in found]
            features, views = _described(item["case"], image[0], truth, size_mm)
            self.real_features += features
            self.real_views += views

    def _lookalikes(self) -> list[Row]:
        """Return how well a classifier tells made tumours from real ones; 0.5 says that they look alike."""
        made = [(features, record.patient) for record in self.records for features in record.features]
        patients = [f"made {patient}" for _, patient in made] + [f"real {row['case']}" for row in self.real_rows]
        features, kinds = [f for f, _ in made] + self.real_features, [0] * len(made) + [1] * len(self.real_features)
        grey = [name for name in self.real_features[0] if name not in SHAPES]
        return [
            {
                "metric": f"AUROC of a classifier, made or real, by {words}",
                "value": value,
                "low": np.nan,
                "high": np.nan,
            }
            for words, value in (
                ("grey values", separability(features, kinds, patients, grey)),
                ("grey values and shape", separability(features, kinds, patients)),
            )
        ]

    def tables(self) -> dict[str, list[Row]]:
        """Return the rows of each file."""
        tables = super().tables()
        tables["per_tumour"] = tables.pop("per_slice")
        rebuilt = self.reconstruct() if self.reconstruct else []
        return {**tables, "real_tumours": self.real_rows, "reconstruction": rebuilt}

    def write(self, folder: Path) -> None:
        """Write the tables that have rows, and the page for readers where there are real tumours."""
        super().write(folder)
        made = [view for record in self.records for view in record.views]
        if self.real_views:
            write_readings(
                folder / "readings", {"real": self.real_views, "synthetic": made}, self.organ, self.num_pairs
            )

    def details(self) -> Sequence[Section]:
        """Return the tumours that are unlike real ones, by what is wrong with them."""
        tumours = [each for r in self.records for each in zip(r.slice_rows, r.features, r.views, strict=True)]
        rows, pictures = [], []
        for words, fails in FAILURES.items():
            views = [view for row, features, view in tumours if fails(row, features)]
            rows.append({"failure": words, "tumours": len(views), "of": len(tumours)})
            if views:
                pictures.append(Picture(words, png(views_figure(views[:PICTURED]))))
        return [Section("Tumours that fail", [NO_MASS_EFFECT], rows, pictures)]


NO_MASS_EFFECT = "No tumour pushes aside what is around it, which larger ones do: that is a limit of all of them."


def _means(tumours: Sequence[Row]) -> Row:
    names = ("diameter_mm", "contrast_hu", "noise_ratio", "change_hu")
    return {name: float(np.nanmean([row[name] for row in tumours])) for name in names if tumours and name in tumours[0]}


def _described(
    case: str,
    image: NDArray[Any],
    tumours: NDArray[np.bool_],
    size_mm: Sequence[float],
    before: NDArray[Any] | None = None,
) -> tuple[list[dict[str, float]], list[TumourView]]:
    """Return the features and the view of each tumour."""
    features, views = [], []
    for box, piece in pieces_of(tumours):
        alone = np.zeros_like(tumours)
        alone[box] = piece
        features.append(tumour_features(image[box], piece, size_mm))
        views.append(view_of(case, image, alone, size_mm, before))
    return features, views
