"""Whether early tumours tell the organ that they lie in.

Source: Chen et al. 2024, "Towards Generalizable Tumor Synthesis", section 2.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from monai.networks.nets import DenseNet121, resnet10
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.manifold import TSNE
from sklearn.metrics import precision_score, recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from ..files import write_csv
from ..handlers.output import as_seen, spacing_mm
from ..metrics.lesions import equivalent_diameter
from ..metrics.radiomics import tumour_features
from ..metrics.statistics import Row
from ..metrics.synthesis import pieces_of
from ..metrics.tumours import EARLY_MM
from ..progress import bar
from ..report.figures import png
from ..report.page import Picture, Section, write_page
from ..transforms.intensity import scale_hu
from .cases import Configs

CROP, CROP_MM = 32, 48.0
"""Voxels along each axis of what deep networks see, and how large that is."""

FOLDS = 3
"""One of which is tested in each repeat."""

CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "SVM": lambda seed: make_pipeline(StandardScaler(), SVC(random_state=seed)),
    "random forest": lambda seed: RandomForestClassifier(300, random_state=seed),
    "AdaBoost": lambda seed: AdaBoostClassifier(random_state=seed),
}
"""Of the features of ``tumour_features``: shape, grey values and their co-occurrences, by scikit-image."""

NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "ResNet (10 layers)": lambda classes: resnet10(spatial_dims=3, n_input_channels=1, num_classes=classes),
    "DenseNet (121 layers)": lambda classes: DenseNet121(spatial_dims=3, in_channels=1, out_channels=classes),
}
"""Of crops, trained from scratch."""


class Tumours(NamedTuple):
    """Early tumours of several organs.

    Attributes:
        features: shape (N, F).
        crops: HU over the window, in [-1, 1], shape (N, 1, CROP, CROP, CROP); what is no tumour is -1.
        organs: number of each one's organ.
        patients: whose each is.
    """

    features: NDArray[np.float64]
    crops: torch.Tensor
    organs: NDArray[np.int64]
    patients: NDArray[np.int64]


def origins_study(
    name: str,
    configs: Configs,
    plan: Mapping[str, Any],
    folder: Path,
    num_repeats: int = 10,
    num_deep_repeats: int = 10,
    num_epochs: int = 15,
) -> None:
    """Write ``origins.csv`` and ``report.html``: how well classifiers tell the organ of an early tumour, and a t-SNE.

    Args:
        name: of the bundle.
        configs: of the bundle.
        plan: ``data``, the data sets that are drawn, by the names of their organs.
        folder: with the data sets.
        num_repeats: other patients are tested in each.
        num_deep_repeats: the same, of networks.
        num_epochs: that these are trained.
    """
    organs = list(plan["data"])
    tumours = early_tumours(configs, {organ: folder / organ for organ in organs})
    rows = [
        scores_of(label, repeats_of(tumours, fit, repeats))
        for label, fit, repeats in (
            *((label, _shallow(make), num_repeats) for label, make in CLASSIFIERS.items()),
            *((label, _deep(make, num_epochs), num_deep_repeats) for label, make in NETWORKS.items()),
        )
    ]
    write_csv(folder / "origins.csv", rows)
    counts = [{"organ": organ, "early tumours": int((tumours.organs == i).sum())} for i, organ in enumerate(organs)]
    sections = [
        Section("Early tumours", [EXPLANATION], counts),
        Section("How well classifiers tell their organ", rows=rows),
        Section("Features in two dimensions", pictures=[Picture("t-SNE.", png(embedding_figure(tumours, organs)))]),
    ]
    write_page(folder / "report.html", f"Origins of early tumours, {name}", sections, "Synthetic images, no patients.")
    print(f"report: {folder / 'report.html'}")


EXPLANATION = (
    f"Tumours of at most {EARLY_MM:g} mm. Precision and recall are means over organs, with their standard deviation "
    "over the repeats, each of which tests a third of the patients; a guess has 1 over their number. Features are "
    "of shape, grey values, co-occurrences (scikit-image), not pyradiomics; networks see tumours alone."
)


def early_tumours(configs: Configs, folders: Mapping[str, Path]) -> Tumours:
    """Return the early tumours of the testing cases of some data sets.

    Args:
        configs: of the bundle.
        folders: data sets by organ.
    """
    features, crops, organs, patients = [], [], [], []
    for number, (organ, folder) in enumerate(folders.items()):
        parser = configs("inference", dataset_dir=str(folder), split="testing", allow_tumours=True)
        window = parser.get_parsed_content("hu_window")
        for patient, item in enumerate(bar(parser.get_parsed_content("dataset"), desc=organ)):
            seen, mm = as_seen(item, ("image", "label")), spacing_mm(item["label"])
            for box, piece in pieces_of(seen["label"] > 0):
                if equivalent_diameter(piece.sum() * np.prod(mm), 3) > EARLY_MM:
                    continue
                image = seen["image"][box]
                features.append(list(tumour_features(image, piece, mm).values()))
                crops.append(_crop(np.where(piece, scale_hu(torch.from_numpy(image.copy()), window), -1.0), mm))
                organs.append(number)
                patients.append(1000 * number + patient)
    return Tumours(np.array(features), torch.stack(crops), np.array(organs), np.array(patients))


def _crop(values: NDArray[Any], mm: Sequence[float]) -> torch.Tensor:
    """Return a tumour in the middle of a cube of ``CROP_MM``, of which nothing else is shown."""
    size = [max(1, round(n * s * CROP / CROP_MM)) for n, s in zip(values.shape, mm, strict=True)]
    small = F.interpolate(torch.from_numpy(values.copy()).float()[None, None], size=size, mode="trilinear")[0]
    pads = [((CROP - n) // 2, CROP - n - (CROP - n) // 2) for n in reversed(size)]
    return F.pad(small, [n for pad in pads for n in pad], value=-1.0)


Fit = Callable[[Tumours, NDArray[np.int64], NDArray[np.int64], int], NDArray[np.int64]]
"""(tumours, which are learnt from, which are tested, seed) -> organs that are said of the latter."""


def _shallow(make: Callable[[int], Any]) -> Fit:
    def fit(tumours: Tumours, learnt: NDArray[np.int64], tested: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        model = make(seed).fit(tumours.features[learnt], tumours.organs[learnt])
        return model.predict(tumours.features[tested])

    return fit


def _deep(make: Callable[[int], nn.Module], num_epochs: int) -> Fit:
    def fit(tumours: Tumours, learnt: NDArray[np.int64], tested: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = make(int(tumours.organs.max()) + 1)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        crops, organs = tumours.crops[learnt], torch.from_numpy(tumours.organs[learnt])
        for _ in range(num_epochs):
            for batch in torch.randperm(len(crops), generator=generator).split(16):
                if len(batch) > 1:
                    optimizer.zero_grad()
                    F.cross_entropy(network(crops[batch]), organs[batch]).backward()
                    optimizer.step()
        network.eval()
        with torch.no_grad():
            said = torch.cat([network(batch) for batch in tumours.crops[tested].split(16)])
        return convert_to_numpy(said.argmax(1))

    return fit


def repeats_of(tumours: Tumours, fit: Fit, num_repeats: int) -> list[tuple[float, float]]:
    """Return precision and recall of each repeat, means over the organs.

    Args:
        tumours: of which a third of the patients is tested.
        fit: a classifier.
        num_repeats: with other patients in each.
    """
    found = []
    for seed in range(num_repeats):
        splits = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        learnt, tested = next(iter(splits.split(tumours.features, tumours.organs, tumours.patients)))
        said, truth = fit(tumours, learnt, tested, seed), tumours.organs[tested]
        precision = precision_score(truth, said, average="macro", zero_division=0)
        found.append((float(precision), float(recall_score(truth, said, average="macro", zero_division=0))))
    return found


def scores_of(label: str, repeats: Sequence[tuple[float, float]]) -> Row:
    """Return a row of the table: mean and standard deviation over the repeats."""
    row: Row = {"classifier": label}
    for name, values in zip(("precision", "recall"), zip(*repeats, strict=True), strict=True):
        row |= {name: float(np.mean(values)), f"{name}_std": float(np.std(values))}
    return row | {"repeats": len(repeats)}


def embedding_figure(tumours: Tumours, organs: Sequence[str]) -> Figure:
    """Return the features of all tumours in two dimensions, a colour an organ."""
    scaled = StandardScaler().fit_transform(tumours.features)
    places = TSNE(perplexity=min(30, (len(scaled) - 1) / 3), random_state=0).fit_transform(scaled)
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axis = figure.subplots()
    for number, organ in enumerate(organs):
        own = places[tumours.organs == number]
        axis.scatter(own[:, 0], own[:, 1], s=14, label=organ)
    axis.set(xticks=[], yticks=[])
    axis.legend()
    return figure
