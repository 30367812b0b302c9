"""Numbers that describe a tumour, and whether a classifier tells one kind from another by them."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis, skew
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import regionprops
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

LEVELS = 16
"""Grey levels of co-occurrences."""

WINDOW = (-175.0, 250.0)
"""HU that they are spread over."""

SHAPES = ("volume_mm3", "extent", "solidity", "elongation")
"""Names of the features of shape; all others are of grey values."""


def tumour_features(
    image: NDArray[np.floating], tumour: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Return features of shape, of grey values, and of grey-level co-occurrences in the slice that shows most of it.

    Shape and co-occurrences are those of scikit-image; packages for radiomics have more.

    Args:
        image: HU, shape (X, Y, Z).
        tumour: one of the same shape, not empty.
        spacing_mm: of the voxels.
    """
    values = image[tumour]
    region = regionprops(tumour.astype(np.uint8))[0]
    box = region.slice
    places = np.argwhere(tumour) * np.asarray(spacing_mm)
    lengths = np.sqrt(np.linalg.eigvalsh(np.cov(places.T, bias=True)).clip(min=0))
    features = {
        "volume_mm3": float(tumour.sum() * np.prod(spacing_mm)),
        "extent": float(region.extent),
        "solidity": _solidity(tumour[box]),
        "elongation": float(lengths[0] / lengths[-1]) if lengths[-1] > 0 else 1.0,
        "mean": float(values.mean()),
        "std": float(values.std()),
        "skewness": float(np.nan_to_num(skew(values))),
        "kurtosis": float(np.nan_to_num(kurtosis(values))),
        **{f"percentile {p}": float(np.percentile(values, p)) for p in (10, 50, 90)},
    }
    k = int(tumour.sum((0, 1)).argmax())
    grey = np.interp(image[box][..., k - box[2].start], WINDOW, (1, LEVELS)).round().astype(np.uint8)
    grey[~tumour[box][..., k - box[2].start]] = 0
    pairs = graycomatrix(grey, [1, 2], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], LEVELS + 1, symmetric=True)
    pairs = pairs[1:, 1:]  # those with what lies outside do not count
    if pairs.sum() == 0:
        pairs[0, 0] = 1
    for name in ("contrast", "homogeneity", "energy", "correlation"):
        features[f"co-occurrence {name}"] = float(np.nan_to_num(graycoprops(pairs, name)).mean())
    return features


def separability(
    features: Sequence[Mapping[str, float]],
    kinds: Sequence[int],
    patients: Sequence[Hashable],
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> float:
    """Return the AUROC of a random forest that tells two kinds of tumours apart, cross-validated by patient.

    About 0.5 says that they look alike; NaN where either kind has fewer than two patients.

    Args:
        features: of each tumour.
        kinds: 0 or 1 for each.
        patients: whose each is; those of one are never in training and test.
        names: of the features that count; all by default.
        seed: of the forest and the folds.
    """
    groups = np.unique([str(patient) for patient in patients], return_inverse=True)[1]
    truth = np.asarray(kinds)
    folds = min(5, *(len(set(groups[truth == kind])) for kind in (0, 1)))
    if folds < 2:
        return float("nan")
    table = np.array([[row[name] for name in names or features[0]] for row in features])
    forest = RandomForestClassifier(300, min_samples_leaf=2, class_weight="balanced", random_state=seed)
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    said = cross_val_predict(forest, table, truth, groups=groups, cv=splits, method="predict_proba")[:, 1]
    return float(roc_auc_score(truth, said))


def _solidity(tumour: NDArray[np.bool_]) -> float:
    """Return the share of the area of the convex hull in the slice that shows most of a tumour."""
    widest = tumour[..., int(tumour.sum((0, 1)).argmax())]
    return float(regionprops(widest.astype(np.uint8))[0].solidity) if min(widest.shape) > 2 else 1.0
