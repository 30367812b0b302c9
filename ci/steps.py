"""What a step of a training on images of several sites costs, for ``ci.benchmark``."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.networks.utils import eval_mode
from torch import nn

from common.timing import synchronise

from .timing import line, time_of

METHODS = ("vanilla", "learn_to_ignore")
REPEATS = 9


def time_steps(
    configs: Callable[..., ConfigParser], paper: Callable[[], ConfigParser], inferer: Any, network: nn.Module
) -> None:
    """Print milliseconds a step of a plain classifier and of one that ignores sites, timed in turns; then an image's.

    Both have the same images of all sites; the second one has an image of the target of each class behind them.

    Args:
        configs: (keys) -> parser of ``train.json``.
        paper: makes the parser of the paper's sizes.
        inferer: of ``inference.json``.
        network: the container, with its weights.
    """
    steps, spent = {}, {method: list[float]() for method in METHODS}
    for method in METHODS:
        parser = configs(method=method)
        batch = next(iter(parser.get_parsed_content("train::dataloader")))
        line(f"batch of {method}", f"{len(batch['image'])} images")
        steps[method] = _step(parser, batch)
    for _ in range(REPEATS):
        for method, step in steps.items():
            synchronise()
            start = time.perf_counter()
            step()
            synchronise()
            spent[method].append(time.perf_counter() - start)
    plain, ignoring = (1000 * float(np.median(spent[method][1:])) for method in METHODS)
    line("ms a step, vanilla", f"{plain:.0f}")
    line("ms a step, learning to ignore", f"{ignoring:.0f}, ratio {ignoring / plain:.2f}")
    image = batch["image"][:1].to(next(network.parameters()).device)
    with eval_mode(network):
        line("ms an image, inference", f"{1000 * time_of(lambda: inferer(image, network)):.0f}")
    values, parameters = paper_size(paper())
    gibibytes = 4 * values / 2**30
    line("paper's size, activations", f"{values / 1e6:.0f} M values an image, {gibibytes:.2f} GiB in float32")
    line("paper's size, 12 images and Adam", f"{12 * gibibytes + 16 * parameters / 2**30:.1f} GiB, on paper")


def _step(parser: ConfigParser, batch: dict[str, Any]) -> Callable[[], None]:
    """Return one step of a training: forward, backward, and of the optimiser."""
    network, loss, optimizer = (
        parser.get_parsed_content(f"train::{name}") for name in ("network", "loss", "optimizer")
    )
    device = parser.get_parsed_content("device")
    image, label = batch["image"].to(device), batch["label"].to(device)

    def step() -> None:
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()

    return step


def paper_size(parser: ConfigParser) -> tuple[int, int]:
    """Return the values that convolutions, norms and ReLUs give of one image, and the parameters; nothing is computed.

    Args:
        parser: of the paper's sizes.
    """
    shape, counted = parser.get_parsed_content("patch_size"), list[int]()
    with torch.device("meta"):
        network: nn.Module = parser.get_parsed_content("network_def").eval()
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.InstanceNorm3d | nn.ReLU):
                module.register_forward_hook(lambda module, given, made: counted.append(made.numel()))
        network(torch.empty(1, 1, *shape))
    return sum(counted), sum(tensor.numel() for tensor in network.parameters())
