"""Weights for an evaluator."""

from ignite.engine import Engine, Events
from torch import nn

from ..checkpoints import load_parts


class LoadWeights:
    """Load a bundle's published weights when the engine starts, or say in one sentence why they do not fit.

    Args:
        network: the container.
        path: raw state dict of it.
    """

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        """Add the handler to an engine."""
        engine.add_event_handler(Events.STARTED, lambda: load_parts(self.network, self.path))
