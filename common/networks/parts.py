"""Several networks in one checkpoint."""

from copy import copy

import torch
from torch import Tensor, nn

from ..checkpoints import refuse_other_weights


class NetworkParts(nn.Module):
    """The networks of a method, each a submodule under its own name, and the threshold that its masks are made with.

    MONAI Label, ``ckpt_export`` and ``verify_net_in_out`` know one network and one ``model.pt`` a bundle; this is that
    network. Weights of another bundle are refused even where a caller loads with ``strict=False``.

    Attributes:
        threshold: of the anomaly map, in its unit, fitted on validation cases; NaN until then. Part of the weights.

    Args:
        main: name of the part that ``forward`` runs.
        parts: the networks; None where a setting does without one that others have.

    Raises:
        ValueError: if ``main`` is not the name of a network.
    """

    threshold: Tensor

    def __init__(self, main: str, **parts: nn.Module | None) -> None:
        super().__init__()
        if parts.get(main) is None:
            there = sorted(name for name, part in parts.items() if part is not None)
            raise ValueError(f"main must be one of {there}, got {main!r}.")
        self.main = main
        for name, part in parts.items():
            self.add_module(name, part)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_load_state_dict_post_hook(refuse_other_weights)

    def forward(self, image: Tensor) -> Tensor:
        """Return what the main part says of images at timestep 0, of class 0: for checks and exports, not for use."""
        zeros, main = torch.zeros(len(image), dtype=torch.long, device=image.device), self.get_submodule(self.main)
        classes = {"class_labels": zeros} if getattr(main, "num_class_embeds", None) else {}
        return main(image, zeros, **classes)


def with_part(network: NetworkParts, name: str, part: nn.Module) -> NetworkParts:
    """Return the container with another network in one place, sharing all others; the given one is left as it is."""
    other = copy(network)
    other._modules = {**network._modules, name: part}
    return other
