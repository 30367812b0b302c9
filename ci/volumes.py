"""What tumours that are put into volumes cost, for ``ci.benchmark``."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import nn

from common.timing import Stopwatch

from .timing import line, time_of

BATCHES = (1, 2, 4, 8)
TUMOURS = 8

MEASURED = """
import resource, torch
{setup}
vectors = torch.randn(1, 8, 24, 24, 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    quantiser(vectors)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
QUANTISERS = {
    "ours": "from common.networks.quantiser import RestartQuantiser\nquantiser = RestartQuantiser(16384, 8)",
    "MONAI's": "from monai.networks.layers.vector_quantizer import EMAQuantizer\nquantiser = EMAQuantizer(3, 16384, 8)",
}


def time_tumours(configs: Callable[..., ConfigParser], network: nn.Module) -> None:
    """Print milliseconds a tumour: of encoding, steps and decoding, and of batches; then the quantisers' memory.

    Args:
        configs: (keys) -> parser of ``inference.json``.
        network: the container, with its weights.
    """
    parser = configs()
    item = parser.get_parsed_content("dataset")[0]
    inputs: Any = MetaTensor(item["image"].as_tensor()[None], affine=item["image"].affine)
    inputs = inputs.to(parser.get_parsed_content("device"))
    autoencoder: Any = network.get_submodule("autoencoder")
    spent = {}
    for batch in BATCHES:
        inferer = configs(size="tiny", num_tumours=TUMOURS, slice_batch_size=batch).get_parsed_content("inferer")
        inferer.progress = False
        spent[batch] = time_of(partial(inferer, inputs, network), 2, 1) / TUMOURS
        if batch == 1:
            parts = {"encoding": autoencoder.encoder, "steps": network.get_submodule("diffusion")}
            with ExitStack() as listening:
                watches = {
                    name: listening.enter_context(Stopwatch(part))
                    for name, part in {**parts, "decoding": autoencoder.decoder}.items()
                }
                inferer(inputs, network)
            for name, watch in watches.items():
                line(f"{name}, one at a time", f"{1000 * watch.seconds / TUMOURS:.0f} ms a tumour")
    best = min(spent, key=lambda batch: spent[batch])
    line("all, one at a time", f"{1000 * spent[1]:.0f} ms a tumour")
    line(f"all, {best} at a time", f"{1000 * spent[best]:.0f} ms a tumour, ratio {spent[1] / spent[best]:.2f}")
    megabytes = {name: _memory_of(setup) for name, setup in QUANTISERS.items()}
    line("quantiser, 96^3 and 16,384 codes", ", ".join(f"{name} {mb:.0f} MB" for name, mb in megabytes.items()))


def _memory_of(setup: str) -> float:
    """Return by how many MB a step of a quantiser raises the peak of a process."""
    command = [sys.executable, "-c", MEASURED.format(setup=setup)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])
