"""Time a bundle's inference against itself, ratios from one run: ``python -m ci.benchmark gdpi``.

What is timed is the inferer that the config makes, on slices of the demonstration; what is compared stands in the
bundle's recipe. ``--curve True`` asks what fewer steps cost in quality, ``--beside wolleb_anomaly/ellipses`` what
another bundle, under an overlay, takes for the same slices.
"""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import convert_to_tensor, ensure_tuple
from numpy.typing import NDArray
from torch import Tensor, nn

from common.checkpoints import load_parts
from common.inferers.synthesis import SynthesisInferer
from common.metrics.segmentation import examine_segmentation, segmentation_statistics
from common.studies.plan import methods
from common.timing import Stopwatch, synchronise
from common.transforms.grid import pixel_size_mm

from . import bundle_parser
from .recipes import recipe_of
from .steps import time_steps
from .study import study
from .timing import line
from .volumes import time_tumours


class DemoCase(NamedTuple):
    """Slices of a case of the demonstration, those with the largest lesions first, or all as they lie.

    Attributes:
        name: of the case.
        inputs: as the inferer takes them, shape (1, C, X, Y, Z).
        truth: lesions, bool, shape (X, Y, Z).
        spacing_mm: of a voxel.
    """

    name: str
    inputs: MetaTensor
    truth: NDArray[np.bool_]
    spacing_mm: list[float]


def demo_case(parser: ConfigParser, slices: int | None) -> DemoCase:
    """Return slices of the first testing case, all if no number is asked for; of 2-D images all cases."""
    dataset = parser.get_parsed_content("dataset")
    item, flat = dataset[0], dataset[0]["image"].ndim == 3
    items: list[Any] = [dataset[index] for index in range(len(dataset))] if flat else [item]
    image, label = (torch.stack([one[key] for one in items], -1) if flat else item[key] for key in ("image", "label"))
    truth = label[0].numpy() > 0
    shown = slice(None) if slices is None else np.argsort(-truth.sum((0, 1)))[:slices]
    plain = convert_to_tensor(image, track_meta=False)
    inputs: Any = MetaTensor(plain[None, ..., shown], affine=item["image"].affine)
    inputs = inputs.to(parser.get_parsed_content("device"))
    return DemoCase(str(item["case"]), inputs, truth[..., shown], [float(mm) for mm in item["image"].pixdim])


def inferer_of(parser: ConfigParser) -> Any:
    """Return the inferer of a config, without its progress bar."""
    inferer = parser.get_parsed_content("inferer")
    inferer.progress = False
    return inferer


def benchmark(
    bundle: str,
    slices: int = 16,
    long: bool = False,
    curve: bool = False,
    beside: str | Sequence[str] = (),
    **settings: Any,
) -> None:
    """Print the figures of a bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        slices: that are examined, fewer if the case has fewer; what works on volumes examines a whole one.
        long: also compare what takes minutes.
        curve: instead write tables and a page of what its sampler scores with more and fewer steps, on many patients:
            the plan ``steps`` of ``ci.study``.
        beside: bundles that are timed on the same slices, each with an overlay behind a slash, with commas between
            them; the time does not depend on weights, so they need none. What works on no slices is not compared.
        settings: keys of ``inference.json``, of a curve options of ``ci.study``.
    """
    if curve:
        study(bundle, plan="steps", **settings)
        return
    configs = partial(bundle_parser, bundle, "inference")
    parser = configs(**settings)
    network, device = parser.get_parsed_content("network").eval(), parser.get_parsed_content("device")
    load_parts(network, str(parser.get_parsed_content("model_path")))
    line("device", f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    inferer = parser.get_parsed_content("inferer")
    if not hasattr(inferer, "patch_size"):  # it sees images as a whole, once
        train, paper = partial(bundle_parser, bundle, "train"), partial(bundle_parser, bundle, "inference", "paper")
        time_steps(train, paper, inferer, network)
    elif isinstance(inferer, SynthesisInferer):
        time_tumours(lambda **more: configs(**{**settings, **more}), network)
    else:
        whole = len(inferer.patch_size) == 3
        case = demo_case(parser, None if whole else slices)
        line(f"slices of {case.name}", str(case.inputs.shape[-1]))
        one_by_one = inferer_of(configs(**{**settings, "slice_batch_size": 1}))
        split_time(inferer_of(parser), network, case, one_by_one, None if whole else 1)
        recipe = recipe_of(bundle)
        rows = [row for row in recipe.benchmark if long or not row.get("long", False)]
        compare(rows, recipe.study.get("shared", {}), lambda more: configs(**{**settings, **more}), network, case)
        # A command line makes two names of "a,b", and one of "a/c,b".
        names = [name for given in ensure_tuple(beside) for name in given.split(",")]
        compare_bundles(names, inferer_of(parser), network, case)
    line("peak memory, MB", f"{_peak_memory(device):.0f}")


def split_time(inferer: Any, network: nn.Module, case: DemoCase, one_by_one: Any, warm_up: int | None = 1) -> None:
    """Print the time of the networks, what the inferer adds to it, and what batches are worth.

    Args:
        inferer: that is timed.
        network: the container.
        case: that is examined.
        one_by_one: the same inferer with one slice, or patch of a volume, in a batch.
        warm_up: slices that are examined before; None takes all.
    """
    inferer(case.inputs[..., :warm_up], network)
    with ExitStack() as listening:
        watches = {name: listening.enter_context(Stopwatch(part)) for name, part in network.named_children()}
        watched, _ = timed(inferer, case, network)
    for name, watch in watches.items():
        if watch.calls:
            line(f"calls of {name}", f"{watch.calls}, {1000 * watch.seconds / watch.images:.2f} ms an image")
        if watch.gradient_seconds:
            line(f"gradients of {name}", f"{1000 * watch.gradient_seconds / watch.gradients:.2f} ms an image")
    networks = sum(watch.seconds + watch.gradient_seconds for watch in watches.values())
    line("overhead, share of networks", f"{100 * (watched - networks) / networks:.1f} %")
    total, single = (timed(each, case, network)[0] / case.inputs.shape[-1] for each in (inferer, one_by_one))
    line("s a slice", f"{total:.3f}")
    line("s a slice, one at a time", f"{single:.3f}, ratio {single / total:.2f}")


def compare(
    rows: Sequence[Mapping[str, Any]],
    shared: Mapping[str, Mapping[str, Any]],
    configs: Callable[[Mapping[str, Any]], ConfigParser],
    network: nn.Module,
    case: DemoCase,
) -> None:
    """Print what settings take, and, where a row asks for them, ``scores`` of what they find.

    Args:
        rows: of settings, see ``common.studies.plan.methods``; what varies in a row is done one after the other, and
            ``variants`` share what they can. Scores are those of ``segmentation_statistics``, by what they are called
            here.
        shared: settings of the bundle's study, which rows may have by name.
        configs: (keys that are set) -> parser of the config.
        network: the container.
        case: that is examined.
    """
    first = 0.0
    for row in rows:
        spent, found = 0.0, ""
        options = {name: value for name, value in row.items() if name not in ("long", "scores")}
        for method in methods([options], shared):
            parser = configs(method.settings)
            inferer = inferer_of(parser)
            seconds, result = timed(all_variants(parser) if "variants" in parser else inferer, case, network)
            spent += seconds / case.inputs.shape[-1] / getattr(inferer, "num_samples", 1)
            if "scores" in row:
                statistics = scores(dict(zip(inferer.channels, result.cpu().numpy(), strict=True)), case)
                found = "".join(f", {name} {statistics[of]:.3f}" for name, of in row["scores"].items())
        first = first or spent
        line(row["name"], f"{spent:.3f} s a slice and draw, {spent / first:.2f} times the first{found}")


def compare_bundles(names: Sequence[str], inferer: Any, network: nn.Module, case: DemoCase) -> None:
    """Print what others take for the slices of a case.

    Args:
        names: of bundles, each with an overlay behind a slash.
        inferer: that they are compared with.
        network: its container.
        case: that is examined.
    """
    for name in names:
        own, (bundle, *overlays) = timed(inferer, case, network)[0], name.split("/")
        parser = bundle_parser(bundle, "inference", *overlays)
        other = parser.get_parsed_content("network").eval()
        seconds, each = timed(inferer_of(parser), case, other)[0], 1000 / case.inputs.shape[-1]
        line(name, f"{each * seconds:.1f} ms an image, {seconds / own:.1f} times the {each * own:.1f} ms above")


def all_variants(parser: ConfigParser) -> Callable[[MetaTensor, nn.Module], list[Tensor]]:
    """Return what examines one image with all ``variants`` of a config."""
    inferer, variants = inferer_of(parser), parser.get_parsed_content("variants")

    @torch.no_grad()
    def examine(inputs: MetaTensor, network: nn.Module) -> list[Tensor]:
        volume = convert_to_tensor(inputs[0], track_meta=False).float()
        return variants.examine(inferer, volume, pixel_size_mm(inputs), network)

    return examine


def scores(maps: Mapping[str, NDArray[Any]], case: DemoCase) -> dict[str, float]:
    """Return the statistics of a segmentation with its uncertainty."""
    found = (maps["mean"], maps["uncertainty"], maps["mask"] > 0, maps["organ"] > 0, case.truth)
    record = examine_segmentation(case.name, case.name, *found, case.spacing_mm)
    return {name: number(np.ones(1)) for name, number in segmentation_statistics([record]).items()}


def timed(inferer: Any, case: DemoCase, network: nn.Module) -> tuple[float, Tensor]:
    """Return the time that an inferer takes for a case, and its channels."""
    synchronise()
    start = time.perf_counter()
    result = inferer(case.inputs, network)[0]
    synchronise()
    return time.perf_counter() - start, result


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    fire.Fire(benchmark)
