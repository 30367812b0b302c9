"""Weights trained with other programs, put into those of a bundle.

    python -m common.converters OLD.pt NEW.pt --config_file bundles/gdpi/configs/inference.json [--part diffusion]

takes a network trained with monai-generative, or with ``--source guided_diffusion``, see ``convert``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from .checkpoints import load_parts, read_weights, save_atomically

GENERATIVE_NAMES = {".attn.to_": ".to_", ".out_proj.": ".to_out.0.", ".postconv.": ".conv."}
"""How monai-generative calls what MONAI has renamed since."""


GUIDED_DIFFUSION_NAMES = {
    "norm1": "in_layers.0",
    r"conv1(\.conv)?": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    r"conv2(\.conv)?": "out_layers.3",
    r"skip_connection(\.conv)?": "skip_connection",
    r"attn\.out_proj": "proj_out",
    "to_qkv": "qkv_proj",
    "to_out": "c_proj",
    "position": "positional_embedding",
}
"""Patterns of our names within a block, and how guided-diffusion calls them."""


def from_monai_generative(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return weights trained with monai-generative 0.2.3 as a state dict of MONAI's network of the same name.

    With them the network gives what it gave there. MONAI's own ``load_old_state_dict`` does not: it loads the output
    projections of the self-attention, which monai-generative has, as ``proj_attn``, but never applies. Here they
    become the identity.

    Args:
        weights: raw state dict of a ``DiffusionModelUNet`` or ``AutoencoderKL`` of ``generative.networks.nets``.
        network: MONAI's, built with the same arguments (``channels`` is the former ``num_channels``); it is left as
            it is.

    Raises:
        ValueError: if the weights are of another network, another size, or MONAI's already.
    """
    state = network.state_dict()
    unknown = {name for name in weights if ".proj_attn." not in name}
    for name, value in state.items():
        if ".attn.out_proj." in name:
            state[name] = (torch.eye(len(value)) if value.ndim == 2 else torch.zeros(len(value))).to(value)
            continue
        theirs = name
        for ours, former in GENERATIVE_NAMES.items():
            theirs = theirs.replace(ours, former)
        if theirs not in weights or weights[theirs].shape != value.shape:
            came = tuple(weights[theirs].shape) if theirs in weights else "nothing"
            raise ValueError(
                f"expected weights of monai-generative with {theirs} of shape {tuple(value.shape)}, got {came}."
            )
        state[name] = weights[theirs]
        unknown.discard(theirs)
    if unknown:
        raise ValueError(
            f"expected weights of monai-generative's {type(network).__name__} of this size, "
            f"got {len(unknown)} unknown ones ({min(unknown)}, ...)."
        )
    return state


def from_guided_diffusion(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return weights trained with guided-diffusion, or a program made from it, as a state dict of ours.

    Args:
        weights: raw state dict of a ``UNetModel`` without scale-shift normalisation, or of an ``EncoderUNetModel`` with
            it and with attention pooling; both with attention in the older order of its projections, their default.
        network: MONAI's ``DiffusionModelUNet`` (``norm_eps`` 1e-5) or our ``EncoderUNet``, built with the same sizes;
            it is left as it is.

    Raises:
        ValueError: if the weights are of another network, or of another size.
    """
    state, used = network.state_dict(), set()

    def take(theirs: str, shape: torch.Size) -> Tensor:
        used.add(theirs)
        came = weights[theirs] if theirs in weights else torch.empty(0)
        if came.numel() != shape.numel() or (came.ndim > 1 and came.shape[: len(shape)] != shape[: came.ndim]):
            raise ValueError(
                f"expected weights of guided-diffusion with {theirs} of shape {tuple(shape)}, "
                f"got {tuple(came.shape) if theirs in weights else 'nothing'}."
            )
        return came.reshape(shape)

    time, convolution = "input_blocks.1.0.emb_layers.1.weight", "input_blocks.1.0.out_layers.3.weight"
    scale_shift = time in weights and convolution in weights and len(weights[time]) == 2 * len(weights[convolution])
    if scale_shift and not hasattr(network, "blocks"):
        raise ValueError(
            "expected weights of guided-diffusion without scale-shift normalisation (use_scale_shift_norm False), got "
            f"some with it, as the released ones of CDM are: a {type(network).__name__} has no such layers."
        )
    modules = _modules_of_guided_diffusion(network)
    for name, value in state.items():
        ours = max((prefix for prefix in modules if name.startswith(f"{prefix}.")), key=len)
        rest = name.removeprefix(f"{ours}.")
        projection = re.fullmatch(r"attn\.to_([qkv])\.(weight|bias)", rest)
        if projection:
            # Heads outside, q, k and v inside.
            attention: Any = network.get_submodule(ours)
            joint = take(f"{modules[ours]}.qkv.{projection[2]}", torch.Size([3 * len(value), *value.shape[1:]]))
            which = "qkv".index(projection[1])
            state[name] = joint.unflatten(0, (attention.attn.num_heads, 3, -1))[:, which].flatten(0, 1)
            continue
        for name_here, name_there in GUIDED_DIFFUSION_NAMES.items():
            rest = re.sub(rf"^{name_here}(?=\.|$)", name_there, rest)
        state[name] = take(".".join(filter(None, [modules[ours], rest])), value.shape)
    unknown = [name for name in weights if name not in used]
    if unknown:
        raise ValueError(
            f"expected weights of guided-diffusion for a {type(network).__name__} of this size, "
            f"got {len(unknown)} unknown ones ({unknown[0]}, ...)."
        )
    return state


def _modules_of_guided_diffusion(network: Any) -> dict[str, str]:
    """Return by the name of each module of ours what guided-diffusion calls it."""
    names = {"time_embed": "time_embed", "conv_in": "input_blocks.0.0", "conv_in.conv": "input_blocks.0.0"}
    if hasattr(network, "blocks"):
        last = len(network.blocks) - 2
        for i in range(len(network.blocks)):
            theirs, place = (f"input_blocks.{i + 1}", 0) if i < last else ("middle_block", 2 * (i - last))
            names |= {f"blocks.{i}": f"{theirs}.{place}", f"attentions.{i}": f"{theirs}.{place + 1}"}
        return names | {"norm": "out.0", "pool": "out.2"}

    names |= {"class_embedding": "label_emb", "out": "out", "out.2.conv": "out.2"}
    for i, ours in enumerate(("resnet_1", "attention", "resnet_2")):
        names[f"middle_block.{ours}"] = f"middle_block.{i}"

    def level(ours: str, theirs: str, first: int, count: int) -> dict[str, str]:
        places = enumerate(("resnets", "attentions"))
        return {f"{ours}.{kind}.{j}": f"{theirs}.{first + j}.{i}" for i, kind in places for j in range(count)}

    first = 1
    for i, block in enumerate(network.down_blocks):
        names |= level(f"down_blocks.{i}", "input_blocks", first, len(block.resnets))
        first += len(block.resnets)
        if block.downsampler is not None:
            names[f"down_blocks.{i}.downsampler.op.conv"] = f"input_blocks.{first}.0.op"
            first += 1
    first = 0
    for i, block in enumerate(network.up_blocks):
        names |= level(f"up_blocks.{i}", "output_blocks", first, len(block.resnets))
        first += len(block.resnets)
        if block.upsampler is not None:
            place = 2 if hasattr(block, "attentions") else 1
            names[f"up_blocks.{i}.upsampler.postconv.conv"] = f"output_blocks.{first - 1}.{place}.conv"
    return names


SOURCES = {"monai_generative": from_monai_generative, "guided_diffusion": from_guided_diffusion}
"""By whose program weights were trained what turns them into ours."""


def convert(
    old: str,
    new: str,
    config_file: str | Sequence[str],
    part: str = "diffusion",
    source: str = "monai_generative",
    **overrides: Any,
) -> None:
    """Put a network trained with another program into the weights of a bundle.

    The other parts, if the bundle has any, are those at the config's ``model_path``. So is the threshold: fit it again,
    with ``evaluate.json`` and ``--fit_threshold True``.

    Args:
        old: raw state dict, see ``from_monai_generative`` and ``from_guided_diffusion``.
        new: file to write, a raw state dict of the bundle's whole container.
        config_file: config of the bundle with ``network_def`` and ``model_path``, or several, as for ``paper.json``.
        part: name of the network in the container.
        source: one of ``SOURCES``.
        **overrides: keys of the config, such as the sizes of the network.

    Raises:
        FileNotFoundError: if there are no weights at ``old`` or ``model_path``.
        ValueError: if one of them does not fit, or ``source`` is unknown.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}.")
    parser = ConfigParser()
    parser.read_config(config_file)
    parser.update(overrides)
    network = parser.get_parsed_content("network_def")
    try:
        weights = SOURCES[source](read_weights(old), network.get_submodule(part))
    except ValueError as error:
        raise ValueError(f"{old}: {error}") from error
    if len(list(network.children())) > 1:
        load_parts(network, parser.get_parsed_content("model_path"), leave_out=[part])
    network.get_submodule(part).load_state_dict(weights)
    save_atomically(network.state_dict(), new)


if __name__ == "__main__":
    try:
        fire.Fire(convert, name="python -m common.converters")
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
