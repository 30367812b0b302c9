"""Patients of a study, as a bundle's own preprocessing gives them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from ..report.figures import CT, Display
from ..transforms.organ import foreground, right_part

SCANNERS = {"a": "the scanner of the training", "b": "another scanner, nothing tuned on it"}
"""Of the phantoms. A data set of each is in the folder of a study, as ``scanner_a``."""

Configs = Callable[..., ConfigParser]
"""Of a bundle: (name of a config, keys that are set) -> parser."""

Region = Callable[[torch.Tensor], torch.Tensor]
"""(inputs of a case, shape (C, X, Y, Z)) -> where scores count, bool, shape (X, Y, Z)."""


class Case(NamedTuple):
    """A patient on the config's grid: arrays of shape (X, Y, Z), and the channels as the inferer takes them."""

    name: str
    inputs: torch.Tensor
    image: NDArray[np.float32]
    organ: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    spacing_mm: list[float]


def read_cases(configs: Configs, dataset_dir: Path, split: str, region: Any, **settings: Any) -> Iterator[Case]:
    """Yield the cases of a data set; what is lesion outside the region does not count.

    One without a label has no lesions where its ``image_label`` is 0, and is left out where that is not known.

    Args:
        configs: of the bundle.
        dataset_dir: of the data set.
        split: of it.
        region: config of a ``Region``.
        settings: keys of ``inference.json``.
    """
    settings |= {"dataset_dir": str(dataset_dir), "split": split, "region_of_study": region}
    parser = configs("inference", **settings)
    where, channel = parser.get_parsed_content("region_of_study"), display_of(configs).channel
    for item in parser.get_parsed_content("dataset"):
        inputs = item["image"]
        if "label" not in item and item.get("image_label") != 0:
            continue
        truth = item.get("label", torch.zeros_like(inputs[:1]))
        image, organ = inputs[channel].numpy(), where(inputs).numpy()
        lesions = (truth[0].numpy() > 0) & organ
        yield Case(str(item["case"]), inputs[None], image, organ, lesions, [float(s) for s in inputs.pixdim])


def display_of(configs: Configs) -> Display:
    """Return how a bundle's own report shows images and maps."""
    parser = configs("inference")
    return parser.get_parsed_content("display") if "display" in parser else CT


def head(inputs: torch.Tensor) -> torch.Tensor:
    """Return where an image without its background shows anything, see ``foreground``."""
    return foreground(inputs)[0]


def organ(inputs: torch.Tensor, right_share: float = 1.0) -> torch.Tensor:
    """Return the organ that the second channel of the inputs is the mask of, or its ``right_part``."""
    return right_part(inputs[1] > 0, right_share, axis=0)
