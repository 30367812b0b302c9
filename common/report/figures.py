"""Pictures of maps, curves and comparisons; slices as radiologists see them, the patient's right on the left."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..files import write_bytes
from ..metrics.pixels import Curve

Array = NDArray[Any]

DISPLAY_WINDOW = (-125.0, 225.0)
"""Of CT slices, HU; that of GDPI's figures."""

MAP_WINDOW = (0.0, 50.0)
"""Of anomaly maps, HU; that of GDPI's figures."""


@dataclass(frozen=True)
class Display:
    """How the images of a run are shown.

    Attributes:
        channel: of images that have several.
        window: intensities shown black and white; None takes the 0.5th and the 99.5th percentile of the image.
        map_window: values at the ends of a map's colours.
        unit: of the map.
        name: what the map is called; it is found under this word.
        version: what the image beside it is called.
        version_key: where that is found.
        version_window: values shown black and white in it; None takes the image's.
        heading: of the pictures of all cases.
        legend: of their colours.
    """

    channel: int = 0
    window: tuple[float, float] | None = DISPLAY_WINDOW
    map_window: tuple[float, float] = MAP_WINDOW
    unit: str = "HU"
    name: str = "anomaly"
    version: str = "healthy version"
    version_key: str = "healthy"
    version_window: tuple[float, float] | None = None
    heading: str = "Most anomalous slices"
    legend: str = "Cyan: the organ that was searched. Yellow: what the mask calls lesion. Lime: lesions by the label."

    def window_of(self, image: Array) -> tuple[float, float]:
        """Return the intensities of an image that are shown black and white."""
        low, high = self.window or np.percentile(image, [0.5, 99.5])
        return float(low), float(high)


CT = Display()
"""Of CT in HU and GDPI's maps."""


@dataclass(frozen=True)
class Panel:
    """A picture in a grid: a grey slice, a map over it, outlines over both.

    Attributes:
        title: above it.
        grey: slice, shape (X, Y), axes to the patient's right and front, or None for a map alone.
        heat: map of the same shape, drawn where it is above 0.
        outlines: masks by colour.
        window: values shown black and white.
        heat_window: values at the ends of the map's colours.
    """

    title: str = ""
    grey: Array | None = None
    heat: Array | None = None
    outlines: Mapping[str, Array] | None = None
    window: tuple[float, float] = DISPLAY_WINDOW
    heat_window: tuple[float, float] = MAP_WINDOW


def panel_grid(rows: Sequence[Sequence[Panel]], title: str = "", aspect: float = 1.0) -> Figure:
    """Return a figure of panels.

    Args:
        rows: of panels, all of one length.
        title: of the figure.
        aspect: height over width of a pixel.
    """
    first: Any = rows[0][0].heat if rows[0][0].grey is None else rows[0][0].grey
    height = 2.6 * aspect * first.shape[1] / first.shape[0] + 0.3
    figure = Figure(figsize=(2.6 * len(rows[0]), height * len(rows) + (0.4 if title else 0)), layout="constrained")
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, panel in zip(line, row, strict=True):
            _draw(axis, panel, aspect)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _draw(axis: Axes, panel: Panel, aspect: float) -> None:
    axis.set_title(panel.title, fontsize=8, parse_math=False)  # a case may be called $x
    axis.axis("off")
    shared: dict[str, Any] = {"origin": "lower", "aspect": aspect, "interpolation": "nearest"}
    if panel.grey is not None:
        axis.imshow(_as_seen(panel.grey), cmap="gray", vmin=panel.window[0], vmax=panel.window[1], **shared)
    if panel.heat is not None:
        heat, (low, high) = _as_seen(panel.heat), panel.heat_window
        shown = heat if panel.grey is None else np.ma.masked_less_equal(heat, low)
        axis.imshow(shown, cmap="inferno", vmin=low, vmax=high, alpha=None if panel.grey is None else 0.75, **shared)
    for colour, mask in (panel.outlines or {}).items():
        if mask.any() and not mask.all():
            axis.contour(_as_seen(mask.astype(float)), levels=[0.5], colors=[colour], linewidths=0.8)


def _as_seen(image: Array) -> Array:
    """Return (X to the right, Y to the front) as rows from the back to the front, the patient's right on the left."""
    return image.T[:, ::-1]


def overlay_figure(
    image: Array,
    healthy: Array,
    anomaly: Array,
    mask: Array,
    organ: Array,
    truth: Array | None = None,
    num_slices: int = 4,
    title: str = "",
    aspect: float = 1.0,
    display: Display = CT,
) -> Figure:
    """Return the slices of a case with the largest sums of the map: image, healthy version, map over image.

    The organ is outlined in cyan, what the mask calls lesion in yellow, lesions by the label in lime.

    Args:
        image: shape (X, Y) or (X, Y, Z), axes to the patient's right, front and head.
        healthy: the same patient without lesions.
        anomaly: map.
        mask: what is called lesion.
        organ: what was searched.
        truth: what is lesion, if that is known.
        num_slices: at the most.
        title: of the figure.
        aspect: height over width of a pixel.
        display: windows and words.
    """
    window = display.window_of(image)
    flat = image.ndim == 2
    if flat:
        image, healthy, anomaly, mask, organ = (x[..., None] for x in (image, healthy, anomaly, mask, organ))
        truth = truth if truth is None else truth[..., None]
    inside = np.where(organ, np.clip(anomaly, 0, None), 0).sum((0, 1))
    candidates = np.flatnonzero(organ.any((0, 1)))
    chosen = np.sort(candidates[np.argsort(-inside[candidates], kind="stable")][:num_slices])
    box, (low, high) = box_around(organ), display.map_window
    columns = []
    for k in chosen:
        x, h, a, m, o = (v[(*box, k)] for v in (image, healthy, anomaly, mask, organ))
        known = {"lime": truth[(*box, k)]} if truth is not None else {}
        columns.append(
            [
                Panel("image" if flat else f"slice {k}", x, outlines={"cyan": o, **known}, window=window),
                Panel(display.version, h, window=display.version_window or window),
                Panel(
                    f"{display.name}, {low:g} to {high:g} {display.unit}".rstrip(),
                    x,
                    a,
                    {"yellow": m, **known},
                    window,
                    display.map_window,
                ),
            ]
        )
    return panel_grid([list(row) for row in zip(*columns, strict=True)], title, aspect)


def box_around(organ: Array, margin: int = 8) -> tuple[slice, slice]:
    """Return the part of the X-Y plane that shows an organ, of shape (X, Y, Z), and a margin in pixels around it."""
    spans = []
    for axis in range(2):
        seen = np.flatnonzero(organ.any(tuple(i for i in range(organ.ndim) if i != axis)))
        spans.append(slice(max(int(seen[0]) - margin, 0), int(seen[-1]) + 1 + margin))
    return spans[0], spans[1]


def curves_figure(curves: Mapping[str, Curve], points: int = 2000) -> Figure:
    """Return ROC and precision-recall curves of several methods on one pair of axes.

    Args:
        curves: by the name of the method.
        points: at the most a curve, as many thresholds lie on one another.
    """
    figure = Figure(figsize=(9, 4.2 + 0.17 * len(curves)), layout="constrained")
    roc, pr = figure.subplots(1, 2)
    for index, (name, curve) in enumerate(curves.items()):
        style = ("-", "--", ":")[index // 10 % 3]  # colours come again after ten
        thinned = np.unique(np.linspace(0, len(curve.thresholds) - 1, points).astype(int))
        rate, recall = np.r_[0, curve.false_positive_rate[thinned]], np.r_[0, curve.recall[thinned]]
        roc.plot(rate, recall, style, label=f"{name}, {curve.auroc():.3f}")
        pr.step(
            curve.recall[thinned],
            curve.precision[thinned],
            style,
            where="post",
            label=f"{name}, {curve.average_precision():.3f}",
        )
    roc.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
    roc.set(title="ROC, area", xlabel="false positive rate", ylabel="true positive rate")
    pr.set(title="precision and recall, AP", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    for axis in (roc, pr):
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14))  # below, where no curve is
        axis.grid(alpha=0.3)
    return figure


def froc_figure(false_positives: Array, sensitivity: Array, end: float = 10.0) -> Figure:
    """Return the FROC curve up to a number of false positives a scan."""
    figure = Figure(figsize=(4.5, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(false_positives, sensitivity)
    axis.set(title="FROC", xlabel="false positive peaks a scan", ylabel="lesions found", xlim=(0, end), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    return figure


def uncertainty_figure(calibration: Array, kept: Array, error_rate: Array) -> Figure:
    """Return how often probabilities are true, and how fast errors vanish when the most uncertain pixels are left out.

    Args:
        calibration: pixels, sum of probabilities and pixels that are true in each bin, shape (3, bins).
        kept: shares of the pixels.
        error_rate: of those kept.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    reliability, retention = figure.subplots(1, 2)
    count, probability, true = calibration[:, calibration[0] > 0]
    reliability.plot(probability / count, true / count, marker="o", markersize=4)
    reliability.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
    reliability.set(title="calibration", xlabel="mean of the draws", ylabel="share that is true")
    retention.plot(kept, error_rate)
    retention.set(title="error retention", xlabel="share of pixels kept, the most certain ones", ylabel="error rate")
    for axis in (reliability, retention):
        axis.set(xlim=(0, 1))
        axis.grid(alpha=0.3)
    return figure


def members_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return Dice and HD95 against the number of members, Figure 4 of Wolleb et al. 2022.

    Args:
        rows: of each number of ``members``, with ``dice`` and ``hd95_mm``.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, (key, title) in zip(figure.subplots(1, 2), {"dice": "Dice", "hd95_mm": "HD95, mm"}.items(), strict=True):
        axis.plot([row["members"] for row in rows], [row[key] for row in rows], marker="o", markersize=3)
        axis.set(title=title, xlabel="members")
        axis.grid(alpha=0.3)
    return figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return a figure as PNG, the same bytes for the same picture."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "0"}):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_png(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure as PNG; a killed run leaves no half of it."""
    write_bytes(path, png(figure, dpi))


def samples_figure(real: Array, generated: Array) -> Figure:
    """Return real slices above generated ones, as in GDPI's Figure 4.

    Args:
        real: HU, shape (N, X, Y).
        generated: HU, shape (N, X, Y).
    """
    rows = [
        [Panel(f"{name} {i + 1}", slice_) for i, slice_ in enumerate(slices)]
        for name, slices in (("real", real), ("generated", generated))
    ]
    return panel_grid(rows)
