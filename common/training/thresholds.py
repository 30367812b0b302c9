"""Thresholds of masks, fitted to validation cases and kept with the weights."""

import logging
from typing import Any

from monai.engines import SupervisedEvaluator
from torch import nn

from ..checkpoints import save_on_rank_0

logger = logging.getLogger(__name__)


def fit_threshold(evaluator: SupervisedEvaluator, detection: Any, network: nn.Module) -> None:
    """Set the threshold of a container to the one that ``Detection`` fits to an evaluator's cases.

    Args:
        evaluator: of labelled validation cases; its inferer tells the ``settings`` that are kept with the threshold.
        detection: its handler ``Detection``.
        network: the container.
    """
    logger.info("fitting the threshold of the masks on validation cases")
    evaluator.run()
    try:
        _set_threshold(network, detection.fitted_threshold, evaluator.inferer)
    except ValueError as error:
        logger.warning(error)


def publish_threshold(fit: bool, detection: Any, network: nn.Module, model_path: str, inferer: Any) -> None:
    """Store the threshold that an evaluation fitted in the published weights, beside those for other settings.

    Args:
        fit: false leaves the weights alone.
        detection: handler ``Detection`` of the evaluation.
        network: container with the weights that were evaluated.
        model_path: file that is rewritten.
        inferer: of the evaluation, see ``fit_threshold``.

    Raises:
        ValueError: if no case had lesions.
    """
    if not fit:
        return
    _set_threshold(network, detection.fitted_threshold, inferer, beside=True)
    save_on_rank_0(network.state_dict(), model_path)
    logger.info(f"it is stored in {model_path}.")


def _set_threshold(network: Any, threshold: float, inferer: Any, beside: bool = False) -> None:
    if threshold != threshold:
        raise ValueError("no validation case has lesions: the threshold of the masks was not fitted.")
    network.set_threshold(threshold, inferer.settings, beside)
    logger.info(f"threshold of the masks: {threshold:.4g}, fitted on validation cases.")
