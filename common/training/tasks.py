"""The task that a stage serves, on whole validation cases."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import DataLoader, Dataset, DistributedSampler
from monai.inferers import Inferer
from monai.transforms import Transform
from torch import nn

from ..evaluation import TerseEvaluator
from ..handlers.report import Previews
from ..report.figures import CT, Display
from ..transforms.channels import SplitChannelsd
from .stages import Reports, Training
from .thresholds import fit_threshold


class Task:
    """Do the task itself on validation cases with labels: while a stage trains, and at its end.

    Attributes:
        evaluator: what a ``ValidationHandler`` runs every few epochs, with few steps of the sampler.

    Args:
        training: what all stages share.
        network: the container.
        averaged: the container with the weights that are validated while the stage trains.
        cases: items of the validation split.
        preprocessing: of an item.
        inferer: with few steps.
        scores: makes the handler that compares results with labels.
        full_inferer: as in inference; the threshold of the masks is fitted to what it finds.
        display: how cases are shown in TensorBoard.
    """

    def __init__(
        self,
        training: Training,
        network: nn.Module,
        averaged: nn.Module,
        cases: Sequence[Mapping[str, Any]],
        preprocessing: Transform,
        inferer: Inferer,
        scores: Callable[[], Any],
        full_inferer: Inferer | None = None,
        display: Display = CT,
    ) -> None:
        self.training, self.network, self.scores, self.full_inferer = training, network, scores, full_inferer
        dataset, shares = Dataset(cases, preprocessing), idist.get_world_size() > 1
        sampler = DistributedSampler(dataset, even_divisible=False, shuffle=False) if shares else None
        self.loader = DataLoader(dataset, num_workers=0, batch_size=1, sampler=sampler)
        first = idist.get_rank() == 0
        previews = [Previews(training.log_dir("task"), display)] if first else []
        self.evaluator = self._evaluator(averaged, inferer, [scores(), Reports(training.log_dir("task")), *previews])

    def fit_threshold(self) -> None:
        """Set the container's threshold to the one that fits what the full inferer finds in the validation cases."""
        detection = self.scores()
        inferer: Any = copy(self.full_inferer)
        if getattr(inferer, "threshold", 0.0) is None:
            inferer.threshold = inferer.default_threshold  # nobody is to be told that there is none yet
        fit_threshold(self._evaluator(self.network, inferer, [detection]), detection, self.network)

    def _evaluator(self, network: nn.Module, inferer: Any, handlers: Sequence[Any]) -> TerseEvaluator:
        return TerseEvaluator(
            torch.device(self.training.device),
            self.loader,
            network,
            inferer=inferer,
            postprocessing=SplitChannelsd("pred", inferer.channels),
            val_handlers=handlers,
        )
