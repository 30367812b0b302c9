"""Thresholds of masks, fitted to validation cases and kept with the weights."""

import logging
from typing import Any

from monai.engines import Evaluator
from torch import nn

from ..checkpoints import save_on_rank_0

logger = logging.getLogger(__name__)


def fit_threshold(evaluator: Evaluator, detection: Any, network: nn.Module) -> None:
    """Set the threshold of a container to the one that ``Detection`` fits to an evaluator's cases.

    Args:
        evaluator: of labelled validation cases.
        detection: its handler ``Detection``.
        network: container with the buffer ``threshold``, NaN before.
    """
    evaluator.run()
    try:
        _set_threshold(network, detection.fitted_threshold)
    except ValueError as error:
        logger.warning(error)


def publish_threshold(fit: bool, detection: Any, network: nn.Module, model_path: str) -> None:
    """Store the threshold that an evaluation fitted in the published weights.

    Args:
        fit: false leaves the weights alone.
        detection: handler ``Detection`` of the evaluation.
        network: container with the weights that were evaluated.
        model_path: file that is rewritten.

    Raises:
        ValueError: if no case had lesions.
    """
    if not fit:
        return
    _set_threshold(network, detection.fitted_threshold)
    save_on_rank_0(network.state_dict(), model_path)


def _set_threshold(network: nn.Module, threshold: float) -> None:
    if threshold != threshold:
        raise ValueError("no validation case has lesions: the threshold of the masks was not fitted.")
    network.get_buffer("threshold").fill_(threshold)
    logger.info(f"threshold of the masks: {threshold:.4g}, fitted on validation cases.")
