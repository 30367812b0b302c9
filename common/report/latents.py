"""Pictures of vectors, of probabilities of classes, of the intensities of sites, and of where a network looked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .figures import PLANES, Panel, panel_grid

MARKERS = "osD^vP*Xhp<>"
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def map_figure(points: NDArray[Any], labels: Sequence[int | None], sites: Sequence[str]) -> Figure:
    """Return points of a plane, the class as colour, grey where nobody knows it, the site as marker.

    Args:
        points: shape (cases, 2).
        labels: class of each case, or None.
        sites: of each case.
    """
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis, place = figure.subplots(), np.array(sites)
    for k in sorted({label for label in labels if label is not None}):
        axis.scatter([], [], color=COLOURS[k % len(COLOURS)], label=f"class {k}")
    for number, site in enumerate(np.unique(place)):
        own, marker = place == site, MARKERS[number % len(MARKERS)]
        known = [label for label, is_own in zip(labels, own, strict=True) if is_own]
        colours = ["0.6" if label is None else COLOURS[label % len(COLOURS)] for label in known]
        x, y = points[own].T
        axis.scatter(x, y, c=colours, marker=marker, s=26, alpha=0.8, linewidths=0)
        axis.scatter([], [], color="0.3", marker=marker, label=site or "site unknown")
    axis.set(xticks=[], yticks=[], title="t-SNE of the vectors")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def reliability_figure(groups: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Return how often classes are true against how probable they were called.

    Args:
        groups: bins of cases by the name of the group, see ``metrics.classification.reliability``.
    """
    figure = Figure(figsize=(4.5, 3.8), layout="constrained")
    axis = figure.subplots()
    for name, rows in groups.items():
        axis.plot([row["probability"] for row in rows], [row["true"] for row in rows], marker="o", ms=4, label=name)
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
    axis.set(title="calibration", xlabel="probability of the class that is called", ylabel="share that is true")
    axis.set(xlim=(0, 1.02), ylim=(-0.02, 1.02))
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    return figure


def histogram_figure(histograms: Mapping[str, NDArray[Any]]) -> Figure:
    """Return how often intensities are in the images of each site.

    Args:
        histograms: by site, shares of the voxels above 0 in bins of equal width from 0 to 1.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axis = figure.subplots()
    for number, (site, shares) in enumerate(histograms.items()):
        middles = (np.arange(len(shares)) + 0.5) / len(shares)
        axis.plot(middles, shares, "-" if number < 10 else "--", label=site or "site unknown")
    axis.set(title="intensities, as the network sees them", xlabel="intensity", ylabel="share of the voxels above 0")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axis.grid(alpha=0.3)
    return figure


def evidence_figure(image: NDArray[Any], evidence: NDArray[Any], title: str) -> Figure:
    """Return an image with a map over it: of volumes the three planes through the map's highest voxel in the image.

    Args:
        image: in [0, 1], background 0, shape (X, Y) or (X, Y, Z), axes to the patient's right, front and head.
        evidence: map of the same shape, scaled to its highest value; 0 everywhere shows the middle.
        title: of the figure.
    """
    evidence = evidence * (image > 0)
    if image.ndim == 2:
        planes = [("image", "", image, evidence)]
    else:
        highest = np.unravel_index(int(evidence.argmax()), evidence.shape)
        middle = highest if evidence.any() else [size // 2 for size in evidence.shape]
        planes = [
            (name, sides, *(np.take(v, middle[axis], axis) for v in (image, evidence)))
            for axis, (name, sides) in zip((2, 1, 0), PLANES.items(), strict=True)
        ]
    shown: dict[str, Any] = {"window": (0.0, 1.0), "heat_window": (0.2, 1.0)}
    unit, share = "of the intensity range", "of the map's highest value"
    rows = [
        [Panel(name, plane, bar=unit, sides=sides, **shown) for name, sides, plane, _ in planes],
        [Panel("where the network looked", x, heat, bar=share, sides=sides, **shown) for _, sides, x, heat in planes],
    ]
    return panel_grid(rows, title)
