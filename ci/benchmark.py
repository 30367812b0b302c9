"""Time a bundle's inference against itself, ratios from one run: ``python -m ci.benchmark gdpi``."""

import resource
import time
from collections.abc import Callable
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from common.inferers.slices import noise_predictor
from common.samplers.repaint import jump_schedule, repaint
from common.schedulers import NoiseSchedule

from . import bundle_parser


class Stopwatch:
    """A model that adds up the time it takes.

    Args:
        model: any callable.
    """

    def __init__(self, model: Callable[..., Tensor]) -> None:
        self.model, self.seconds, self.calls = model, 0.0, 0

    def __call__(self, *args: Tensor) -> Tensor:
        """Call the model."""
        synchronise()
        start = time.perf_counter()
        result = self.model(*args)
        synchronise()
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return result


def benchmark_gdpi(parser: ConfigParser, slices: int, size: int) -> None:
    """Inpaint the same slices in one batch and one at a time.

    Args:
        parser: of ``inference.json``.
        slices: in the batch.
        size: pixels along X and Y.
    """
    device, network = parser.get_parsed_content("device"), parser.get_parsed_content("network").eval()
    model = noise_predictor(network.diffusion)
    schedule = NoiseSchedule(num_inference_steps=parser.get_parsed_content("num_inference_steps"))
    jumps = {name: parser.get_parsed_content(name) for name in ("jump_length", "num_resamples")}
    levels = jump_schedule(len(schedule), **jumps)
    image = torch.randn(slices, 1, size, size, device=device).clamp(-1, 1)
    hole = torch.zeros_like(image, dtype=torch.bool)
    hole[..., size // 3 : size // 2, size // 3 : size // 2] = True

    def timed(batches: tuple[Tensor, ...]) -> tuple[float, Stopwatch]:
        watch, start = Stopwatch(model), time.perf_counter()
        for index, batch in enumerate(batches):
            repaint(watch, batch, hole[: len(batch)], schedule, generator=_generator(device, index), **jumps)
        return time.perf_counter() - start, watch

    with torch.no_grad():
        model(image, torch.zeros(slices, dtype=torch.long, device=device))  # warm-up
    total, watch = timed((image,))
    print(
        f"device                               {device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"slices of {size}x{size} in the batch      {slices}")
    print(f"network calls, of transitions        {watch.calls} of {len(levels) - 1}")
    print(f"network, ms a call and a slice       {1000 * watch.seconds / watch.calls / slices:.2f}")
    print(f"loop's overhead, share of network    {100 * (total - watch.seconds) / watch.seconds:.1f} %")
    single, _ = timed(image.split(1))
    print(f"slices a second in the batch         {slices / total:.2f}")
    print(f"against one slice at a time          {slices / single:.2f}, ratio {single / total:.2f}")
    print(f"peak memory, MB                      {_peak_memory(device):.0f}")


BENCHMARKS: dict[str, Callable[..., None]] = {"gdpi": benchmark_gdpi}


def benchmark(bundle: str, slices: int = 16, size: int = 64, **settings: Any) -> None:
    """Print the figures of a bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        slices: in a batch.
        size: pixels along X and Y.
        settings: keys of ``inference.json``.
    """
    BENCHMARKS[bundle](bundle_parser(bundle, "inference", **settings), slices, size)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    fire.Fire(benchmark)
