"""Weights on disk: refusing what does not fit, and writing so that a killed run leaves no half of a file."""

import logging
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.networks.utils import copy_model_state
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from .files import replacing

logger = logging.getLogger(__name__)

FITTED = "threshold"
"""Buffers whose names begin so are NaN until they are fitted; no other weights are."""

SETTINGS = "threshold_settings"
"""Weights that those of old versions do not have: what a threshold was fitted with, see ``NetworkParts``."""


def refuse_other_weights(module: nn.Module, keys: _IncompatibleKeys) -> None:
    """Raise for missing or unknown keys and for NaN; a post hook of ``load_state_dict``, which nothing silences.

    Raises:
        RuntimeError: if the weights are of another network, or not finite.
    """
    if keys.missing_keys or keys.unexpected_keys:
        raise RuntimeError(
            f"these are not weights of this {type(module).__name__}: "
            f"{len(keys.missing_keys)} expected keys are missing {keys.missing_keys[:1]} "
            f"and {len(keys.unexpected_keys)} are unknown {keys.unexpected_keys[:1]}."
        )
    if broken := not_finite(module.state_dict()):
        raise RuntimeError(f"these weights cannot be used: {broken} holds NaN or infinite values.")


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinite values though it may not, see ``FITTED``."""
    names = (name for name in weights if not name.split(".")[-1].startswith(FITTED))
    return next((name for name in names if not weights[name].isfinite().all()), None)


def save_atomically(content: Any, path: str | os.PathLike) -> None:
    """Write a checkpoint; a killed run leaves the old file or the new one, never half of one."""
    # Into an open file, as torch writes the name of one that it opens into it.
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def save_on_rank_0(content: Any, path: str | os.PathLike) -> None:
    """Write a checkpoint in the first of several processes."""
    if idist.get_rank() == 0:
        save_atomically(content, path)


def read_data(path: str | os.PathLike, expected: str, otherwise: str = "") -> Any:
    """Return what a file holds that torch has saved, tensors and plain data; what else it may hold is not run.

    Args:
        path: of the file.
        expected: what it should be.
        otherwise: what to do if it is not.

    Raises:
        ValueError: if the file is damaged, or holds other objects.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # which torch does not do
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = f"{type(error).__name__}{otherwise}"
    else:
        if damaged is None:
            return content
        raise ValueError(f"{path}: the file is damaged, {damaged} in it has not its checksum{otherwise}.")
    # Apart from torch's error, whose text is paragraphs long and advises to run whatever code the file holds.
    raise ValueError(f"{path}: expected {expected}, got one that cannot be read: {reason}.")


def read_weights(path: str | os.PathLike, leave_out: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return a raw state dict.

    Files from before torch 1.6 are refused: they have no checksums, by which a damaged byte is seen.

    Args:
        path: of the file.
        leave_out: parts that are not looked at.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no state dict, damaged, or holds NaN.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}: train the bundle, or set model_path.")
    weights = read_data(path, "a file of weights (tensors only)")
    if isinstance(weights, Mapping) and isinstance(weights.get("state_dict"), Mapping):
        raise ValueError(
            f"{path}: expected a raw state dict of tensors, got a checkpoint of PyTorch Lightning; weights of the "
            "authors' own programs do not fit these networks: train the bundle, or set model_path."
        )
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path}: expected a raw state dict of tensors, got {type(weights).__name__} of other things.")
    if broken := not_finite({name: value for name, value in weights.items() if name.split(".")[0] not in leave_out}):
        raise ValueError(f"{path}: expected finite weights, got NaN or infinite values in {broken}; train them anew.")
    return dict(weights)


def parts_of(weights: Iterable[str]) -> set[str]:
    """Return the names of the parts that a container's weights are of."""
    return {name.split(".")[0] for name in weights if "." in name}


def load_parts(network: nn.Module, path: str | os.PathLike, leave_out: Sequence[str] = ()) -> None:
    """Load a container's weights from a published file.

    Args:
        network: the container.
        path: raw state dict of the whole container.
        leave_out: parts that are about to be trained afresh, and may have another size in the file.

    Raises:
        ValueError: if the file holds something else, or parts of other sizes or kinds of numbers.
    """
    theirs, state = read_weights(path, leave_out), network.state_dict()
    absent = parts_of(state) - parts_of(theirs) - set(leave_out)
    if absent:
        raise ValueError(
            f"{path}: expected weights of {', '.join(sorted(absent))} too, got none: train them, or set model_path."
        )
    if SETTINGS not in theirs:
        state.pop(SETTINGS, None)
    for name, value in state.items():
        if name.split(".")[0] in leave_out:
            continue
        if name not in theirs or theirs[name].shape != value.shape:
            came = tuple(theirs[name].shape) if name in theirs else "nothing"
            raise ValueError(
                f"{path}: expected {name} of shape {tuple(value.shape)}, got {came}; "
                "these are weights of another size or bundle: move the file away, or set model_path."
            )
        if _kind(theirs[name]) != _kind(value):
            raise ValueError(f"{path}: expected {name} to hold {_kind(value)} numbers, got {theirs[name].dtype}.")
        state[name] = theirs[name]
    unknown = [name for name in theirs if name not in state and name.split(".")[0] not in leave_out]
    if unknown:
        raise ValueError(
            f"{path}: expected weights of this bundle, got {len(unknown)} unknown ones ({unknown[0]}, ...)."
        )
    network.load_state_dict(state)


def load_fitting(network: nn.Module, path: str | os.PathLike, parts: Sequence[str]) -> None:
    """Load what a published file has of a container's weights, by name and shape, as the start of a training.

    So a network of other sequences begins with all but the layers that read and write them, which start afresh.

    Args:
        network: the container.
        path: see ``load_parts``.
        parts: that are to be trained.

    Raises:
        ValueError: if the file holds something else, or nothing that fits one of these parts.
    """
    theirs = read_weights(path)
    _, taken, others = copy_model_state(network, theirs)
    if missing := set(parts) - parts_of(taken):
        raise ValueError(f"{path}: expected weights that {', '.join(sorted(missing))} can start from, none fits.")
    held = parts_of(theirs)
    if afresh := [name for name in others if name.split(".")[0] in held]:  # of parts that are not trained here, too
        logger.warning(
            f"{len(afresh)} weights are not in {path}, or of another size, and start afresh: {afresh[0]}, ..."
        )


def frozen(network: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Return a container that answers as its published weights say and learns nothing, see ``load_parts``."""
    load_parts(network, path)
    return network.eval().requires_grad_(False)


def _kind(weight: Tensor) -> str:
    """Return what kind of numbers a tensor holds, in any precision."""
    if weight.dtype == torch.bool:
        return "boolean"
    return "complex" if weight.is_complex() else "floating" if weight.is_floating_point() else "whole"
