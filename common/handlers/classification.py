"""Classes of whole cases against what a classifier says of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from monai.utils import convert_to_numpy

from ..metrics.classification import ClassRecord, examine_class, summarise_classes
from ..metrics.statistics import Row
from .scores import Scores


class Classification(Scores):
    """Compare the classes of whole cases with the probabilities that an evaluator gives them.

    The items of its output need ``probability``, a value for each of K classes, shape (K,). Cases count if the batch
    has their ``image_label``, one of 0 to K - 1; where it also has a ``site``, each site has metrics of its own. There
    are no slices, and no table of them.
    """

    title = "Classification"

    def examine(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterator[ClassRecord]:
        """Yield the record of a case whose class is known."""
        if item.get("image_label") is not None:
            probability = convert_to_numpy(output["probability"])
            site = str(item.get("site", ""))
            yield examine_class(item["case"], item["patient"], int(item["image_label"]), probability, site)

    def summarise(self) -> tuple[list[Row], dict[str, float]]:
        """Return the metrics of all cases and of each site, in the summary and of the evaluator."""
        rows = summarise_classes(self.records, self.num_resamples)
        return rows, {row["metric"]: row["value"] for row in rows}
