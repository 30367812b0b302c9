"""What a classifier says of cases, as files."""

import io
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import convert_to_numpy

from ..files import write_bytes, write_csv
from .output import from_all_ranks


class Predictions:
    """Write ``predictions.csv`` and ``latents.npz``, sorted by case, of all processes.

    The items of the evaluator's output need ``probability`` and ``distance``, a value a class, and ``latent``, the
    vector. ``latents.npz`` has the arrays ``case``, ``site``, ``image_label`` (-1 where nobody knows) and ``latent``.

    Args:
        output_dir: where they go.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)
        self.found: list[tuple[dict[str, Any], Any]] = []

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.found.clear())
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _add(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            probability, away, latent = (convert_to_numpy(output[key]) for key in ("probability", "distance", "latent"))
            known = item.get("image_label")
            row = {
                "case": item["case"],
                "site": str(item.get("site", "")),
                "image_label": "" if known is None else int(known),
                **{f"probability_{k}": float(p) for k, p in enumerate(probability)},
                **{f"distance_{k}": float(d) for k, d in enumerate(away)},
                "nearest": int(away.argmin()),
                "prediction": int(probability.argmax()),
            }
            self.found.append((row, latent))

    def _write(self) -> None:
        found = sorted(from_all_ranks(self.found), key=lambda each: each[0]["case"])
        if idist.get_rank() > 0 or not found:
            return
        rows = [row for row, _ in found]
        write_csv(self.output_dir / "predictions.csv", rows)
        content = io.BytesIO()
        np.savez_compressed(
            content,
            case=np.array([row["case"] for row in rows]),
            site=np.array([row["site"] for row in rows]),
            image_label=np.array([-1 if row["image_label"] == "" else row["image_label"] for row in rows]),
            latent=np.stack([latent for _, latent in found]),
        )
        write_bytes(self.output_dir / "latents.npz", content.getvalue())
