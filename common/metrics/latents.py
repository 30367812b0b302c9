"""What the vectors of images tell of their classes, and of the sites that they come from."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import balanced_accuracy_score, silhouette_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NUM_FOLDS = 5
"""Of the cross-validation by which sites are told."""


def site_probe(latents: NDArray, sites: Sequence[str], patients: Sequence[Hashable]) -> tuple[float, float]:
    """Return how well a linear classifier tells sites from vectors of patients that it has not seen, and by chance.

    Logistic regression, five folds by patient, the mean over sites of the share that is told. Sites with fewer patients
    than folds are left out; both are NaN where fewer than two remain.

    Args:
        latents: shape (cases, length).
        sites: of each case.
        patients: of each case.
    """
    place, person = np.array(sites), np.array([str(patient) for patient in patients])
    kept = [site for site in np.unique(place) if len(np.unique(person[place == site])) >= NUM_FOLDS]
    if len(kept) < 2:
        return float("nan"), float("nan")
    chosen = np.isin(place, kept)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    folds = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=0)
    told = cross_val_predict(probe, latents[chosen], place[chosen], groups=person[chosen], cv=folds)
    return float(balanced_accuracy_score(place[chosen], told)), 1 / len(kept)


def class_silhouette(latents: NDArray, labels: Sequence[int]) -> float:
    """Return how much nearer vectors are to those of their class than to others, from -1 to 1; NaN of one class."""
    count = len(set(labels))
    return float(silhouette_score(latents, labels)) if 2 <= count < len(labels) else float("nan")


def map_of(latents: NDArray, seed: int = 0) -> NDArray[np.float64]:
    """Return vectors as points of a plane, shape (cases, 2), by t-SNE; of fewer than four cases none."""
    if len(latents) < 4:
        return np.zeros((0, 2))
    perplexity = min(30.0, (len(latents) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(latents)
