"""A baseline of classifiers of several sites: their vectors adjusted by ComBat, and a linear classifier of them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ..files import read_csv, write_csv
from ..metrics.combat import combat


def write_harmonised(learnt: Path, tried: Path, dst: Path) -> None:
    """Write ``predictions.csv`` and ``per_patient.csv`` of cases as a classifier of adjusted vectors sees them.

    Of the cases that are tried, sites alone are known to it; vectors of sites that it has not learned stay as they are.
    Distances are those from the means of the classes.

    Args:
        learnt: folder of an evaluation of the cases for training, with ``latents.npz``.
        tried: the same of the cases for testing.
        dst: folder of the tables.
    """
    vectors, sites, labels = _read(learnt)
    model = combat(vectors, sites, labels.tolist())
    adjusted = model.adjust(vectors, sites)
    classifier = LogisticRegression(max_iter=1000, class_weight="balanced").fit(adjusted, labels)
    centres = np.stack([adjusted[labels == k].mean(0) for k in classifier.classes_])
    new, at, _ = _read(tried)
    seen = model.adjust(new, at)
    probability = classifier.predict_proba(seen)
    away = np.linalg.norm(seen[:, None] - centres, axis=2)
    rows = []
    for row, p, d in zip(read_csv(tried / "predictions.csv"), probability, away, strict=True):
        said: dict[str, Any] = {f"probability_{k}": float(value) for k, value in enumerate(p)}
        said |= {f"distance_{k}": float(value) for k, value in enumerate(d)}
        rows.append({**row, **said, "nearest": int(d.argmin()), "prediction": int(p.argmax())})
    write_csv(dst / "predictions.csv", rows)
    write_csv(dst / "per_patient.csv", read_csv(tried / "per_patient.csv"))


def _read(folder: Path) -> tuple[NDArray[Any], list[str], NDArray[Any]]:
    with np.load(folder / "latents.npz") as found:
        return found["latent"], found["site"].tolist(), found["image_label"]
