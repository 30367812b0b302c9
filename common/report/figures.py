"""Pictures of maps, curves and comparisons; slices as radiologists see them, the patient's right on the left."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray
from scipy.ndimage import label

from ..files import write_bytes
from ..metrics.pixels import Curve

Array = NDArray[Any]

DISPLAY_WINDOW = (-125.0, 225.0)
"""Of CT slices, HU; that of GDPI's figures."""

MAP_WINDOW = (0.0, 50.0)
"""Of anomaly maps, HU; that of GDPI's figures."""

OUTLINES: Mapping[str, tuple[str, Any]] = {
    "frame": ("white", "solid"),
    "organ": ("#CC79A7", (0, (1, 2))),
    "mask": ("#F0E442", "solid"),
    "label": ("#56B4E9", (0, (4, 2.5))),
}
"""Colour and style of each kind of outline: colours of Okabe and Ito, which the colour-blind tell apart, and styles for
print in grey."""

WORDS = MappingProxyType(
    {"organ": "part that was searched", "mask": "lesion by the mask", "label": "lesion by the label"}
)
"""What outlines are called."""

PLANES = MappingProxyType({"axial": "RL", "coronal": "RL", "sagittal": "AP"})
"""Planes of a volume, across its last, second and first axis, and what lies at the left and at the right of them."""

SCALES_MM = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Lengths of scale bars."""

FAINT = 0.2
"""Share of a map's colours over which it becomes opaque: next to nothing neither darkens nor speckles a slice."""

SMALL = 0.25
"""A part of a slice that is smaller is shown below the whole slice."""

PANEL_INCHES, HIGHEST_INCHES, GAP_INCHES, BAR_INCHES = 2.6, 3.4, 0.06, 0.75
"""Width of a panel, and its height at the most, so that no picture is too large for a page; what is between panels, and
what a colour bar takes."""


@dataclass(frozen=True)
class Display:
    """How the images of a run are shown.

    Attributes:
        channel: of images that have several.
        sequences: what the channels are called, as CT or the MR sequences; None leaves them unnamed.
        window: intensities shown black and white; None takes the 0.5th and the 99.5th percentile of the image.
        image_unit: of the intensities.
        map_window: values at the ends of a map's colours.
        unit: of the map.
        name: what the map is called; it is found under this word.
        version: what the image beside it is called.
        version_key: where that is found.
        version_window: values shown black and white in it, which then has no unit; None takes the image's.
        difference: of that image, show by how much it differs from the image itself, which may be too little to see.
        words: what outlines are called, by their kind; a label that has no word is not drawn.
        rotate: quarter turns, counter-clockwise, of images whose orientation nobody knows.
    """

    channel: int = 0
    sequences: Sequence[str] | None = ("CT",)
    window: tuple[float, float] | None = DISPLAY_WINDOW
    image_unit: str = "HU"
    map_window: tuple[float, float] = MAP_WINDOW
    unit: str = "HU"
    name: str = "anomaly"
    version: str = "healthy version"
    version_key: str = "healthy"
    version_window: tuple[float, float] | None = None
    difference: bool = False
    words: Mapping[str, str] = field(default_factory=lambda: WORDS)
    rotate: int = 0

    @property
    def sequence(self) -> str:
        """What the channel that is shown is called."""
        return self.sequences[self.channel].upper() if self.sequences else ""

    def window_of(self, image: Array) -> tuple[float, float]:
        """Return the intensities of an image that are shown black and white."""
        low, high = self.window or np.percentile(image, [0.5, 99.5])
        return float(low), float(high)

    def shown_version(self, image: Array, version: Array) -> tuple[Array, tuple[float, float]]:
        """Return what is shown of the image beside the map, and the values black and white in it."""
        if not self.difference:
            return version, self.version_window or self.window_of(image)
        change = version - image
        largest = float(np.percentile(np.abs(change), 99.5)) or 1.0
        return change, (-largest, largest)


CT = Display()
"""Of CT in HU and GDPI's maps."""


@dataclass(frozen=True)
class Panel:
    """A picture in a grid: a grey slice, a map over it, outlines over both.

    Attributes:
        title: above it.
        grey: slice, shape (X, Y), axes to the patient's right and front, or None for a map alone.
        heat: map of the same shape, over a slice fainter where it is low, see ``FAINT``.
        outlines: masks by their kind, see ``OUTLINES``.
        window: values shown black and white.
        heat_window: values at the ends of the map's colours.
        bar: unit of a colour bar, of the map if there is one, behind the panels that share it; None draws none.
        sides: letters at its left and right border.
        pixel_mm: width of a pixel, for a scale bar; None draws none.
    """

    title: str = ""
    grey: Array | None = None
    heat: Array | None = None
    outlines: Mapping[str, Array] | None = None
    window: tuple[float, float] = DISPLAY_WINDOW
    heat_window: tuple[float, float] = MAP_WINDOW
    bar: str | None = None
    sides: str = ""
    pixel_mm: float | None = None

    @property
    def shown(self) -> Any:
        """The slice, or the map where it is alone."""
        return self.heat if self.grey is None else self.grey

    @property
    def drawn(self) -> dict[str, Array]:
        """The masks that have an outline, in the order in which they are drawn."""
        masks = self.outlines or {}
        return {kind: masks[kind] for kind in OUTLINES if kind in masks and 0 < masks[kind].mean() < 1}

    @property
    def colours(self) -> tuple[str | None, tuple[float, float], str]:
        """What a colour bar shows: unit, values at its ends, and the colours."""
        (low, high), colours = (self.window, "gray") if self.heat is None else (self.heat_window, "inferno")
        return self.bar, (low, high), colours


def panel_grid(
    rows: Sequence[Sequence[Panel]], title: str = "", aspect: float = 1.0, words: Mapping[str, str] = WORDS
) -> Figure:
    """Return a figure of panels, with a legend of the outlines that are in it.

    Args:
        rows: of panels, all of one length.
        title: of the figure.
        aspect: height over width of a pixel.
        words: what outlines are called, by their kind; others are not in the legend.
    """
    kinds = {kind for row in rows for panel in row for kind in panel.drawn}
    named = [kind for kind in OUTLINES if kind in kinds & words.keys()]
    bars = max(len(_bars(row)) for row in rows)
    shapes = [row[0].shown.shape for row in rows]
    heights = [min(PANEL_INCHES * aspect * y / x, HIGHEST_INCHES) for x, y in shapes]
    heads = [0.1 + 0.16 * max(_wrapped(panel.title).count("\n") + 1 for panel in row) for row in rows]
    width = (PANEL_INCHES + GAP_INCHES) * len(rows[0]) + BAR_INCHES * bars
    height = sum(heights) + sum(heads) + (0.3 if title else 0) + (0.35 if named else 0.05)
    figure = Figure(figsize=(width, height))

    def axes_at(left: float, bottom: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    bottom = height - (0.3 if title else 0)
    for row, high, head in zip(rows, heights, heads, strict=True):
        bottom, left, ends = bottom - high - head, GAP_INCHES / 2, _bars(row)
        for place, panel in enumerate(row):
            _draw(axes_at(left, bottom, PANEL_INCHES, high), panel, aspect)
            left += PANEL_INCHES + GAP_INCHES
            if place in ends:
                shades = ScalarMappable(Normalize(*panel.colours[1]), panel.colours[2])
                bar = figure.colorbar(shades, cax=axes_at(left, bottom + 0.1 * high, 0.09, 0.8 * high))
                bar.set_label(panel.bar or "", fontsize=8)
                bar.ax.tick_params(labelsize=7)
                left += BAR_INCHES
    if title:
        figure.suptitle(title, fontsize=10, y=1 - 0.08 / height, va="top", parse_math=False)
    if named:
        styles = [OUTLINES[kind] for kind in named]
        lines = [Line2D([], [], color=colour, linestyle=style, path_effects=HALO) for colour, style in styles]
        figure.legend(lines, [words[kind] for kind in named], loc="lower center", ncols=len(lines), fontsize=8)
    return figure


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.fill(line, 44) for line in title.split("\n"))


def _bars(row: Sequence[Panel]) -> set[int]:
    """Return which panels a colour bar stands behind: the last ones of those that share it."""
    behind = {panel.colours: place for place, panel in enumerate(row)}
    return {place for (unit, *_), place in behind.items() if unit is not None}


HALO = (withStroke(linewidth=2.6, foreground="black"),)
"""Around lines and letters, that they are seen on white and on the bright end of a map."""


def _draw(axis: Axes, panel: Panel, aspect: float) -> None:
    axis.set_title(_wrapped(panel.title), fontsize=8, pad=3, parse_math=False)  # a case may be called $x
    axis.axis("off")
    shared: dict[str, Any] = {"origin": "lower", "aspect": aspect, "interpolation": "nearest"}
    if panel.grey is not None:
        axis.imshow(_as_seen(panel.grey), cmap="gray", vmin=panel.window[0], vmax=panel.window[1], **shared)
    if panel.heat is not None:
        heat, (low, high) = _as_seen(panel.heat), panel.heat_window
        opaque = None if panel.grey is None else 0.75 * np.clip((heat - low) / (FAINT * (high - low)), 0, 1)
        axis.imshow(heat, cmap="inferno", vmin=low, vmax=high, alpha=opaque, **shared)
    for kind, mask in panel.drawn.items():
        colour, style = OUTLINES[kind]
        drawn: dict[str, Any] = {"colors": [colour], "linestyles": [style], "linewidths": 1.3}
        axis.contour(_as_seen(mask.astype(float)), levels=[0.5], **drawn).set(path_effects=HALO)
    for letter, place in zip(panel.sides, (0.04, 0.96), strict=False):
        axis.text(place, 0.5, letter, transform=axis.transAxes, color="white", size=9, ha="center", path_effects=HALO)
    if panel.pixel_mm is not None:
        _add_scale(axis, panel.shown.shape[0], panel.pixel_mm)


def _add_scale(axis: Axes, pixels: int, pixel_mm: float) -> None:
    """Draw a bar of a round length, a third of the width at the most."""
    lengths = [length for length in SCALES_MM if length <= pixels * pixel_mm / 3]
    if lengths:
        words = f"{lengths[-1]} mm" if lengths[-1] < 10 else f"{lengths[-1] // 10} cm"
        style: dict[str, Any] = {"color": "white", "frameon": False, "fontproperties": FontProperties(size=8)}
        bar = AnchoredSizeBar(axis.transData, lengths[-1] / pixel_mm, words, "lower left", **style)
        for artist in (*bar.txt_label.get_children(), *bar.size_bar.get_children()):
            artist.set(path_effects=HALO)
        axis.add_artist(bar)


def _as_seen(image: Array) -> Array:
    """Return (X to the right, Y to the front) as rows from the back to the front, the patient's right on the left."""
    return image.T[:, ::-1]


@dataclass(frozen=True)
class View:
    """A case as it is drawn, all arrays of shape (X, Y, Z), axes to the patient's right, front and head.

    Attributes:
        image: as it was given.
        version: another one of it, such as the same patient without lesions.
        scores: map.
        mask: what is called lesion.
        organ: what was searched.
        label: what is lesion, if that is known.
        pixel_mm: size of a pixel, to the right and to the front; None where neither size nor orientation is known.
        display: windows and words.
    """

    image: Array
    version: Array
    scores: Array
    mask: Array
    organ: Array
    label: Array | None = None
    pixel_mm: tuple[float, float] | None = None
    display: Display = CT

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """The part of the slices that is shown."""
        return box_around(self.organ)

    @cached_property
    def windows(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Values black and white in the image and in the other version."""
        return self.display.window_of(self.image), self.display.shown_version(self.image, self.version)[1]

    def slices(self, count: int) -> list[int]:
        """Return slices with the organ, spread over what is called lesion, in the order of the body.

        First come those that show most of the map of lesions that none before them shows, then those with most of the
        map far from all before.

        Args:
            count: of slices, at the most.
        """
        shown, scores, mask = (array[self.box] for array in (self.organ, self.scores, self.mask))
        lesions, number = label(mask & shown)

        def of_each(k: int) -> Array:
            """Return what the map adds up to in each lesion, after what it does around them."""
            weight = np.where(shown[..., k], scores[..., k].clip(0), 0)
            return np.bincount(lesions[..., k].ravel(), weight.ravel(), number + 1)

        sums = np.array([of_each(k) for k in range(shown.shape[2])])
        own, candidates = sums[:, 1:], np.flatnonzero(shown.any((0, 1)))
        left = own.copy()
        chosen: list[int] = []
        while len(chosen) < count and left.any():
            chosen.append(int(left.sum(1).argmax()))
            left[:, own[chosen[-1]] > 0] = 0
        most = sums.sum(1)[candidates] + np.finfo(float).tiny
        while len(chosen) < min(count, len(candidates)):
            away = np.abs(candidates[:, None] - chosen).min(1) if chosen else 1
            chosen.append(int(candidates[(most * away).argmax()]))
        return sorted(chosen)

    def panels(self, k: int) -> list[Panel]:
        """Return what is drawn of a slice: the whole of it if little is shown below, image, other version, map."""
        here, (window, version_window) = (*self.box, k), self.windows
        x, v, a, m, o = (array[here] for array in (self.image, self.version, self.scores, self.mask, self.organ))
        known = {} if self.label is None else {"label": self.label[here]}
        show, number = self.display, f"slice {k}" if self.image.shape[2] > 1 else ""
        words, unit = ", ".join(filter(None, [number, show.sequence])) or "image", show.image_unit
        sides, scale = ("RL", self.pixel_mm[0]) if self.pixel_mm else ("", None)
        other, other_unit = show.shown_version(x, v)[0], "" if show.version_window else unit
        made = [
            Panel(words, x, None, {"organ": o, **known}, window, bar=unit, sides=sides, pixel_mm=scale),
            Panel(show.version, other, window=version_window, bar=other_unit, sides=sides),
            Panel(show.name, x, a, {"mask": m, **known}, window, show.map_window, show.unit, sides),
        ]
        frame = np.zeros(self.image.shape[:2], dtype=bool)
        frame[self.box] = True
        if frame.mean() < SMALL:
            elsewhere = {} if self.label is None else {"label": self.label[..., k]}
            whole = Panel("the whole slice", self.image[..., k], None, {"frame": frame, **elsewhere}, window)
            made.insert(0, replace(whole, sides=sides, pixel_mm=scale))
        return made


def overlay_figure(view: View, slices: Sequence[int], title: str = "") -> Figure:
    """Return slices of a case side by side, or what is drawn of a single one, see ``View.panels``.

    Args:
        view: of the case.
        slices: that are drawn.
        title: of the figure.
    """
    drawn = [view.panels(k) for k in slices]
    right, front = view.pixel_mm or (1.0, 1.0)
    rows = drawn if len(drawn) == 1 else [list(row) for row in zip(*drawn, strict=True)]
    return panel_grid(rows, title, front / right, view.display.words)


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
    pr.set(title="precision and recall, AP", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
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


def costs_figure(
    points: Mapping[str, tuple[float, Mapping[str, tuple[float, float, float]]]], metrics: Mapping[str, str]
) -> Figure:
    """Return what methods score, with intervals, against what they cost.

    Args:
        points: cost, and by metric the number and its interval's ends, by the name of a method; the first is a star.
        metrics: titles of the axes.
    """
    figure = Figure(figsize=(4.6 * len(metrics), 3.8 + 0.2 * len(points)), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        for index, (name, (cost, scores)) in enumerate(points.items()):
            number, low, high = scores[metric]
            ends = [[max(number - low, 0)], [max(high - number, 0)]]
            marker = "*" if index == 0 else MARKERS[index % len(MARKERS)]
            size = 11 if index == 0 else 5
            axis.errorbar([cost], [number], yerr=ends, fmt=marker, markersize=size, capsize=2, label=name)
        axis.set(title=title, xlabel="calls and gradients a slice")
        axis.set_xscale("symlog", linthresh=1)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.18))
    return figure


MARKERS = "osD^v<>Ph"
"""So that methods are told apart in grey, too."""


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
        [Panel(f"{name} {i + 1}", slice_, bar="HU") for i, slice_ in enumerate(slices)]
        for name, slices in (("real", real), ("generated", generated))
    ]
    return panel_grid(rows)
