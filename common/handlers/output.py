"""What handlers share: images of an output as they are seen, results of all processes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.engines.utils import IterationEvents
from monai.utils import convert_to_numpy
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray
from torch import Tensor


def as_seen(output: Mapping[str, Any], keys: Sequence[str], channel: int = 0) -> dict[str, NDArray[Any]]:
    """Return those images of an item that it has, as arrays (X, Y[, Z]) to the patient's right, front and head.

    They are views of the item's images, as copies of large ones take memory.

    Args:
        output: of an evaluator; MetaTensors of shape (C, X, Y[, Z]).
        keys: of the images.
        channel: which one is taken.
    """
    present = {key: output[key] for key in keys if output.get(key) is not None}
    return {key: apply_orientation(convert_to_numpy(x[channel]), _orientation(x)) for key, x in present.items()}


def spacing_mm(image: MetaTensor) -> list[float]:
    """Return the size of a MetaTensor's voxels along right, front and head, mm."""
    order = _orientation(image)[:, 0].argsort()
    return [float(image.pixdim[axis]) for axis in order]


def _orientation(image: Tensor) -> NDArray[Any]:
    """Return how the axes of an image of shape (C, X, Y[, Z]) lie, as nibabel has it."""
    affine = convert_to_numpy(image.affine) if isinstance(image, MetaTensor) else np.eye(4)
    return io_orientation(to_affine_nd(image.ndim - 1, affine))


def is_placed(image: MetaTensor) -> bool:
    """Return whether a file tells how an image lies and how large its pixels are; a slice with no affine does not.

    What is read from a film has ``FILM_AFFINE``, which mirrors and does no more.
    """
    return image.ndim > 3 or not np.allclose(np.abs(convert_to_numpy(image.affine)), np.eye(len(image.affine)))


class CaseCollector(ABC):
    """Keep something of each case of an evaluator, and write it when the run ends: sorted by case, of all processes."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    @abstractmethod
    def add(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is kept of a case, with its name as ``case``; its files may be written.

        Args:
            item: of the batch.
            output: of the evaluator.
        """

    @abstractmethod
    def write(self, items: list[dict[str, Any]]) -> None:
        """Write what was kept of all cases; the first process does so."""

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda: self.items.clear())
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._add)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _add(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.items.append(self.add(item, output))

    def _write(self) -> None:
        items = sorted(from_all_ranks(self.items), key=lambda item: item["case"])
        if idist.get_rank() == 0:
            self.write(items)


def from_all_ranks(values: list) -> list:
    """Return the values of all processes, one after another."""
    if idist.get_world_size() == 1:
        return values
    gathered: list[list] = [[] for _ in range(idist.get_world_size())]
    torch.distributed.all_gather_object(gathered, values)
    return [value for part in gathered for value in part]
