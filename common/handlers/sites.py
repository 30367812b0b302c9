"""Classes of cases of several sites: what a classifier says of them, where their vectors lie, and where it looked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import convert_to_numpy
from numpy.typing import NDArray

from ..metrics.classification import ClassRecord, examine_class, groups_of, reliability, summarise_classes
from ..metrics.latents import class_silhouette, map_of, site_probe
from ..metrics.statistics import Row
from ..report.figures import png, save_png
from ..report.latents import evidence_figure, histogram_figure, map_figure, reliability_figure
from ..report.page import Picture, Section
from .scores import Scores

NUM_BINS = 50
"""Of the histograms of intensities."""

UNKNOWN = -1
"""Class of a case of which nobody says it."""


@dataclass(frozen=True)
class SiteRecord(ClassRecord):
    """What is kept of a case, whose class may be ``UNKNOWN``.

    Attributes:
        latent: its vector.
        histogram: shares of its voxels above 0, in bins of equal width from 0 to 1.
    """

    latent: NDArray[Any] = field(kw_only=True)
    histogram: NDArray[Any] = field(kw_only=True)


class SiteScores(Scores):
    """Compare classes with probabilities, and show where vectors of images lie.

    The items of the output need ``image``, ``probability``, ``distance`` and ``latent``; those of the batch may have
    ``site`` and ``image_label``. Cases without a class count in the pictures alone.

    Args:
        output_dir: see ``Scores``.
        num_resamples: see ``Scores``.
        target_sites: names of the target's sites.
        evidence: takes an image of shape (C, *spatial) and returns where its class is seen in it, a map of shape
            (*spatial); None draws nothing.
        num_looked: cases whose map is on the page; that of each lies in its folder.
    """

    title = "Classification"
    key_metrics = ("target: AUROC", "target: accuracy", "AUROC", "accuracy")

    def __init__(
        self,
        output_dir: str | None = None,
        num_resamples: int = 0,
        target_sites: Sequence[str] = (),
        evidence: Callable[[Any], Any] | None = None,
        num_looked: int = 12,
    ) -> None:
        super().__init__(output_dir, num_resamples)
        self.target_sites, self.evidence, self.num_looked = target_sites, evidence, num_looked

    def examine(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterator[SiteRecord]:
        """Yield the record of a case."""
        probability, away, latent = (convert_to_numpy(output[key]) for key in ("probability", "distance", "latent"))
        case, known = item["case"], item.get("image_label")
        label = UNKNOWN if known is None else int(known)
        named = (case, str(item.get("patient", case)))
        row = examine_class(*named, max(label, 0), probability, str(item.get("site", ""))).row
        row["image_label"] = "" if label == UNKNOWN else label
        image = convert_to_numpy(output["image"])[0]
        counts, _ = np.histogram(image[image > 0], NUM_BINS, (0, 1))
        if self.evidence is not None and self.output_dir is not None:
            said = f"{case}: class {row['prediction']}" + ("" if label == UNKNOWN else f", {label} by the label")
            seen = convert_to_numpy(self.evidence(output["image"]))
            save_png(evidence_figure(image, seen, said), self._picture(case))
        measured = {"latent": latent, "histogram": counts / max(counts.sum(), 1)}
        yield SiteRecord(*named, row, [], label, probability, row.get("site", ""), away, **measured)

    def _picture(self, case: str) -> Path:
        return Path(self.output_dir or "") / case / f"{case}_evidence.png"

    @property
    def labelled(self) -> list[SiteRecord]:
        """The records of cases whose class is known."""
        return [record for record in self.records if record.image_label != UNKNOWN]

    def summarise(self) -> tuple[list[Row], dict[str, float]]:
        """Return the metrics, in the summary and of the evaluator; none where no class is known."""
        if not self.labelled:
            return [], {}
        rows = summarise_classes(self.labelled, self.num_resamples, self.target_sites)
        latents, labels = self._latents(self.labelled), [record.image_label for record in self.labelled]
        told, chance = site_probe(
            self._latents(self.records), [r.site for r in self.records], [r.patient for r in self.records]
        )
        for metric, value in (
            ("silhouette of the classes", class_silhouette(latents, labels)),
            ("sites told from vectors", told),
            ("sites told by chance", chance),
        ):
            rows.append({"metric": metric, "value": value, "low": float("nan"), "high": float("nan")})
        return rows, {row["metric"]: row["value"] for row in rows}

    @staticmethod
    def _latents(records: Sequence[SiteRecord]) -> NDArray[Any]:
        return np.stack([record.latent for record in records])

    def pictures(self) -> Sequence[Picture]:
        """Return how often the probabilities are true."""
        groups = {"all": self.labelled} if not self.target_sites else groups_of(self.labelled, self.target_sites)
        bins = {name: reliability(records) for name, records in groups.items() if records}
        return [Picture("Calibration", png(reliability_figure(bins)))] if bins else []

    def details(self) -> Sequence[Section]:
        """Return the map of the vectors, the intensities of the sites, and where the network looked."""
        records, sections = self.records, []
        points = map_of(self._latents(records))
        if len(points):
            labels = [None if record.image_label == UNKNOWN else record.image_label for record in records]
            figure = map_figure(points, labels, [record.site for record in records])
            picture = Picture("Near points are near vectors", png(figure))
            sections.append(Section("Where the vectors lie", pictures=[picture]))
        sites = sorted({record.site for record in records})
        shares = {site: np.mean([r.histogram for r in records if r.site == site], axis=0) for site in sites}
        picture = Picture("Means over the images of each site", png(histogram_figure(shares)))
        sections.append(Section("Intensities of the sites", pictures=[picture]))
        looked = [Picture(r.case, self._picture(r.case).read_bytes()) for r in self._shown()] if self.evidence else []
        text = [EVIDENCE] if looked else []
        return [*sections, Section("Where the network looked", text, pictures=looked)]

    def _shown(self) -> list[SiteRecord]:
        """Return cases of all sites and classes in turn."""
        cells: dict[tuple[str, int], list[SiteRecord]] = {}
        for record in self.records:
            cells.setdefault((record.site, record.image_label), []).append(record)
        longest = max(map(len, cells.values()))
        turns = [own[turn] for turn in range(longest) for own in cells.values() if turn < len(own)]
        return turns[: self.num_looked]


EVIDENCE = (
    "LayerCAM (Jiang et al. 2021) of the class that is called, scaled to its highest value in each case. It shows what "
    "speaks for the answer, coarsely, and is no segmentation."
)
