"""How often networks are called, and how long they take."""

import time
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def synchronise(device: str | torch.device | None = None) -> None:
    """Wait for a GPU; without one nothing is waited for.

    Args:
        device: that has work to do; by default the current GPU, if there is one.
    """
    if torch.cuda.is_available() and torch.device(device or "cuda").type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Adds up the time that a module takes, for its answers and for their gradients, within a ``with`` block.

    What copies of the module do that are made within the block counts, too.

    Args:
        module: any.

    Attributes:
        seconds: of all calls.
        gradient_seconds: of the ways back through them.
        calls: of the module.
        images: of all calls.
        gradients: images of the ways back.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.started, self.hooks = module, 0.0, list[RemovableHandle]()
        self.device = next((weight.device for weight in module.parameters()), None)
        self.seconds = self.gradient_seconds = 0.0
        self.calls = self.images = self.gradients = 0

    def __enter__(self) -> Self:
        """Start to listen."""
        self.hooks = [
            self.module.register_forward_pre_hook(self._start),
            self.module.register_forward_hook(self._answered),
            self.module.register_full_backward_pre_hook(self._start),
            self.module.register_full_backward_hook(self._differentiated),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the module as it was."""
        for hook in self.hooks:
            hook.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Stay one: the hooks of a copied module call the same watch."""
        return self

    def _start(self, module: nn.Module, given: Any) -> None:
        synchronise(self.device)
        self.started = time.perf_counter()

    def _answered(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        self.seconds += self._elapsed()
        self.calls, self.images = self.calls + 1, self.images + len(inputs[0])

    def _differentiated(self, module: nn.Module, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        self.gradient_seconds += self._elapsed()
        self.gradients += len(outputs[0])

    def _elapsed(self) -> float:
        synchronise(self.device)
        return time.perf_counter() - self.started
