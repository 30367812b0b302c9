"""Measure what ``regression.json`` and ``segmentation.json`` change in phantoms: ``python -m ci.guided_tasks``.

A phantom's twin is the same patient without tumour, so what is tumour in a translated image is known: where it differs
from the twin by more than half of a tumour's contrast.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from numpy.typing import NDArray

from common.checkpoints import load_parts
from common.files import write_csv
from common.inferers.ddim import Guidance
from common.inferers.variants import SharedEncoding
from common.metrics.overlap import dice
from common.metrics.statistics import Row
from common.phantoms.__main__ import SPLITS
from common.phantoms.brain_mr import BrainMR, brain_mr
from common.progress import bar
from common.report.figures import Panel, panel_grid, png
from common.report.page import Picture, Section, write_page
from common.samplers.guidance import regression_guidance

from . import ROOT, bundle_parser

BUNDLE = "wolleb_anomaly"
RATIOS = (0.0, 0.05, 0.1, 0.2)
FLAIR, SPACING = 3, (3.0, 3.0, 5.0)
MIN_PIXELS = 30
"""Slices with fewer pixels of tumour are left out."""


class Translator:
    """The inferer of an overlay and the bundle's weights.

    Args:
        overlay: name of the config.
        guidances: of several tasks; the overlay's own by default.
        settings: keys of it.
    """

    def __init__(self, overlay: str, guidances: Sequence[Guidance] | None = None, **settings: Any) -> None:
        parser = bundle_parser(BUNDLE, "inference", overlay, **settings)
        self.inferer, self.network = parser.get_parsed_content("inferer"), parser.get_parsed_content("network")
        load_parts(self.network, str(parser.get_parsed_content("model_path")))
        self.network.eval()
        self.inferer.progress = False
        self.variants = SharedEncoding(translator=self.inferer.translator, guidances=guidances)

    @torch.no_grad()
    def __call__(self, image: NDArray[Any], target: NDArray[np.bool_] | None = None) -> list[NDArray[Any]]:
        """Return the translated versions of an image, shape (C, X, Y, Z)."""
        channels = image if target is None else np.concatenate([image, target[None]])
        volume = torch.as_tensor(channels.astype(np.float32)).to(next(self.network.parameters()).device)
        versions = self.variants.examine(self.inferer, volume, SPACING[:2], self.network)
        return [version[1 : 1 + len(image)].cpu().numpy() for version in versions]

    def scale(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the range of each channel's intensities, shape (C, 1, 1, 1)."""
        low, high = self.inferer.grid.intensity_range(torch.as_tensor(image.astype(np.float32)))
        return (high - low).numpy()


def guided_tasks(
    output_dir: str | None = None, patients: int = 6, split: str = "testing", **settings: Any
) -> tuple[float, float]:
    """Print both figures; write ``regression.csv``, ``segmentation.csv`` and a page with strips.

    Args:
        output_dir: default ``work/wolleb_anomaly/guided_tasks`` in the repository.
        patients: of the split, with tumours.
        split: whose seeds; settings are chosen on ``validation``.
        settings: keys of both overlays, such as ``num_inference_steps``.

    Returns:
        Share of the slices whose tumour grows with the target ratio; mean Dice of what was put where it was target.
    """
    folder = Path(output_dir or ROOT / "work" / BUNDLE / "guided_tasks").resolve()
    phantoms = [brain_mr(SPLITS[split] + number, spacing=SPACING, tumour=True) for number in range(patients)]
    monotone, grown, strips = regression(phantoms, settings)
    mean_dice, placed, pairs = segmentation(phantoms, settings)
    write_csv(folder / "regression.csv", grown)
    write_csv(folder / "segmentation.csv", placed)
    share, mean = f"{monotone:.2f} of {len(grown)} slices", f"{mean_dice:.3f} in {len(placed)} slices"
    sections = [
        Section(
            "Wanted ratio", [f"Tumour area does not shrink with the ratio in {share}. Dashed: tumour."], grown, strips
        ),
        Section("Wanted mask", [f"Mean Dice {mean}. Dashed: target mask."], placed, pairs),
    ]
    write_page(folder / "report.html", "Guidance by a regressor and by a segmenter", sections, "Synthetic images.")
    print(f"regression: area monotone in the ratio in {share}")
    print(f"segmentation: mean Dice {mean}")
    print(f"report: {folder / 'report.html'}")
    return monotone, mean_dice


def regression(phantoms: Sequence[BrainMR], settings: dict[str, Any]) -> tuple[float, list[Row], list[Picture]]:
    """Return which share of the slices is monotone, a row for each slice, and strips."""
    tasks = [{"regressor": partial(regression_guidance, target=ratio)} for ratio in RATIOS]
    translator, rows, pictures = Translator("regression", tasks, **settings), [], []
    for number, phantom in enumerate(bar(phantoms, desc="regression")):
        versions, scale = translator(phantom.image), translator.scale(phantom.image)
        contrast = difference(phantom.image, phantom.healthy, scale)
        changed = [difference(version, phantom.healthy, scale) for version in versions]
        tumour = phantom.tumour > 0
        for z in _slices(tumour):
            least = contrast[..., z][tumour[..., z]].mean() / 2
            areas = [int((change[..., z] > least).sum()) for change in changed]
            named = {f"area at {ratio:g}": area for ratio, area in zip(RATIOS, areas, strict=True)}
            head = (phantom.image[0, ..., z] > 0).sum()
            rows.append(
                {"patient": number, "slice": z, "ratio": tumour[..., z].sum() / head}
                | named
                | {"monotone": areas == sorted(areas)}
            )
        z = int(tumour.sum((0, 1)).argmax())
        images = {"twin": phantom.healthy, "image": phantom.image}
        images |= {f"i = {ratio:g}": version for ratio, version in zip(RATIOS, versions, strict=True)}
        pictures.append(_strip(f"Patient {number}, FLAIR.", images, tumour, z))
    return float(np.mean([row["monotone"] for row in rows])), rows, pictures


def segmentation(phantoms: Sequence[BrainMR], settings: dict[str, Any]) -> tuple[float, list[Row], list[Picture]]:
    """Return the mean Dice, a row for each slice, and strips; target of each twin is the patient's own tumour."""
    translator, rows, pictures = Translator("segmentation", **settings), [], []
    for number, phantom in enumerate(bar(phantoms, desc="segmentation")):
        target, scale = phantom.tumour > 0, translator.scale(phantom.healthy)
        (version,) = translator(phantom.healthy, target)
        contrast = difference(phantom.image, phantom.healthy, scale)
        changed = difference(version, phantom.healthy, scale)
        for z in _slices(target):
            least = contrast[..., z][target[..., z]].mean() / 2
            found, mask = changed[..., z] > least, target[..., z]
            overlap = float(dice(found, mask))
            rows.append({"patient": number, "slice": z, "target pixels": int(mask.sum()), "dice": overlap})
        z = int(target.sum((0, 1)).argmax())
        images = {"twin": phantom.healthy, "synthetic": version, "the phantom's tumour": phantom.image}
        pictures.append(_strip(f"Patient {number}, FLAIR.", images, target, z))
    return float(np.mean([row["dice"] for row in rows])), rows, pictures


def difference(image: NDArray[Any], twin: NDArray[Any], scale: NDArray[Any]) -> NDArray[np.float64]:
    """Return by how much two images differ, in scaled intensities summed over the channels, shape (X, Y, Z)."""
    return (np.abs(image - twin.astype(float)) / scale).sum(0)


def _slices(tumour: NDArray[np.bool_]) -> Iterator[int]:
    yield from np.flatnonzero(tumour.sum((0, 1)) >= MIN_PIXELS).tolist()


def _strip(caption: str, images: dict[str, NDArray[Any]], mask: NDArray[np.bool_], z: int) -> Picture:
    window = (0.0, float(np.percentile(next(iter(images.values()))[FLAIR], 99.5)))
    outlines = {"label": mask[..., z]}
    panels = [Panel(title, image[FLAIR, ..., z], outlines=outlines, window=window) for title, image in images.items()]
    return Picture(caption, png(panel_grid([panels])))


if __name__ == "__main__":
    fire.Fire(lambda **options: guided_tasks(**options) and None)
