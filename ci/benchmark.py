"""Time a bundle's inference against itself, ratios from one run: ``python -m ci.benchmark gdpi``."""

import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor

from common.checkpoints import load_parts
from common.inferers.models import noise_predictor
from common.metrics.segmentation import examine_segmentation, segmentation_statistics
from common.samplers.ancestral import sample
from common.samplers.condition_difference import condition_difference
from common.samplers.ddim import decode, encode
from common.samplers.guidance import classifier_guidance
from common.samplers.repaint import jump_schedule, repaint
from common.schedulers import NoiseSchedule

from . import bundle_parser
from .timing import synchronise, time_of


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
    print(f"device                               {_device(device)}")
    print(f"slices of {size}x{size} in the batch      {slices}")
    print(f"network calls, of transitions        {watch.calls} of {len(levels) - 1}")
    print(f"network, ms a call and a slice       {1000 * watch.seconds / watch.calls / slices:.2f}")
    print(f"loop's overhead, share of network    {100 * (total - watch.seconds) / watch.seconds:.1f} %")
    single, _ = timed(image.split(1))
    print(f"slices a second in the batch         {slices / total:.2f}")
    print(f"against one slice at a time          {slices / single:.2f}, ratio {single / total:.2f}")
    print(f"peak memory, MB                      {_peak_memory(device):.0f}")


LEVEL_SHARES, SCALES = (0.5, 0.75, 1.0), (0.0, 30.0, 100.0)
"""Of the sweep: noise levels as shares of the config's, and guidance scales."""


def benchmark_translation(parser: ConfigParser, slices: int, size: int) -> None:
    """Encode and decode the same slices in one batch and one at a time, and sweep settings with and without sharing.

    Args:
        parser: of ``inference.json``.
        slices: in the batch.
        size: pixels along X and Y; that of the classifier.
    """
    device, network = parser.get_parsed_content("device"), parser.get_parsed_content("network").eval()
    schedule, level = parser.get_parsed_content("schedule"), parser.get_parsed_content("noise_level")
    scale = parser.get_parsed_content("guidance_scale")
    model = noise_predictor(network.diffusion, label=0)
    image = torch.rand(slices, network.diffusion.in_channels, size, size, device=device)

    def translate(
        batch: Tensor, model: Any, levels: Sequence[int], scales: Sequence[float]
    ) -> tuple[float, list[Stopwatch]]:
        watches = [Stopwatch(classifier_guidance(network.classifier, 0, scale)) for scale in scales]
        start = time.perf_counter()
        for each, latent in zip(levels, encode(model, batch, schedule, levels), strict=True):
            for watch in watches:
                decode(model, latent, schedule, each, [watch])
        synchronise()
        return time.perf_counter() - start, watches

    with torch.no_grad():
        translate(image, model, [level // 10], [scale])  # warm-up
        watch = Stopwatch(model)
        total, (guide,) = translate(image, watch, [level], [scale])
        single = sum(translate(x, model, [level], [scale])[0] for x in image.split(1))
        levels = [round(level * share) for share in LEVEL_SHARES]
        shared, _ = translate(image, model, levels, SCALES)
        alone = sum(translate(image, model, [each], [s])[0] for each in levels for s in SCALES)
    networks = watch.seconds + guide.seconds
    print(f"device                               {_device(device)}")
    print(f"slices of {size}x{size} in the batch      {slices}")
    print(f"calls of diffusion model and guide   {watch.calls} and {guide.calls}, up to timestep {level}")
    print(f"diffusion model, ms a call and slice {1000 * watch.seconds / watch.calls / slices:.2f}")
    print(f"classifier's gradient, the same      {1000 * guide.seconds / guide.calls / slices:.2f}")
    print(f"loop's overhead, share of networks   {100 * (total - networks) / networks:.1f} %")
    print(f"seconds a slice in the batch         {total / slices:.2f}")
    print(f"against one slice at a time          {single / slices:.2f}, ratio {single / total:.2f}")
    print(f"{len(levels)} levels x {len(SCALES)} scales, one encoding    {shared:.1f} s")
    print(f"the same, an encoding each           {alone:.1f} s, ratio {alone / shared:.2f}")
    print(f"peak memory, MB                      {_peak_memory(device):.0f}")


CG_DIFF_LEVEL = 400
"""Q of CG-Diff in Hu et al. 2023."""


def benchmark_differences(parser: ConfigParser, slices: int, size: int) -> None:
    """Compare conditions (CDM) and translate (CG-Diff) on the same slices and the same networks.

    Args:
        parser: of ``inference.json``.
        slices: in the batch.
        size: pixels along X and Y; that of the classifier.
    """
    device, network = parser.get_parsed_content("device"), parser.get_parsed_content("network").eval()
    schedule, level = parser.get_parsed_content("schedule"), parser.get_parsed_content("noise_level")
    steps, tau = parser.get_parsed_content("num_difference_steps"), parser.get_parsed_content("tau")
    image = torch.rand(slices, network.diffusion.in_channels, size, size, device=device)
    mixed, healthy = noise_predictor(network.diffusion), noise_predictor(network.diffusion, label=0)
    t, shares = torch.full((slices,), level, device=device), torch.ones(slices, 2, device=device) / 2

    def differ(scale: float) -> None:
        guide = partial(classifier_guidance, network.classifier, scale=scale) if scale else None
        condition_difference(mixed, image, schedule, level, steps, tau, guide=guide)

    def translate(num_steps: int) -> None:  # CG-Diff, at the paper's noise level
        respaced = NoiseSchedule(schedule.num_train_timesteps, num_inference_steps=num_steps, spacing="trailing")
        guides = [classifier_guidance(network.classifier, 0, 100.0)]
        decode(healthy, encode(healthy, image, respaced, CG_DIFF_LEVEL), respaced, CG_DIFF_LEVEL, guides)

    with torch.no_grad():
        twice = torch.cat([image, image])
        both = time_of(lambda: mixed(twice, torch.cat([t, t]), torch.cat([shares, shares])), 5)
        one = time_of(lambda: mixed(image, t, shares), 5)
    seconds = {
        f"CDM, {steps} steps, one draw": time_of(partial(differ, 0.0), 3),
        "CG-CDM, the same": time_of(partial(differ, 10.0), 3),
        f"CG-Diff, {CG_DIFF_LEVEL} + {CG_DIFF_LEVEL} steps": time_of(partial(translate, schedule.num_train_timesteps)),
        "CG-Diff, every fourth of them": time_of(partial(translate, schedule.num_train_timesteps // 4)),
    }
    cdm = next(iter(seconds.values()))
    print(f"device                               {_device(device)}")
    print(f"slices of {size}x{size} in the batch      {slices}")
    print(f"both conditions in a call, ratio     {2 * one / both:.2f} times as fast as in two")
    for name, spent in seconds.items():
        print(f"{name + ', s a slice':37s}{spent / slices:.3f}, {spent / cdm:.1f} times CDM's")
    print(f"peak memory, MB                      {_peak_memory(device):.0f}")


RESPACED = (20, 50, 250, 1000)
"""Steps of 1000 that a segmentation is drawn in."""


def benchmark_segmentation(parser: ConfigParser, slices: int, size: int, long: bool = False) -> None:
    """Draw an ensemble in one batch and one member at a time; segment a demonstration case in few and many steps.

    Args:
        parser: of ``inference.json``.
        slices: with tumour, of the first testing case; fewer if it has fewer.
        size: pixels along X and Y.
        long: also 1000 steps, minutes on a CPU.
    """
    device, network = parser.get_parsed_content("device"), parser.get_parsed_content("network").eval()
    load_parts(network, str(parser.get_parsed_content("model_path")))
    inferer, members = parser.get_parsed_content("inferer"), parser.get_parsed_content("num_samples")
    model, steps = noise_predictor(network.diffusion), RESPACED[0]
    image = torch.rand(slices, inferer.num_channels, size, size, device=device)

    def draw(count: int) -> None:
        conditions, schedule = image.repeat(count, 1, 1, 1), NoiseSchedule(num_inference_steps=steps)
        sample(model, (len(conditions), inferer.num_regions, size, size), schedule, conditions)

    single, batched = members * time_of(partial(draw, 1), 3), time_of(partial(draw, members), 3)
    print(f"device                               {_device(device)}")
    print(f"slices of {size}x{size} in the batch      {slices}")
    print(f"{members} members in one batch, s             {batched:.1f}, {steps} steps")
    print(f"{members} runs, s                             {single:.1f}, ratio {single / batched:.2f}")

    item = parser.get_parsed_content("dataset")[0]
    labels = item["label"][0].numpy() > 0
    shown = np.argsort(-labels.sum((0, 1)))[:slices]
    volume, truth = item["image"].as_tensor()[..., shown], labels[..., shown]
    inferer.progress = False
    for count in RESPACED if long else RESPACED[:-1]:
        inferer.schedule, start = NoiseSchedule(num_inference_steps=count), time.perf_counter()
        inputs = MetaTensor(volume[None], affine=item["image"].affine).to(device)
        mean, variance, mask, organ = inferer(inputs, network)[0][:4].cpu().numpy()
        spent = time.perf_counter() - start
        maps = (mean, variance, mask > 0, organ > 0, truth)
        record = examine_segmentation("demo", "demo", *maps, [float(mm) for mm in item["image"].pixdim])
        found = segmentation_statistics([record])
        dice, error = (found[name](np.ones(1)) for name in ("Dice, mean of slices", "expected calibration error"))
        each = spent / volume.shape[-1] / members
        print(f"{count:4d} steps, s a slice and member     {each:.2f}, Dice {dice:.3f}, calibration error {error:.4f}")
    print(f"peak memory, MB                      {_peak_memory(device):.0f}")


BENCHMARKS: dict[str, Callable[..., None]] = {
    "gdpi": benchmark_gdpi,
    "wolleb_anomaly": benchmark_translation,
    "pancreas_anomaly": benchmark_translation,
    "ensemble_segmentation": benchmark_segmentation,
    "cdm": benchmark_differences,
}


def benchmark(bundle: str, slices: int = 16, size: int = 64, long: bool = False, **settings: Any) -> None:
    """Print the figures of a bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        slices: in a batch.
        size: pixels along X and Y; where there is a classifier, those of ``patch_size``.
        long: of ``ensemble_segmentation``, also 1000 steps.
        settings: keys of ``inference.json``.
    """
    options = {"long": True} if long else {}
    BENCHMARKS[bundle](bundle_parser(bundle, "inference", **settings), slices, size, **options)


def _device(device: torch.device) -> str:
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    fire.Fire(benchmark)
