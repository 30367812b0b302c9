"""What a training is, so that it does not go on from the checkpoints of another one."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from types import FunctionType
from typing import Any

import ignite.distributed as idist
from torch import Tensor, nn

PLAIN = (bool, int, float, str, type(None))


class Identity:
    """Settings that a stage keeps from its first epoch to its last; stored in a checkpoint, they refuse another stage.

    Args:
        settings: by name.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = {name: str(value) for name, value in settings.items()}

    def state_dict(self) -> dict[str, str]:
        """Return the settings."""
        return self.settings

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Compare the settings with those of a checkpoint.

        Raises:
            ValueError: naming the first one that differs.
        """
        for name in {**state, **self.settings}:
            was, now = (settings.get(name, "nothing") for settings in (state, self.settings))
            if was != now:
                raise ValueError(
                    f"cannot resume: {name} was {was} and is {now} now; set it back, or begin anew without resume."
                )


def identity_of(trainer: Any, evaluator: Any, network: nn.Module, training: Any, ema: Any = None) -> Identity:
    """Return what a stage is: its network, loss, noise schedule, cases, what is made of them, seed, batch and rates.

    The number of epochs, the device, the processes that load batches, where files lie and what is kept in memory are
    not part of it: a training that is resumed may have others.

    Args:
        trainer: engine of the stage.
        evaluator: engine that chooses its best epoch.
        network: what is trained, not wrapped.
        training: what all stages share.
        ema: moving average of the weights.
    """
    settings = {
        "seed": training.seed,
        "volumes_per_batch": training.volumes_per_batch * idist.get_world_size(),
        "learning_rate": trainer.optimizer.defaults["lr"],
        "final_learning_rate": training.final_learning_rate,
        "ema_momentum": ema.momentum if ema else None,
        "amp": trainer.amp,
    }
    for engine, split in ((trainer, "training"), (evaluator, "validation")):
        dataset = engine.data_loader.dataset
        settings[f"number of {split} cases"] = len(dataset)
        for index, item in enumerate(dataset.data):
            settings[f"{split} case {index + 1}"] = item.get("case", "without a name")
        used = {"transform": dataset.transform, "prepare_batch": engine.prepare_batch, "inferer": engine.inferer}
        settings |= settings_of(used, split)
    settings |= settings_of(network, "network")
    settings |= settings_of(trainer.loss_function, "loss")
    return Identity(settings)


def settings_of(thing: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the settings that something was made with, under names that say where they lie in it.

    These are numbers, words and tables, and the settings of what it was made of. What it takes note of while it works
    is none: of an object only those attributes count that are named as its arguments. So devices and paths are left out
    that are not words, and networks that it asks.

    Args:
        thing: a network, loss, inferer, transform, or a sequence or mapping of them.
        name: of it.
    """
    if isinstance(thing, PLAIN):
        yield name, thing
    elif isinstance(thing, Tensor):
        yield name, f"a table of {tuple(thing.shape)} with mean {thing.double().mean():.6g}"
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from settings_of(value, f"{name}.{key}")
    elif isinstance(thing, Sequence) and all(isinstance(value, PLAIN) for value in thing):
        yield name, list(thing)
    elif isinstance(thing, Sequence):
        yield from settings_of(dict(enumerate(thing)), name)
    else:
        yield name, getattr(thing, "__qualname__", type(thing).__qualname__)
        yield from settings_of(_made_of(thing), name)


def _made_of(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object that are named as arguments, its tables, and the parts of a network."""
    constructors = [vars(kind).get("__init__") for kind in type(thing).__mro__]
    arguments = {name for init in constructors if isinstance(init, FunctionType) for name in signature(init).parameters}
    found = {
        key: value
        for key, value in getattr(thing, "__dict__", {}).items()
        if (key in arguments or isinstance(value, Tensor)) and not isinstance(value, nn.Module) and key != "device"
    }
    if isinstance(thing, nn.Module):
        own = [*thing.named_parameters(recurse=False), *thing.named_buffers(recurse=False)]
        found |= {key: f"of shape {tuple(tensor.shape)}" for key, tensor in own}
        found |= dict(thing.named_children())
    return found
