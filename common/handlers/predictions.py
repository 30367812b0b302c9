"""What a classifier says of cases, as files."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import convert_to_numpy
from numpy.typing import NDArray

from ..files import write_bytes, write_csv
from .output import CaseCollector


class Predictions(CaseCollector):
    """Write ``predictions.csv`` and, where there are vectors, ``latents.npz``, sorted by case, of all processes.

    The items of the evaluator's output need ``probability``: a value a class, or an image with that of disease in each
    slice, of which the highest counts. They may have ``distance``, a value a class, and ``latent``, the vector.
    ``latents.npz`` has the arrays ``case``, ``site``, ``image_label`` (-1 where nobody knows) and ``latent``.

    Args:
        output_dir: where they go.
    """

    def __init__(self, output_dir: str) -> None:
        super().__init__()
        self.output_dir = Path(output_dir)

    def add(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of a case, and its ``latent`` if it has one."""
        there = {key: convert_to_numpy(output[key]) for key in ("probability", "distance", "latent") if key in output}
        probability, away, known = there["probability"], there.get("distance"), item.get("image_label")
        if probability.ndim > 1:
            probability = np.array([1 - probability.max(), probability.max()])
        return {
            "case": item["case"],
            "site": str(item.get("site", "")),
            "image_label": "" if known is None else int(known),
            **{f"probability_{k}": float(p) for k, p in enumerate(probability)},
            **({} if away is None else _distances(away)),
            "prediction": int(probability.argmax()),
            **({"latent": there["latent"]} if "latent" in there else {}),
        }

    def write(self, items: list[dict[str, Any]]) -> None:
        """Write the files, none without a case."""
        if not items:
            return
        rows = [{name: value for name, value in item.items() if name != "latent"} for item in items]
        write_csv(self.output_dir / "predictions.csv", rows)
        if "latent" not in items[0]:
            return
        content = io.BytesIO()
        np.savez_compressed(
            content,
            case=np.array([row["case"] for row in rows]),
            site=np.array([row["site"] for row in rows]),
            image_label=np.array([-1 if row["image_label"] == "" else row["image_label"] for row in rows]),
            latent=np.stack([item["latent"] for item in items]),
        )
        write_bytes(self.output_dir / "latents.npz", content.getvalue())


def _distances(away: NDArray[Any]) -> dict[str, Any]:
    """Return the columns of how far a case is from each class."""
    return {**{f"distance_{k}": float(d) for k, d in enumerate(away)}, "nearest": int(away.argmin())}
