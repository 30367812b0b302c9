"""What classifiers of several sites are compared with: linear ones of adjusted vectors, or of what is no image."""

import json
from collections.abc import Sequence
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


def write_by_column(learnt: Path, tried: Path, column: str, sites: Sequence[str], dst: Path) -> None:
    """Write ``predictions.csv`` and ``per_patient.csv`` of cases as a number of theirs and its square tell the class.

    Distances are the probabilities of the other classes.

    Args:
        learnt: data set whose cases for training are learnt from.
        tried: data set whose cases for testing are tried.
        column: of both lists of cases.
        sites: whose cases are learnt from.
        dst: folder of the tables.
    """
    taught = [item for item in _listed(learnt, "training") if item["site"] in sites]
    asked = _listed(tried, "testing")
    seen, new = (np.array([[item[column], item[column] ** 2] for item in items]) for items in (taught, asked))
    classifier = LogisticRegression(C=1e6, max_iter=1000, class_weight="balanced")
    classifier.fit(seen, [item["image_label"] for item in taught])
    rows = []
    for item, p in zip(asked, classifier.predict_proba(new), strict=True):
        said: dict[str, Any] = {f"probability_{k}": float(value) for k, value in enumerate(p)}
        said |= {f"distance_{k}": 1 - float(value) for k, value in enumerate(p)}
        known = {name: item[name] for name in ("case", "site", "image_label")}
        rows.append({**known, **said, "nearest": int(p.argmax()), "prediction": int(p.argmax())})
    write_csv(dst / "predictions.csv", rows)
    write_csv(dst / "per_patient.csv", [{name: item[name] for name in ("case", "patient")} for item in asked])


def _listed(folder: Path, part: str) -> list[dict[str, Any]]:
    return json.loads((folder / "dataset.json").read_text())[part]


def _read(folder: Path) -> tuple[NDArray[Any], list[str], NDArray[Any]]:
    with np.load(folder / "latents.npz") as found:
        return found["latent"], found["site"].tolist(), found["image_label"]
