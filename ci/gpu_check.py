"""Run a bundle at its paper's size on a CUDA device: ``python -m ci.gpu_check gdpi``.

Prints time, memory and TFLOP/s of the network and of a training step, and gates: the bfloat16 result against float32.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fire
import torch
from monai.bundle import ConfigParser
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from common.checkpoints import load_parts
from common.inferers.models import noise_predictor
from common.metrics.overlap import dice
from common.phantoms.abdomen_ct import ORGANS, abdomen_ct
from common.samplers.ancestral import sample
from common.samplers.condition_difference import condition_difference
from common.samplers.ddim import decode, encode
from common.samplers.guidance import classifier_guidance
from common.samplers.repaint import repaint
from common.schedulers import NoiseSchedule
from common.transforms.adaptive_mask import adaptive_mask
from common.transforms.intensity import scale_hu

from . import bundle_parser
from .timing import synchronise, time_of

MAX_HU_BETWEEN_PRECISIONS = 2.0
"""Mean absolute difference of inpainted pixels that bfloat16 may make with the same draws."""

MIN_DICE_BETWEEN_PRECISIONS = 0.95
"""Of the masks of a demonstration case."""

BATCHES = (1, 4, 16)
"""Slices at once, at the paper's size."""

PRECISIONS = (("float32", False, False), ("bfloat16", True, False), ("compiled", True, True))
"""Names, amp and compile."""

_seconds = partial(time_of, repeats=10, warm_up=3)
"""Of a call, when what it needs is compiled and allocated."""


def check_gdpi(parser: ConfigParser, device: torch.device, steps: int) -> bool:
    """Inpaint a phantom's slices with the paper's network, and train a step; return whether the gates hold.

    Args:
        parser: of ``inference.json`` with ``paper.json``.
        device: with CUDA.
        steps: of the sampler, without resampling.
    """
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").diffusion.to(device)
    window = parser.get_parsed_content("hu_window")
    phantom = abdomen_ct(0, (256, 256, 8), (1.5, 1.5, 4.0))
    liver = phantom.organs == ORGANS["liver"]
    hole = _slices(adaptive_mask(phantom.image, liver)).to(device)
    image = scale_hu(_slices(phantom.image).float().to(device), window)
    t = torch.full((len(image),), 500, device=device)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image, t)
    flops = counter.get_total_flops()
    filled = {}
    for name, amp in (("float32", False), ("bfloat16", True)):
        model = noise_predictor(network.eval(), amp)
        with torch.no_grad():
            seconds = _seconds(partial(model, image, t))
        print(f"{name}: {1000 * seconds:.1f} ms a call for {len(image)} slices, {flops / seconds / 1e12:.1f} TFLOP/s")
        schedule = NoiseSchedule(num_inference_steps=steps)
        generator = torch.Generator(device).manual_seed(0)
        start = time.perf_counter()
        filled[name] = repaint(model, image, hole, schedule, 1, 1, generator)
        synchronise()
        print(f"{name}: {steps} steps in {time.perf_counter() - start:.1f} s")
    half_window = (window[1] - window[0]) / 2
    difference = ((filled["float32"] - filled["bfloat16"])[hole]).abs().mean().item() * half_window
    known = torch.equal(filled["bfloat16"][~hole], image[~hole])
    print(
        f"bfloat16 against float32: {difference:.2f} HU, at the most {MAX_HU_BETWEEN_PRECISIONS}; known pixels: {known}"
    )

    network.train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        (network(image[:1], t[:1]) - torch.randn_like(image[:1])).square().mean().backward()
        optimizer.step()

    print(f"training step, batch 1: {1000 * _seconds(step):.1f} ms")
    print(
        f"peak memory: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GB on {torch.cuda.get_device_name(device)}"
    )
    return difference <= MAX_HU_BETWEEN_PRECISIONS and known


def check_translation(parser: ConfigParser, device: torch.device, steps: int) -> bool:
    """Time encoding and guided decoding with the paper's networks; return whether the demonstration's gate holds.

    Args:
        parser: of ``inference.json`` with ``paper.json``.
        device: with CUDA.
        steps: up to ``noise_level``; the paper's own are as many as ``noise_level``.
    """
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").to(device).eval()
    for weight in network.diffusion.out[-1].parameters():  # 0 in an untrained network
        torch.nn.init.normal_(weight, std=0.02)
    level, channels = parser.get_parsed_content("noise_level"), network.diffusion.in_channels
    size, scale = parser.get_parsed_content("patch_size"), parser.get_parsed_content("guidance_scale")
    schedule = NoiseSchedule(num_inference_steps=steps * 1000 // level, spacing="trailing")
    guide = classifier_guidance(network.classifier, 0, scale)
    for batch in BATCHES:
        image = torch.rand(batch, channels, *size, device=device)
        t = torch.full((batch,), level // 2, device=device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.diffusion(image, t, class_labels=torch.zeros_like(t))
        flops, gradient_ms = counter.get_total_flops(), 1000 * _seconds(partial(guide, image, t))
        for name, amp, compiled in PRECISIONS:
            model = noise_predictor(network.diffusion, amp, compiled, label=0)
            with torch.no_grad():
                seconds = _seconds(partial(model, image, t))
            start = time.perf_counter()
            decode(model, encode(model, image, schedule, level), schedule, level, guide)
            synchronise()
            each = (time.perf_counter() - start) / batch
            print(
                f"batch {batch}, {name}: {1000 * seconds:.1f} ms a call, {flops / seconds / 1e12:.1f} TFLOP/s, "
                f"gradient {gradient_ms:.1f} ms; {steps} + {steps} steps {each:.2f} s a slice, "
                f"so {level} + {level} about {each * level / steps:.1f} s"
            )
    print(f"peak memory: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GB")
    return _same_in_bfloat16(parser, device)


def check_segmentation(parser: ConfigParser, device: torch.device, steps: int) -> bool:
    """Time an ensemble with the paper's network; return whether the demonstration's gate holds.

    Args:
        parser: of ``inference.json`` with ``paper.json``.
        device: with CUDA.
        steps: that are timed; the paper makes 1000.
    """
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").to(device).eval()
    for weight in network.diffusion.out[-1].parameters():  # 0 in an untrained network
        torch.nn.init.normal_(weight, std=0.02)
    channels, size = parser.get_parsed_content("num_channels"), parser.get_parsed_content("patch_size")
    schedule = NoiseSchedule(num_inference_steps=steps)
    for batch in (1, 5, 20):
        image = torch.rand(batch, channels, *size, device=device)
        for name, amp, compiled in PRECISIONS:
            model = noise_predictor(network.diffusion, amp, compiled)
            draw = partial(sample, model, (batch, 1, *size), schedule, image)
            each = _seconds(draw, repeats=1) / batch
            print(
                f"batch {batch}, {name}: {steps} steps {each:.2f} s a sample, so 1000 about {each * 1000 / steps:.0f} s"
            )
    print(f"peak memory: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GB")
    masks = [_demo_mask(parser, device, amp=amp) for amp in (False, True)]
    return _equal_enough(masks, "float32 and bfloat16")


def check_differences(parser: ConfigParser, device: torch.device, steps: int) -> bool:
    """Time CDM and CG-CDM with the paper's networks; return whether TF32 leaves the demonstration's mask as it is.

    Args:
        parser: of ``inference.json`` with ``paper.json``.
        device: with CUDA.
        steps: not used, as the paper's own are few.
    """
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").to(device).eval()
    level, rounds = parser.get_parsed_content("noise_level"), parser.get_parsed_content("num_difference_steps")
    tau, schedule = parser.get_parsed_content("tau"), parser.get_parsed_content("schedule")
    size = parser.get_parsed_content("patch_size")
    for batch in BATCHES:
        image = torch.rand(batch, parser.get_parsed_content("num_channels"), *size, device=device)
        for name, scale in (("CDM", 0.0), ("CG-CDM", 10.0)):
            guide = partial(classifier_guidance, network.classifier, scale=scale) if scale else None
            model = noise_predictor(network.diffusion)
            differ = partial(condition_difference, model, image, schedule, level, rounds, tau, guide=guide)
            print(f"batch {batch}, {name}: {_seconds(differ, repeats=2) / batch:.3f} s a slice")
    print(f"peak memory: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GB")
    masks = []
    for fast in (False, True):  # a CPU would draw other noise
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
        masks.append(_demo_mask(parser, device))
    return _equal_enough(masks, "float32 and TF32")


def _same_in_bfloat16(parser: ConfigParser, device: torch.device) -> bool:
    """Compare precisions on the demonstration: error of the round trip, and masks of a testing case."""
    errors = [
        _demo(parser, device, amp=amp, guidance_scale=0.0)["anomaly"].square().mean().sqrt() for amp in (False, True)
    ]
    print(f"demonstration, float32 and bfloat16: round trip's RMS {' and '.join(f'{error:.4f}' for error in errors)}")
    return _equal_enough([_demo_mask(parser, device, amp=amp) for amp in (False, True)], "float32 and bfloat16")


def _demo(paper: ConfigParser, device: torch.device, **settings: object) -> dict[str, Tensor]:
    """Return what the bundle says of its first testing case, by name, shape (X, Y, Z)."""
    bundle = Path(paper.get_parsed_content("bundle_root")).name
    parser = bundle_parser(bundle, "inference", device=device, **settings)
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    load_parts(network, str(parser.get_parsed_content("model_path")))
    found = inferer(parser.get_parsed_content("dataset")[0]["image"][None].to(device), network.eval())[0]
    return dict(zip(inferer.channels, found, strict=True))


def _demo_mask(paper: ConfigParser, device: torch.device, **settings: object) -> Tensor:
    return _demo(paper, device, **settings)["mask"].cpu() > 0


def _equal_enough(masks: list[Tensor], names: str) -> bool:
    """Print the Dice of two masks, and return whether it is high enough."""
    found = float(dice(*(mask.numpy() for mask in masks)))
    print(f"demonstration, {names}: Dice of the masks {found:.3f}")
    return found >= MIN_DICE_BETWEEN_PRECISIONS


CHECKS: dict[str, Callable[[ConfigParser, torch.device, int], bool]] = {
    "gdpi": check_gdpi,
    "wolleb_anomaly": check_translation,
    "pancreas_anomaly": check_translation,
    "ensemble_segmentation": check_segmentation,
    "cdm": check_differences,
}


def gpu_check(bundle: str, steps: int = 50) -> None:
    """Print the figures of a bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        steps: of the sampler.

    Raises:
        SystemExit: without a CUDA device, or if a gate does not hold.
    """
    if not torch.cuda.is_available():
        raise SystemExit("expected a CUDA device, found none.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if not CHECKS[bundle](bundle_parser(bundle, "inference", "paper"), torch.device("cuda"), steps):
        raise SystemExit("a gate does not hold.")


def _slices(volume: object) -> Tensor:
    return torch.as_tensor(volume).movedim(-1, 0)[:, None]


if __name__ == "__main__":
    fire.Fire(gpu_check)
