"""All noise levels, guidance scales and thresholds at once: tables, curves, and strips of one slice."""

import logging
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from .checkpoints import load_parts
from .handlers.output import spacing_mm, write_csv
from .metrics.pixels import PooledCounts
from .metrics.tables import CaseRecord, Row, average_otsu, dice_at, examine_case, slice_mean
from .report.figures import Display, Panel, box_around, panel_grid, png
from .report.page import Picture, Section, versions, write_page
from .transforms.grid import pixel_size_mm

logger = logging.getLogger(__name__)

Setting = tuple[int, float]
"""Noise level and guidance scale."""


class Slice(NamedTuple):
    """A slice in all versions, arrays of shape (X, Y).

    Attributes:
        case: whose it is.
        image: the channel that is shown.
        organ: where was searched, bool.
        truth: lesions, bool.
        versions: translated image and map by setting.
    """

    case: str
    image: NDArray[Any]
    organ: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    versions: Mapping[Setting, tuple[NDArray[Any], NDArray[Any]]]


@torch.no_grad()
def sweep_guidance(
    dataset: Sequence[Mapping[str, Any]],
    inferer: Any,
    network: nn.Module,
    model_path: str,
    output_dir: str,
    display: Display,
    notice: str = "",
    relative_thresholds: Sequence[float] = (),
) -> None:
    """Examine labelled cases with every noise level and guidance scale; all share one encoding of each slice.

    Writes ``sweep.csv`` and ``report.html`` with the curves of Figure 4, and the strips of Figures 5 and 6, of Wolleb
    et al. 2022, "Diffusion Models for Medical Anomaly Detection"; with ``relative_thresholds`` also ``thresholds.csv``,
    the Tables 1 and 2 of Babaei et al. 2024. As there, slices without lesions are left out.

    Args:
        dataset: items with ``image`` (channels as the inferer takes them), ``label`` and ``case``, oriented to RAS.
        inferer: ``DdimTranslationInferer`` with several noise levels and guidance scales.
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
    settings: list[Setting] = list(product(inferer.noise_levels, inferer.guidance_scales))
    records: dict[Setting, list[CaseRecord]] = {setting: [] for setting in settings}
    largest: Slice | None = None
    for item in tqdm(dataset, desc="cases"):
        image, case = item["image"], str(item.get("case", "a case"))
        truth = np.atleast_3d(item["label"][0].numpy() > 0) if "label" in item else np.zeros((1, 1, 1), dtype=bool)
        if not truth.any():
            logger.info(f"{case}: left out, as it has no lesions.")
            continue
        volume = convert_to_tensor(image, track_meta=False).float().to(next(network.parameters()).device)
        found = inferer.examine_versions(volume, pixel_size_mm(image), network)
        arrays = [[np.atleast_3d(channel.cpu().numpy()) for channel in version] for version in found]
        first_mask = 1 + inferer.num_channels
        organ = arrays[0][first_mask + 1] > 0
        truth &= organ
        if not truth.any():
            logger.info(f"{case}: left out, as its lesions lie beyond the organ that is searched.")
            continue
        options: dict[str, Any] = {
            "spacing_mm": [*spacing_mm(image), 1.0][:3],
            "lesion_slices_only": True,
            "otsu": True,
            "probability": arrays[0][first_mask + 2],
            "relative_thresholds": relative_thresholds,
        }
        for setting, version in zip(settings, arrays, strict=True):
            maps = (version[0], version[first_mask] > 0, organ, truth)
            records[setting].append(examine_case(case, case, *maps, **options))
        z = int(truth.sum((0, 1)).argmax())
        if largest is None or truth[..., z].sum() > largest.truth.sum():
            seen = np.atleast_3d(volume[display.channel].cpu().numpy())[..., z]
            shown = [(version[1 + display.channel][..., z], version[0][..., z]) for version in arrays]
            largest = Slice(case, seen, organ[..., z], truth[..., z], dict(zip(settings, shown, strict=True)))
    if largest is None:
        raise ValueError("expected a case with lesions at least, got none.")
    rows = [_row(setting, made) for setting, made in records.items()]
    folder = Path(output_dir)
    write_csv(folder / "sweep.csv", rows)
    masks = [_mask_row(setting, made, share) for setting, made in records.items() for share in relative_thresholds]
    if masks:
        write_csv(folder / "thresholds.csv", masks)
    sections = [
        Section("Noise levels and guidance scales", [EXPLANATION], rows, [Picture("", png(curves(rows)))]),
        Section("Thresholds", [THRESHOLDS] if masks else [], masks),
        Section(
            f"One slice of {largest.case}",
            ["Above the translated image, below the map; lime: lesions."],
            pictures=[Picture(words, png(figure)) for words, figure in strips(largest, settings, display)],
        ),
        Section("Versions", rows=versions()),
    ]
    write_page(folder / "report.html", "Noise levels and guidance scales", sections, notice)
    logger.info(f"report: {folder / 'report.html'}")


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
    level, scale = setting
    metrics = {"dice_average_otsu": curve.dice_at(threshold), "auroc": curve.auroc(), "ap": curve.average_precision()}
    return {"noise_level": level, "guidance_scale": scale, **metrics, "average_otsu": threshold}


def _mask_row(setting: Setting, records: Sequence[CaseRecord], share: float) -> Row:
    once, column = np.ones(len(records)), dice_at(share)
    wrong = [row["misclassified"] for record in records for row in record.slice_rows]
    return {
        "noise_level": setting[0],
        "guidance_scale": setting[1],
        "relative_threshold": share,
        "dice": slice_mean(records, column, diseased=True)(once),
        "dice_without_misclassified": slice_mean(records, column, diseased=True, misclassified=False)(once),
        "slices": len(wrong),
        "misclassified": sum(wrong),
    }


def curves(rows: Sequence[Row]) -> Figure:
    """Return Dice and AUROC against the guidance scale, a line for each noise level."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, (key, title) in zip(
        figure.subplots(1, 2), {"dice_average_otsu": "Dice", "auroc": "AUROC"}.items(), strict=True
    ):
        for level in dict.fromkeys(row["noise_level"] for row in rows):
            line = [(row["guidance_scale"], row[key]) for row in rows if row["noise_level"] == level]
            axis.plot(*zip(*line, strict=True), marker="o", markersize=3, label=f"L = {level}")
        axis.set(title=title, xlabel="guidance scale s")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    return figure


def strips(slice_: Slice, settings: Sequence[Setting], display: Display) -> list[tuple[str, Figure]]:
    """Return captions and figures of one slice: over the scales at the middle noise level, and the other way round.

    Args:
        slice_: that is shown.
        settings: all of them.
        display: windows and words.
    """
    levels, scales = (sorted(set(values)) for values in zip(*settings, strict=True))
    level, scale = levels[len(levels) // 2], scales[len(scales) // 2]
    window = display.window_of(slice_.image)
    box = box_around(slice_.organ, margin=2)

    def strip(chosen: Mapping[str, Setting]) -> Figure:
        image, lesions = slice_.image[box], {"lime": slice_.truth[box]}
        above, below = [Panel("image", image, window=window)], [Panel("", image, outlines=lesions, window=window)]
        for title, setting in chosen.items():
            translated, anomaly = (x[box] for x in slice_.versions[setting])
            above.append(Panel(title, translated, window=window))
            below.append(Panel("", image, anomaly, lesions, window, display.map_window))
        return panel_grid([above, below])

    return [
        (f"Over s, at L = {level}.", strip({f"s = {value:g}": (level, value) for value in scales})),
        (f"Over L, at s = {scale:g}.", strip({f"L = {value}": (value, scale) for value in levels})),
    ]
