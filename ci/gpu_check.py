"""Run a bundle at its paper's size on a CUDA device: ``python -m ci.gpu_check gdpi``.

What runs is the inferer that the config makes, on slices of the demonstration. Prints its time, time and TFLOP/s of the
main network and of a training step, memory, and gates: the demonstration in fast arithmetic against float32.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.checkpoints import load_parts
from common.metrics.overlap import dice

from . import bundle_parser
from .benchmark import DemoCase, demo_case, inferer_of, timed
from .recipes import recipe_of
from .timing import line, time_of

MIN_DICE_BETWEEN_PRECISIONS = 0.95
"""Of the masks of a demonstration case."""

PRECISIONS: Mapping[str, Mapping[str, bool]] = {
    "float32": {"amp": False, "compile": False},
    "bfloat16": {"amp": True, "compile": False},
    "compiled": {"amp": True, "compile": True},
}
"""Keys by name; what is compiled stays so, and comes last."""

Configs = Callable[..., ConfigParser]
"""(keys that are set) -> parser of ``inference.json``."""


def gpu_check(bundle: str, batches: Sequence[int] = (1, 4, 16), **settings: Any) -> None:
    """Print the figures of a bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        batches: slices at once, at the paper's size.
        settings: keys of ``inference.json``, over those of the recipe, at the paper's size.

    Raises:
        SystemExit: without a CUDA device, or if a gate does not hold.
    """
    if not torch.cuda.is_available():
        raise SystemExit("expected a CUDA device, found none.")
    line("device", torch.cuda.get_device_name())
    recipe = recipe_of(bundle).gpu_check
    allow_tf32(True)
    paper = {**recipe.get("settings", {}), **settings}
    time_at_size(lambda **keys: bundle_parser(bundle, "inference", "paper", **{**paper, **keys}), batches)
    line("peak memory, GB", f"{torch.cuda.max_memory_allocated() / 2**30:.1f}")
    if not gates_hold(partial(bundle_parser, bundle, "inference"), **recipe.get("gates", {})):
        raise SystemExit("a gate does not hold.")


def time_at_size(
    configs: Configs, batches: Sequence[int], precisions: Mapping[str, Mapping[str, bool]] = PRECISIONS
) -> None:
    """Print the time of the main network, of a training step, and of an inferer with untrained networks.

    Args:
        configs: of the size.
        batches: slices at once.
        precisions: keys by name.
    """
    torch.manual_seed(0)
    parser = configs()
    network = parser.get_parsed_content("network_def").to(parser.get_parsed_content("device")).eval()
    for weight in network.parameters():
        if not weight.any():  # last layers of an untrained network are 0, and so would be what it says
            nn.init.normal_(weight, std=0.02)
    call = first_call(network, inferer_of(parser), demo_case(parser, max(batches)))
    time_network(network.get_submodule(network.main), *call)
    for name, keys in precisions.items():
        for batch in batches:
            parser = configs(**keys, slice_batch_size=batch)
            inferer, case = inferer_of(parser), demo_case(parser, batch)
            timed(inferer, case, network)  # warm-up
            seconds, _ = timed(inferer, case, network)
            line(f"{name}, {case.inputs.shape[-1]} slices at once", f"{seconds / case.inputs.shape[-1]:.3f} s a slice")


def first_call(network: Any, inferer: Any, case: DemoCase) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that an inferer calls the main network with first."""
    calls: list[Any] = []
    hook = network.get_submodule(network.main).register_forward_pre_hook(
        lambda _, arguments, options: calls.append((arguments, options)), with_kwargs=True
    )
    inferer(case.inputs, network)
    hook.remove()
    return calls[0]


def time_network(network: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Print the time and TFLOP/s of a call, and the time of a training step with its first image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*arguments, **options)
    images, device = len(arguments[0]), arguments[0].device.type
    for name, amp in (("float32", False), ("bfloat16", True)):
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=amp):
            seconds = time_of(lambda: network(*arguments, **options), 10, 3)
        speed = f"{counter.get_total_flops() / seconds / 1e12:.1f} TFLOP/s"
        line(f"network, {name}", f"{1000 * seconds:.1f} ms a call of {images} images, {speed}")

    def first(value: Any) -> Any:
        return value[:1] if isinstance(value, Tensor) else value

    optimizer = torch.optim.Adam(network.parameters(), 0.0)

    def step() -> None:
        optimizer.zero_grad()
        network(
            *map(first, arguments), **{name: first(value) for name, value in options.items()}
        ).square().mean().backward()
        optimizer.step()

    line("training step, one image", f"{1000 * time_of(step, 10, 3):.1f} ms")


def gates_hold(
    configs: Configs, round_trip: Mapping[str, Any] | None = None, max_fill_difference: float | None = None
) -> bool:
    """Print how the demonstration changes with TF32 and, where the inferer has it, bfloat16; return whether it may so.

    Args:
        configs: of the demonstration.
        round_trip: keys with which nothing should change on the way to noise and back.
        max_fill_difference: that what is inpainted may have in the mean, in the unit of the image.
    """
    exact, fast = demo_maps(configs, False), demo_maps(configs, True)
    masks = [maps["mask"] > 0 for maps in (exact, fast)]
    agreement = dice(masks[1].cpu().numpy(), masks[0].cpu().numpy())
    line("Dice of float32's and fast masks", f"{agreement:.3f}, at least {MIN_DICE_BETWEEN_PRECISIONS}")
    held = bool(agreement >= MIN_DICE_BETWEEN_PRECISIONS)
    if round_trip is not None:
        errors = [demo_maps(configs, quick, **round_trip)["anomaly"].square().mean().sqrt() for quick in (False, True)]
        line("round trip's RMS, float32 and fast", " and ".join(f"{error:.4f}" for error in errors))
    if max_fill_difference is not None:
        difference, known = fill_difference(exact["image"], exact["healthy"], fast["healthy"])
        line("fillings' mean difference", f"{difference:.2f}, at the most {max_fill_difference}; known pixels: {known}")
        held = held and known and difference <= max_fill_difference
    return held


def fill_difference(image: Tensor, exact: Tensor, fast: Tensor) -> tuple[float, bool]:
    """Return by how much two fillings differ in the mean, and whether all else is the image in the second, too."""
    filled = exact != image
    return (exact - fast)[filled].abs().mean().item(), torch.equal(fast[~filled], image[~filled])


def demo_maps(configs: Configs, fast: bool, **settings: Any) -> dict[str, Tensor]:
    """Return what a bundle says of its first testing case, by name, and the ``image``, shape (X, Y, Z)."""
    allow_tf32(fast)
    parser = configs(**{**({"amp": True} if fast else {}), **settings})
    network, case = parser.get_parsed_content("network").eval(), demo_case(parser, None)
    load_parts(network, str(parser.get_parsed_content("model_path")))
    inferer = inferer_of(parser)
    found = inferer(case.inputs, network)[0]
    image = convert_to_tensor(case.inputs[0, 0], track_meta=False)
    return {"image": image, **dict(zip(inferer.channels, found, strict=True))}


def allow_tf32(allowed: bool) -> None:
    """Say whether float32 may be computed with fewer bits on CUDA."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


if __name__ == "__main__":
    fire.Fire(gpu_check)
