"""Several networks in one checkpoint."""

import json
from collections.abc import Mapping
from copy import copy
from inspect import signature
from math import isnan
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import SETTINGS, refuse_other_weights

SETTINGS_LENGTH = 512
"""Bytes that are kept for the settings of thresholds."""

OTHERS = "others"
"""Where the settings of the first threshold have those of the others, each with what is not as with the first."""


class NetworkParts(nn.Module):
    """The networks of a method, each a submodule under its own name, and the threshold that its masks are made with.

    MONAI Label, ``ckpt_export`` and ``verify_net_in_out`` know one network and one ``model.pt`` a bundle; this is that
    network. Weights of another bundle are refused even where a caller loads with ``strict=False``.

    Attributes:
        threshold: of the anomaly map, in its unit, fitted on validation cases; NaN until then. Part of the weights.
        threshold_settings: what it was fitted with, and the thresholds for other settings, as the bytes of a padded
            text, since weights are tensors whose sizes loaders compare. Part of the weights, but for old versions.

    Args:
        main: name of the part that ``forward`` runs.
        parts: the networks; None where a setting does without one that others have.

    Raises:
        ValueError: if ``main`` is not the name of a network.

    Example:
        >>> network = NetworkParts("autoencoder", autoencoder=nn.Identity(), classifier=nn.Linear(4, 2))
        >>> sorted(network.state_dict())
        ['classifier.bias', 'classifier.weight', 'threshold', 'threshold_settings']
    """

    threshold: Tensor
    threshold_settings: Tensor

    def __init__(self, main: str, **parts: nn.Module | None) -> None:
        super().__init__()
        if parts.get(main) is None:
            there = sorted(name for name, part in parts.items() if part is not None)
            raise ValueError(f"main must be one of {there}, got {main!r}.")
        self.main = main
        self.of_noisy_images = "timesteps" in signature(parts[main].forward).parameters  # type: ignore[union-attr]
        for name, part in parts.items():
            self.add_module(name, part)
        for weight in self.parameters():
            if weight.ndim == 4:  # of convolutions of slices, which are a quarter faster so
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_buffer(SETTINGS, _as_bytes({}))
        self.register_load_state_dict_post_hook(refuse_other_weights)

    @property
    def thresholds(self) -> list[tuple[float, dict[str, Any]]]:
        """All thresholds, the first one first, each with the numbers that it was fitted with, by the names of keys."""
        told = json.loads(bytes(self.threshold_settings.tolist()))
        others = told.pop(OTHERS, [])
        return [(float(self.threshold), told), *((threshold, told | differing) for threshold, differing in others)]

    def threshold_for(self, settings: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        """Return the threshold that was fitted with some settings, or else the first one, and what it was fitted with.

        Args:
            settings: numbers, by the names of keys. NaN, and no settings, where nothing was fitted.
        """
        known = self.thresholds
        return next((each for each in known if _alike(each[1], settings)), known[0])

    def set_threshold(self, threshold: float, settings: Mapping[str, Any], beside: bool = False) -> None:
        """Set the threshold, and what it was fitted with.

        Args:
            threshold: of the anomaly map, in its unit.
            settings: numbers, by the names of keys.
            beside: keep those that were fitted with other settings, the first one as the first.

        Raises:
            ValueError: if there are more than can be kept.
        """
        own = (threshold, dict(settings))
        kept = [each for each in self.thresholds if beside and not isnan(each[0])]
        same = [_alike(theirs, settings) for _, theirs in kept]
        kept = [own if is_same else each for each, is_same in zip(kept, same, strict=True)]
        (first, told), *others = kept if any(same) else [*kept, own]
        lacking = dict.fromkeys(told, False)  # what another one does not have is not to be taken from the first
        differences = [(number, differing(lacking | theirs, told)) for number, theirs in others]
        self.threshold_settings.copy_(_as_bytes({**told, OTHERS: differences} if others else told))
        self.threshold.fill_(first)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        state_dict.setdefault(prefix + SETTINGS, _as_bytes({}))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, image: Tensor) -> Tensor:
        """Return what the main part says of images: for checks and exports, not for use.

        A network of noisy images is told timestep 0, one of several classes class 0; of a network with several outputs,
        as autoencoders have, it is the first.
        """
        main, conditions = self.get_submodule(self.main), {}
        zeros = torch.zeros(len(image), dtype=torch.long, device=image.device)
        if self.of_noisy_images:
            conditions["timesteps"] = zeros
        if getattr(main, "num_class_embeds", None):
            conditions["class_labels"] = zeros
        output = main(image, **conditions)
        return output[0] if isinstance(output, tuple) else output

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what TorchScript is made of without tracing: the main part alone."""
        return self.get_submodule(self.main)


def with_part(network: NetworkParts, name: str, part: nn.Module) -> NetworkParts:
    """Return the container with another network in one place, sharing all others; the given one is left as it is."""
    other = copy(network)
    other._modules = {**network._modules, name: part}
    return other


def differing(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that others have otherwise; what they do not have is False."""
    return {name: own for name, own in settings.items() if not np.array_equal(own, others.get(name, False))}


def _alike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether a threshold fits; one that nothing is told of does."""
    return not theirs or not (differing(theirs, ours) or differing(ours, theirs))


def _as_bytes(settings: Mapping[str, Any]) -> Tensor:
    text = json.dumps(settings).ljust(SETTINGS_LENGTH).encode()
    if len(text) > SETTINGS_LENGTH:
        raise ValueError(f"the settings of {1 + len(settings[OTHERS])} thresholds are more than weights can keep.")
    return torch.tensor(list(text), dtype=torch.uint8)
