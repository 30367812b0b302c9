"""Several networks in one checkpoint."""

import json
from collections.abc import Mapping
from copy import copy
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import SETTINGS, refuse_other_weights

SETTINGS_LENGTH = 512
"""Bytes that are kept for the settings of a threshold."""


class NetworkParts(nn.Module):
    """The networks of a method, each a submodule under its own name, and the threshold that its masks are made with.

    MONAI Label, ``ckpt_export`` and ``verify_net_in_out`` know one network and one ``model.pt`` a bundle; this is that
    network. Weights of another bundle are refused even where a caller loads with ``strict=False``.

    Attributes:
        threshold: of the anomaly map, in its unit, fitted on validation cases; NaN until then. Part of the weights.
        threshold_settings: what ``fitted_with`` returns, as the bytes of a padded text, since weights are tensors whose
            sizes loaders compare. Part of the weights, but for those of old versions.

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
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_buffer(SETTINGS, _as_bytes({}))
        self.register_load_state_dict_post_hook(refuse_other_weights)

    @property
    def fitted_with(self) -> dict[str, Any]:
        """Numbers that the threshold was fitted with, by the names of keys; none where the weights do not tell."""
        return json.loads(bytes(self.threshold_settings.tolist()))

    def set_threshold(self, threshold: float, settings: Mapping[str, Any]) -> None:
        """Set the threshold, and what it was fitted with."""
        self.threshold.fill_(threshold)
        self.threshold_settings.copy_(_as_bytes(settings))

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


def _as_bytes(settings: Mapping[str, Any]) -> Tensor:
    return torch.tensor(list(json.dumps(settings).ljust(SETTINGS_LENGTH).encode()), dtype=torch.uint8)
