"""Many settings of an inferer at once: tables, curves, and strips of one slice."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.utils import convert_to_tensor, ensure_tuple
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset

from ..checkpoints import load_parts
from ..files import write_csv
from ..handlers.output import spacing_mm
from ..metrics.detection import CaseRecord, average_otsu, dice_at, examine_case, slice_mean
from ..metrics.pixels import PooledCounts
from ..metrics.statistics import Row, with_all_columns
from ..report.figures import Display, Panel, box_around, panel_grid, png
from ..report.page import Picture, Section, versions, write_page
from ..transforms.grid import pixel_size_mm
from .runner import examined

logger = logging.getLogger(__name__)

Setting = tuple[tuple[str, float], ...]
"""Names and values of a translator's keys, of one version of an inferer's results."""


class Slice(NamedTuple):
    """A slice in all versions, arrays of shape (X, Y).

    Attributes:
        case: whose it is.
        image: the channel that is shown.
        organ: where was searched, bool.
        truth: lesions, bool.
        versions: changed image and map by setting.
    """

    case: str
    image: NDArray[Any]
    organ: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    versions: Mapping[Setting, tuple[NDArray[Any], NDArray[Any]]]


@torch.no_grad()
def sweep(
    dataset: Any,
    inferer: Any,
    variants: Any,
    network: nn.Module,
    model_path: str,
    output_dir: str,
    display: Display,
    notice: str = "",
    relative_thresholds: Sequence[float] = (),
) -> None:
    """Examine labelled cases with every setting of an inferer.

    Writes ``sweep.csv`` and ``report.html`` with the curves of Figure 4, and the strips of Figures 5 and 6, of Wolleb
    et al. 2022, "Diffusion Models for Medical Anomaly Detection", or the ablations of Figure 3 of Hu et al. 2023; with
    ``relative_thresholds`` also ``thresholds.csv``, the Tables 1 and 2 of Babaei et al. 2024. As there, slices without
    lesions are left out.

    Args:
        dataset: items with ``image`` (channels as the inferer takes them), ``label`` and ``case``, oriented to RAS.
        inferer: a ``TranslationInferer``.
        variants: ``Variants`` of its translator, or a list of them.
        network: the container.
        model_path: its weights.
        output_dir: made if it is not there.
        display: how slices and maps are shown.
        notice: said first on the page.
        relative_thresholds: of masks, as shares of the map's highest value in each slice.

    Raises:
        ValueError: if no case has lesions in the organ.
    """
    load_parts(network, model_path)
    network.eval()
    sources = [Versions(inferer, each, network, display, relative_thresholds) for each in ensure_tuple(variants)]
    diseased: Any = Subset(dataset, [index for index, item in enumerate(dataset) if has_lesions(item)])
    records: dict[Setting, list[CaseRecord]] = {}
    for _, found in examined((("cases", source) for source in sources), diseased):
        records |= found
    if not records:
        raise ValueError("expected a case with lesions at least, got none.")
    rows = with_all_columns([_row(setting, made) for setting, made in records.items()])
    folder = Path(output_dir)
    write_csv(folder / "sweep.csv", rows)
    masks = [_mask_row(setting, made, share) for setting, made in records.items() for share in relative_thresholds]
    if masks:
        write_csv(folder / "thresholds.csv", masks)
    sections = [
        Section(
            "Settings", [EXPLANATION], rows, [Picture("", png(curves(rows, source.settings))) for source in sources]
        ),
        Section("Thresholds", [THRESHOLDS] if masks else [], masks),
        Section(
            f"One slice of {sources[0].largest.case}",
            ["Above the changed image, below the map."],
            pictures=[
                Picture(words, png(figure))
                for source in sources
                for words, figure in strips(source.largest, source.settings, display)
            ],
        ),
        Section("Versions", rows=versions()),
    ]
    write_page(folder / "report.html", "Settings compared", sections, notice)
    logger.info(f"report: {folder / 'report.html'}")


def has_lesions(item: Mapping[str, Any]) -> bool:
    """Return whether an item has a label that shows something."""
    if "label" in item and (item["label"][0] > 0).any():
        return True
    logger.info(f"{item.get('case', 'a case')}: left out, as it has no lesions.")
    return False


class Versions:
    """Examines cases with all settings of an inferer, which share what they can, and keeps the slice of most lesion.

    Args:
        inferer: a ``TranslationInferer``.
        variants: of its translator.
        network: the container.
        display: how slices are shown.
        relative_thresholds: see ``sweep``.

    Attributes:
        settings: of the versions.
        largest: of the slices that were examined, that with the largest lesions.
    """

    def __init__(
        self,
        inferer: Any,
        variants: Any,
        network: nn.Module,
        display: Display,
        relative_thresholds: Sequence[float] = (),
    ) -> None:
        self.inferer, self.variants, self.network, self.channel = inferer, variants, network, display.channel
        self.relative_thresholds = relative_thresholds
        self.settings: list[Setting] = [tuple(setting.items()) for setting in variants.settings]
        nothing = np.zeros((0, 0), dtype=bool)
        self.largest = Slice("", nothing, nothing, nothing, {})

    def __call__(self, item: Mapping[str, Any]) -> dict[Setting, CaseRecord]:
        """Return the record of a case by setting; none where all lesions lie beyond the organ."""
        image, case = item["image"], str(item.get("case", "a case"))
        volume = convert_to_tensor(image, track_meta=False).float().to(next(self.network.parameters()).device)
        made = self.variants.examine(self.inferer, volume, pixel_size_mm(image), self.network)
        found = [[np.atleast_3d(channel.cpu().numpy()) for channel in version] for version in made]
        versions, first_mask = dict(zip(self.settings, found, strict=True)), self.inferer.channels.index("mask")
        organ, probability = found[0][first_mask + 1] > 0, found[0][first_mask + 2]
        truth = np.atleast_3d(item["label"][0].numpy() > 0) & organ
        if not truth.any():
            logger.info(f"{case}: left out, as its lesions lie beyond the organ that is searched.")
            return {}
        z = int(truth.sum((0, 1)).argmax())
        if truth[..., z].sum() > self.largest.truth.sum():
            seen, own = np.atleast_3d(volume[self.channel].cpu().numpy())[..., z], 1 + self.channel
            shown = {setting: (version[own][..., z], version[0][..., z]) for setting, version in versions.items()}
            self.largest = Slice(case, seen, organ[..., z], truth[..., z], shown)
        options: dict[str, Any] = {
            "spacing_mm": [*spacing_mm(image), 1.0][:3],
            "lesion_slices_only": True,
            "otsu": True,
            "probability": probability,
            "relative_thresholds": self.relative_thresholds,
        }
        return {
            setting: examine_case(case, case, version[0], version[first_mask] > 0, organ, truth, **options)
            for setting, version in versions.items()
        }


EXPLANATION = (
    "All pixels of the slices with lesions, pooled. Dice at the mean of these slices' own Otsu thresholds, as in the "
    "paper: the threshold has seen the labels' slices, and is not that of the weights."
)


THRESHOLDS = (
    "Mean Dice of the slices with lesions, each mask being where the map reaches a share of its highest value in the "
    "slice; of all of them, and, as in the paper, without those that the classifier calls healthy."
)


def _row(setting: Setting, records: Sequence[CaseRecord]) -> Row:
    curve, threshold = PooledCounts([r.counts for r in records]).curve(), average_otsu(records)
    metrics = {"dice_average_otsu": curve.dice_at(threshold), "auroc": curve.auroc(), "ap": curve.average_precision()}
    return {**dict(setting), **metrics, "average_otsu": threshold}


def _mask_row(setting: Setting, records: Sequence[CaseRecord], share: float) -> Row:
    once, column = np.ones(len(records)), dice_at(share)
    wrong = [row["misclassified"] for record in records for row in record.slice_rows]
    return {
        **dict(setting),
        "relative_threshold": share,
        "dice": slice_mean(records, column, diseased=True)(once),
        "dice_without_misclassified": slice_mean(records, column, diseased=True, misclassified=False)(once),
        "slices": len(wrong),
        "misclassified": sum(wrong),
    }


def varied(settings: Sequence[Setting]) -> dict[str, list[float]]:
    """Return the keys that have several values, with these in order; the last key of all where none has."""
    values = {name: sorted({dict(setting)[name] for setting in settings}) for name in dict(settings[0])}
    return {name: v for name, v in values.items() if len(v) > 1} or dict([values.popitem()])


def curves(rows: Sequence[Row], settings: Sequence[Setting]) -> Figure:
    """Return Dice and AUROC against the last key that varies, a line for each value of the others."""
    *others, along = varied(settings)
    chosen = [row for row in rows if tuple((name, row[name]) for name in dict(settings[0])) in settings]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, (key, title) in zip(
        figure.subplots(1, 2), {"dice_average_otsu": "Dice", "auroc": "AUROC"}.items(), strict=True
    ):
        for values in dict.fromkeys(tuple(row[name] for name in others) for row in chosen):
            line = [(row[along], row[key]) for row in chosen if tuple(row[name] for name in others) == values]
            label = ", ".join(f"{name} {value:g}" for name, value in zip(others, values, strict=True))
            axis.plot(*zip(*sorted(line), strict=True), marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel=along)
        axis.grid(alpha=0.3)
        if others:
            axis.legend(fontsize=7)
    return figure


def strips(slice_: Slice, settings: Sequence[Setting], display: Display) -> list[tuple[str, Figure]]:
    """Return captions and figures of one slice: over each key that varies, at the middle value of the others.

    Args:
        slice_: that is shown.
        settings: all of one of the variants.
        display: windows and words.
    """
    keys = varied(settings)
    middle = dict(settings[0]) | {name: values[len(values) // 2] for name, values in keys.items()}
    window = display.window_of(slice_.image)
    box = box_around(slice_.organ, margin=2)

    def strip(chosen: Mapping[str, Setting]) -> Figure:
        image, lesions = slice_.image[box], {"label": slice_.truth[box]}
        above, below = [Panel("image", image, window=window)], [Panel("", image, outlines=lesions, window=window)]
        for title, setting in chosen.items():
            changed, anomaly = slice_.versions[setting]
            shown, ends = display.shown_version(slice_.image, changed)
            above.append(Panel(title, shown[box], window=ends))
            below.append(Panel("", image, anomaly[box], lesions, window, display.map_window))
        return panel_grid([above, below])

    made = []
    for name, values in keys.items():
        others = [f"{other} {middle[other]:g}" for other in keys if other != name]
        words = f"Over {name}{', at ' + ', '.join(others) if others else ''}."
        made.append((words, strip({f"{value:g}": tuple((middle | {name: value}).items()) for value in values})))
    return made
