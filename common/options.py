"""What may be typed after ``python -m monai.bundle run``: the keys of a run's configs, their types and ranges."""

import difflib
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from pydoc import locate
from types import TracebackType
from typing import Any, NamedTuple

import torch
from fire.parser import DefaultParseValue
from monai.bundle import ComponentLocator, ConfigParser, run
from monai.utils import ensure_tuple

from .files import printable, root_cause


class Option(NamedTuple):
    """What a key at the top of a config takes.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``path``, ``device``, ``null``, ``any``, or a list of one of them,
            ``[int]``; several are divided by ``|``.
        meaning: in words.
        low: smallest number.
        high: largest number.
        unit: of a number.
        choices: all texts that it may be.
    """

    kind: str
    meaning: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: Sequence[str] = ()


OPTIONS = {
    # where things are
    "dataset_dir": Option("path", "data set, folder or file that is read"),
    "output_dir": Option("path", "folder that results are written to"),
    "ckpt_dir": Option("path", "folder of the checkpoints that a training is resumed from"),
    "model_path": Option("path", "weights that are read or published"),
    "split": Option("str", "list of dataset.json"),
    "title": Option("str", "of the report"),
    "notice": Option("str", "said first in the report"),
    "rotate": Option("int", "quarter turns of the pictures of 2-D files that do not tell their orientation", 0, 3),
    "all_slices": Option("bool", "also draw every slice with the organ, for the report to leaf through"),
    # how things are run
    "device": Option("device", "of the networks, as cpu, cuda or cuda:1"),
    "seed": Option("int", "of all that is drawn", 0, 2**32 - 1),
    "amp": Option("bool", "mixed precision"),
    "compile": Option("bool", "compile networks with torch.compile"),
    "debug": Option("bool", "show where in the program an error was raised"),
    "slice_batch_size": Option("int", "slices that a network sees at once", 1),
    "num_workers": Option("int", "processes that load batches", 0),
    "pred_content": Option("str", "what MONAI Label shows"),
    # images
    "sequences": Option("[str]|null", "MR sequences that make up an image, in this order"),
    "num_channels": Option("int", "of an image", 1),
    "organ_source": Option("str", "organ masks", choices=("auto", "file", "network", "totalsegmentator")),
    "organ": Option("str", "what is searched without an organ mask", choices=("foreground", "image", "network")),
    "label_values": Option("any", "values of a label that are understood, and what they are"),
    "voxel_mm": Option("[float]|null", "voxel sizes that the weights learned from", 0, unit="mm"),
    "normalize": Option("str|[float]", "how intensities are scaled"),
    "percentile": Option("float", "of the intensities that becomes 1", 0, 100),
    "hu_window": Option("[float]", "that becomes [-1, 1]", unit="HU"),
    "pixel_mm": Option("float|null", "of the network's pixels", 0.01, 100, "mm"),
    "patch_size": Option("[int]", "pixels of the network's input", 1),
    "canvas_size": Option("[int]", "pixels that training patches are cut from", 1),
    "crop_jitter": Option("int", "pixels by which training patches are moved", 0),
    "slice_range": Option("[int]|null", "first and last slice, counted from the feet", 0),
    "min_organ_pixels": Option("int", "smallest organ in a training slice", 0),
    "slices_per_volume": Option("int", "drawn of a volume in an epoch", 1),
    "volumes_per_batch": Option("int", "volumes of a batch", 1),
    "cache_rate": Option("float", "share of the data kept in memory", 0, 1),
    # trainings
    "max_epochs": Option("int", "of the main stage", 1),
    "classifier_max_epochs": Option("int", "of the classifier", 1),
    "organ_max_epochs": Option("int", "of the organ segmenter", 1),
    "val_interval": Option("int", "epochs between validations", 1),
    "task_interval": Option("int", "epochs between trials of the task itself", 1),
    "learning_rate": Option("float", "at the start", 0),
    "guide_learning_rate": Option("float", "of the networks that guide, at the start", 0),
    "final_learning_rate": Option("float", "at the end", 0),
    "ema_momentum": Option("float", "of the moving average of the weights", 0, 1),
    "resume": Option("bool", "go on with an interrupted training"),
    "finetune": Option("bool", "start from what fits of the weights at model_path"),
    "train_parts": Option("str", "which parts are trained", choices=("auto", "all")),
    # diffusion
    "num_train_timesteps": Option("int", "of the schedule", 1),
    "guide_timesteps": Option("int", "that the networks which guide learn at", 1),
    "num_inference_steps": Option("int", "of the schedule, respaced", 1),
    "task_inference_steps": Option("int", "the same, for trials of the task during training", 1),
    "noise_level": Option("int", "timestep up to which noise is added", 1),
    "guidance_scale": Option("float", "weight of the guidance"),
    "encode_class": Option("int|null", "condition of the encoding", 0),
    "decode_class": Option("int|null", "condition of the decoding", 0),
    "index_mode": Option("str", "whose timesteps", choices=("paper", "authors")),
    "clip_mode": Option("str", "clipping of x_0"),
    "heun": Option("bool", "second-order steps"),
    "exact_inversion": Option("bool", "without guidance the image comes back exactly, whatever the number of steps"),
    "keep_on": Option("str", "where its images of all levels are kept", choices=("device", "cpu", "bfloat16")),
    "num_samples": Option("int", "draws that are averaged", 1),
    # results
    "threshold": Option("float|null", "of the mask; null takes the one that is stored with the weights"),
    "default_threshold": Option("float", "of the mask where the weights have none and threshold is null"),
    "median_radius": Option("int|[int]", "of the filter of the map", 0, unit="pixels of the network"),
    "fit_threshold": Option("bool", "fit a threshold on validation cases and store it with these settings"),
    "num_bootstraps": Option("int", "draws of the patient bootstrap", 0),
    "num_repeats": Option("int", "runs with other seeds", 1),
    "lesion_slices_only": Option("bool", "score slices with lesions alone"),
    "noise_levels": Option("[int]", "that are compared", 1),
    "guidance_scales": Option("[float]", "that are compared"),
    # networks
    "channels": Option("[int]", "of each level of the main network", 1),
    "attention_levels": Option("[bool]", "levels of the main network with attention"),
    "num_res_blocks": Option("int|[int]", "of each level of the main network", 1),
    "num_head_channels": Option("int|[int]", "of an attention head", 1),
    "norm_num_groups": Option("int", "of group normalisation", 1),
    "encoder_channels": Option("[int]", "of each level of the encoders", 1),
    "encoder_attention_levels": Option("[bool]", "levels of the encoders with attention"),
    "encoder_res_blocks": Option("int|[int]", "of each level of the encoders", 1),
    "encoder_head_channels": Option("int|[int]", "of an attention head of the encoders", 1),
    "unet_channels": Option("[int]", "of each level of the U-Net", 1),
    "latent_size": Option("int", "numbers of a latent", 1),
    "noise_size": Option("[int]", "coarse grid of the noise that an autoencoder removes", 1),
    "noise_std": Option("float", "of that noise", 0),
    "kl_weight": Option("float", "of the latent's prior", 0),
}
"""Keys that several bundles have; those of one alone stand in its ``metadata.json``, under ``options``."""

TRACKING = ("tracking_uri", "experiment_name", "run_name", "is_not_rank0", "save_execute_config")
"""Keys that MONAI adds for MLflow."""


def check_command_line(bundle_root: str, debug: bool = False) -> None:
    """Refuse what was typed wrongly, and let the reason of an error be the last line on the screen.

    It is the first item of every run id, and does nothing but where the program is ``python -m monai.bundle``, also
    under ``torchrun``.

    Args:
        bundle_root: folder of the bundle, whose ``metadata.json`` has the options that are its own.
        debug: show where errors were raised.

    Raises:
        SystemExit: with the reason, for an unknown key or a value that its key does not take.
        ValueError: the same, with ``debug``.
    """
    if Path(sys.argv[0]).parts[-3:] != ("monai", "bundle", "__main__.py"):
        return
    sys.excepthook = partial(_show, debug)
    try:
        refuse_typed(sys.argv[1:], options_of(bundle_root))
    except ValueError as error:
        if debug:
            raise
        raise SystemExit(str(error)) from None


def options_of(bundle_root: str | Path) -> dict[str, Option]:
    """Return the options of a bundle: those of all, and its own."""
    metadata = json.loads((Path(bundle_root) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return OPTIONS | {key: Option(**option) for key, option in metadata.get("options", {}).items()}


def refuse_typed(arguments: Sequence[str], options: Mapping[str, Option]) -> None:
    """Check the arguments of ``python -m monai.bundle``.

    Args:
        arguments: as typed, after the name of the program.
        options: what keys take.

    Raises:
        ValueError: in one sentence, for an unknown key or a value that its key does not take.
    """
    typed = dict(_typed(arguments))
    own = set(inspect.signature(run).parameters) | set(TRACKING) | {"workflow_type"}
    if "args_file" in typed:
        typed = ConfigParser.load_config_file(typed["args_file"]) | typed
    files = ensure_tuple(typed.get("config_file", ()))
    config = ConfigParser(ConfigParser.load_config_files(list(files)))
    for key, value in typed.items():
        if key not in own:
            _refuse_key(key, config)
            if key in options:
                refuse_value(key, value, options[key])


def refuse_value(key: str, value: Any, option: Option) -> None:
    """Check a value; references and expressions may be anything.

    Raises:
        ValueError: in one sentence, if the key does not take it.
    """
    if is_computed(value):
        return
    kinds = option.kind.split("|")
    if not any(_is(value, kind) for kind in kinds):
        if isinstance(value, int | float) and {"str", "path"} & set(kinds):
            way = "write ./ before it" if "path" in kinds else "quote it twice, as '\"1\"'"
            raise ValueError(f"{key} must be a {kinds[0]}, and what was typed reads as the number {value}: {way}.")
        raise ValueError(f"{key} ({option.meaning}) must be {_in_words(kinds)}, got {printable(str(value))!r}.")
    numbers = [x for x in (value if isinstance(value, list) else [value]) if isinstance(x, int | float)]
    low, high = option.low, option.high
    if any((low is not None and x < low) or (high is not None and x > high) for x in numbers):
        bounds = f"at least {low:g}" if high is None else f"from {low or 0:g} to {high:g}"
        raise ValueError(f"{key} ({option.meaning}) must be {bounds}{option.unit and ' '}{option.unit}, got {value}.")
    if option.choices and value not in option.choices:
        raise ValueError(f"{key} ({option.meaning}) must be one of {', '.join(option.choices)}, got {value!r}.")
    if "device" in kinds:
        _refuse_device(key, value)
    if key == "dataset_dir" and not Path(value).exists():
        raise ValueError(f"{key} ({option.meaning}) must exist, got {value!r}: nothing is there.")
    if key == "output_dir" and (hindrance := _hindrance(Path(value))):
        raise ValueError(f"{key} ({option.meaning}) must be a folder that can be made, got {value!r}: {hindrance}.")


def is_computed(value: Any) -> bool:
    """Return whether a value of a config is an expression, a reference or a macro of MONAI's."""
    return isinstance(value, str) and value[:1] in ("$", "@", "%")


def _typed(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield each flag and its value, as ``fire`` reads them."""
    flag = re.compile(r"--|-[a-zA-Z]")
    for argument, after in zip(arguments, [*arguments[1:], "--"], strict=True):
        if not flag.match(argument):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        key = name.replace("-", "_").replace("#", "::")
        if equals or not flag.match(after):
            yield key, DefaultParseValue(value if equals else after)
        else:
            yield (key[2:], False) if key.startswith("no") else (key, True)


def _refuse_key(key: str, config: ConfigParser) -> None:
    """Refuse a key that no config has, and no component takes as an argument."""
    *above, last = key.removeprefix("+").split("::")
    parent: Any = config["::".join(above)] if not above or "::".join(above) in config else {}
    known = list(map(str, range(len(parent)))) if isinstance(parent, list) else list(parent)
    if isinstance(parent, dict) and "_target_" in parent:
        known += [*_arguments(parent), "_mode_", "_disabled_", "_desc_"]
    if last in known:
        return
    near = difflib.get_close_matches(last, known, 1)
    where = f" of {'::'.join(above)}" if above else ""
    advice = f"did you mean --{'::'.join([*above, *near])}?" if near else "its keys are listed in the configs."
    raise ValueError(f"--{key} is no option{where}; {advice}")


def _arguments(component: Mapping[str, Any]) -> list[str]:
    """Return the arguments of a component."""
    target = str(component["_target_"])
    modules = ensure_tuple(ComponentLocator().get_component_module_name(target) or ())
    found: Any = locate(f"{modules[0]}.{target}" if modules else target)
    return list(inspect.signature(found).parameters) if callable(found) else []


def _is(value: Any, kind: str) -> bool:
    if kind.startswith("["):
        return isinstance(value, list | tuple) and all(_is(each, kind[1:-1]) for each in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "any": True,
        "null": value is None,
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and number,
        "float": number and value == value,
        "str": isinstance(value, str),
        "path": isinstance(value, str),
        "device": isinstance(value, str),
    }[kind]


def _in_words(kinds: Sequence[str]) -> str:
    names = {"int": "a whole number", "float": "a number", "bool": "True or False", "null": "None", "path": "a path"}
    lists = {f"[{kind}]": f"a list of {kind}" for kind in ("int", "float", "bool", "str", "any")}
    return " or ".join((names | lists).get(kind, f"a {kind}") for kind in kinds)


def _refuse_device(key: str, value: str) -> None:
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except Exception as error:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise ValueError(f"{key} must be one that is there, {there}, got {value!r}.") from error


def _hindrance(folder: Path) -> str:
    """Return why nothing can be written to a folder, which need not be there yet, or nothing."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not nearest.is_dir():
        return f"{nearest} is a file"
    return "" if os.access(nearest, os.W_OK) else f"{nearest} cannot be written to"


def _show(debug: bool, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the reason of an error last; where it is none of a user's, or with ``debug``, the traceback before it."""
    cause = root_cause(error)
    if debug or not isinstance(cause, ValueError | OSError):
        traceback.print_exception(kind, error, trace)
    print(" ".join(str(cause).split()) or type(cause).__name__, file=sys.stderr)
