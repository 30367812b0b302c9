"""What all studies share: patients, and what methods answer for them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from common.checkpoints import load_parts
from common.files import replacing
from common.report.figures import CT, Display

from .. import ROOT, bundle_parser

SCANNERS = {"a": "the scanner of the training", "b": "another scanner, nothing tuned on it"}
NUM_PATIENTS = 20


class Case(NamedTuple):
    """A patient on the config's grid: arrays of shape (X, Y, Z), and the channels as the inferer takes them."""

    name: str
    inputs: torch.Tensor
    image: NDArray[np.float32]
    organ: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    spacing_mm: list[float]


class Source(NamedTuple):
    """What answers.

    Attributes:
        bundle: name of its folder.
        config: of the bundle, that has the inferer.
        inferer: id in the config.
        settings: keys of the config that differ from its defaults.
    """

    bundle: str
    config: str
    inferer: str
    settings: Mapping[str, Any]


def cases_of(
    bundle: str, dataset_dir: Path, split: str, organ: Callable[[torch.Tensor], torch.Tensor], **settings: Any
) -> Iterator[Case]:
    """Yield the cases of a data set as a bundle's own preprocessing gives them.

    Args:
        bundle: name of the folder.
        dataset_dir: of the phantoms.
        split: of them.
        organ: (inputs) -> where scores count, bool, (X, Y, Z).
        settings: keys of ``inference.json``.
    """
    settings |= {"dataset_dir": str(dataset_dir), "split": split}
    channel = display_of(bundle).channel
    for item in bundle_parser(bundle, "inference", **settings).get_parsed_content("dataset"):
        inputs, truth = item["image"], item["label"]
        image, where = inputs[channel].numpy(), organ(inputs).numpy()
        lesions = (truth[0].numpy() > 0) & where
        yield Case(str(item["case"]), inputs[None], image, where, lesions, [float(s) for s in inputs.pixdim])


def display_of(bundle: str) -> Display:
    """Return how a bundle's own report shows images and maps."""
    parser = bundle_parser(bundle, "inference")
    return parser.get_parsed_content("display") if "display" in parser else CT


def kept_answers(
    source: Source, folder: Path, cases: Sequence[Case], split: str, channels: int | slice, name: str
) -> Iterator[NDArray[np.float32]]:
    """Yield channels of what is answered for each case; answers that lie in the folder are not made again.

    Args:
        source: what answers.
        folder: of the study.
        cases: that are asked for.
        split: folder of their answers.
        channels: of the result.
        name: of the progress bar.
    """
    parser = bundle_parser(source.bundle, source.config, **source.settings)
    weights = Path(parser.get_parsed_content("model_path"))
    config = ROOT / "bundles" / source.bundle / "configs" / f"{source.config}.json"
    made_from = config.read_bytes() + weights.read_bytes() + json.dumps(dict(source.settings)).encode()
    kept = folder / "answers" / split / f"{source.inferer.split('::')[0]}_{hashlib.sha256(made_from).hexdigest()[:12]}"
    network = None
    for case in tqdm(cases, desc=name, leave=False):
        path = kept / f"{case.name}.npz"
        if not path.is_file():
            if network is None:
                inferer, network = parser.get_parsed_content(source.inferer), parser.get_parsed_content("network")
                inferer.progress = False
                load_parts(network, str(weights))
                network.eval()
            answer = inferer(case.inputs.to(parser.get_parsed_content("device")), network)[0][channels]
            with replacing(path) as temporary:
                np.savez_compressed(temporary, answer=answer.cpu().numpy())
        yield np.load(path)["answer"]
