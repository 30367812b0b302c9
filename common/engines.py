"""Stages of a training, and evaluations that outlive a bad case."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Events
from ignite.handlers import Checkpoint, EMAHandler, TerminateOnNan
from monai.data import decollate_batch
from monai.data.utils import set_rnd
from monai.engines import Evaluator, SupervisedEvaluator, Trainer
from monai.handlers import CheckpointLoader, from_engine
from monai.utils import set_determinism
from torch import nn

from .checkpoints import load_parts, read_weights, save_atomically
from .handlers.output import write_csv

logger = logging.getLogger(__name__)


def run_stage(
    trainer: Trainer,
    evaluator: Evaluator,
    network: nn.Module,
    part: str,
    state: dict[str, Any],
    ckpt_dir: str,
    model_path: str,
    val_interval: int = 1,
    ema: EMAHandler | None = None,
    resume: bool = False,
    finetune: bool = False,
    keep: bool = False,
    calibrate: Callable[[], None] | None = None,
) -> None:
    """Train one part of ``network`` and publish its best weights; the others stay as they are in the published file.

    What cannot be written in JSON is done here: a handler may not refer to the trainer that owns it (MONAI reports a
    circular reference), and the stages hand over their best weights, not their last.

    Args:
        trainer: engine of the stage; its handlers run the evaluator.
        evaluator: engine whose key metric chooses the best epoch, by its ``metric_cmp_fn``.
        network: container that holds all parts, not wrapped.
        part: name of the submodule that is trained, and of its files ``<part>_last.pt`` and ``<part>_best.pt``.
        state: what a resumed run needs besides the trainer: network, optimizer, learning rate schedule.
        ckpt_dir: folder of the stages' checkpoints, to resume from.
        model_path: file that is published, a raw state dict of the whole container.
        val_interval: epochs between validations, checked here as a run without any has no best weights.
        ema: moving average of the part's weights; if given, these are validated and kept.
        resume: go on from ``<part>_last.pt`` if there is one; a finished stage is then loaded and not trained again.
        finetune: start from the part's weights at ``model_path`` instead of afresh.
        keep: do not train a part that ``model_path`` already holds.
        calibrate: called at the end, with the best weights in ``network``, before they are published.

    Raises:
        ValueError: if the run would never validate, or the weights at ``model_path`` do not fit the other parts.
    """
    if val_interval > trainer.state.max_epochs:
        raise ValueError(
            f"val_interval ({val_interval}) must be <= max_epochs ({trainer.state.max_epochs}) of {part}: "
            "no validation, no best weights."
        )
    engine: Any
    for engine, kind in ((trainer, "training"), (evaluator, "validation")):
        if len(engine.data_loader) == 0:
            raise ValueError(f"{part}: expected {kind} cases that this stage can use, got none.")
    if Path(model_path).is_file():
        if keep and any(name.startswith(f"{part}.") for name in read_weights(model_path)):
            load_parts(network, model_path)
            logger.info(f"{part}: kept as it is in {model_path}; --train_parts all trains it again.")
            return
        load_parts(network, model_path, leave_out=None if finetune else part)
    elif finetune:
        raise ValueError(f"finetune needs the weights to start from, expected them at {model_path}, got none.")

    last, best = (Path(ckpt_dir) / f"{part}_{name}.pt" for name in ("last", "best"))
    sign = 1.0 if evaluator.metric_cmp_fn(1.0, 0.0) else -1.0
    keep_best = Checkpoint(
        {"model": ema.ema_model if ema else network.get_submodule(part)},
        lambda content, _: _save_on_rank_0(content, best),
        score_function=lambda engine: sign * engine.state.metrics[evaluator.state.key_metric_name],
    )
    evaluator.add_event_handler(Events.COMPLETED, keep_best)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(from_engine("loss", first=True)))
    state = {**state, "trainer": trainer, "keep_best": keep_best}
    if ema:
        ema.attach(trainer)
        state["ema"] = ema.ema_model
    if resume and last.is_file():
        CheckpointLoader(str(last), state, map_location=trainer.state.device).attach(trainer)
    elif ema:  # a handler may have loaded pretrained weights (MONAI Label adds one) after the average was made
        ema_model, model = ema.ema_model, ema.model
        trainer.add_event_handler(Events.STARTED, lambda: ema_model.load_state_dict(model.state_dict()))
    keep_last = Checkpoint(state, lambda content, _: _save_on_rank_0(content, last))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, keep_last)

    trainer.run()

    idist.barrier()
    weights = read_weights(best)
    network.get_submodule(part).load_state_dict(weights)
    if ema:
        ema.ema_model.load_state_dict(weights)
    if calibrate is not None:
        calibrate()
    _save_on_rank_0(network.state_dict(), model_path)
    idist.barrier()


def run_repeats(evaluator: Evaluator, inferer: Any, scores: Any, num_repeats: int, output_dir: str) -> None:
    """Run an evaluation with one seed after the other.

    With several, ``repeats.csv`` has mean and standard deviation over the repeats for each row of the summary; all else
    in the folder is of the last.

    Args:
        evaluator: of labelled cases.
        inferer: its inferer, with ``seed``: that of the first repeat.
        scores: handler of the evaluator, with ``rows``: ``Detection`` or ``SegmentationScores``.
        num_repeats: 1 is a plain run.
        output_dir: where the table goes.
    """
    first, found = inferer.seed, []
    for repeat in range(num_repeats):
        inferer.seed = first + repeat
        evaluator.run()
        found.append({row["metric"]: row["value"] for row in scores.rows})
    if num_repeats == 1 or not found[0] or idist.get_rank() > 0:
        return
    rows = []
    for metric in found[0]:
        values = np.array([repeat[metric] for repeat in found])
        rows.append({"metric": metric, "mean": values.mean(), "std": values.std(ddof=1), "repeats": num_repeats})
        logger.info(f"{metric}: {values.mean():.4g} +- {values.std(ddof=1):.2g}")
    write_csv(Path(output_dir) / "repeats.csv", rows)


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


def publish_threshold(wanted: bool, detection: Any, network: nn.Module, model_path: str) -> None:
    """Store the threshold that an evaluation fitted in the published weights.

    Args:
        wanted: false leaves the weights alone.
        detection: handler ``Detection`` of the evaluation.
        network: container with the weights that were evaluated.
        model_path: file that is rewritten.

    Raises:
        ValueError: if no case had lesions.
    """
    if not wanted:
        return
    _set_threshold(network, detection.fitted_threshold)
    _save_on_rank_0(network.state_dict(), model_path)


def _set_threshold(network: nn.Module, threshold: float) -> None:
    if threshold != threshold:
        raise ValueError("no validation case has lesions: the threshold of the masks was not fitted.")
    network.get_buffer("threshold").fill_(threshold)
    logger.info(f"threshold of the masks: {threshold:.4g}, fitted on validation cases.")


def _save_on_rank_0(content: Any, path: str | Path) -> None:
    if idist.get_rank() == 0:
        save_atomically(content, path)


class SeedEachEpoch:
    """Seed every generator from (seed, epoch, rank), so that a resumed run draws what an unbroken one draws.

    Args:
        seed: of the training.
        dataset: whose random transforms are seeded.
    """

    def __init__(self, seed: int, dataset: Any) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Trainer) -> None:
        """Add the handler to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Trainer) -> None:
        """Seed torch, numpy, python and the random transforms of the data set."""
        seed = self.seed + 1000 * engine.state.epoch + idist.get_rank()
        set_determinism(seed)
        set_rnd(self.dataset, seed=seed)


class CaseEvaluator(SupervisedEvaluator):
    """An evaluator for which one case that cannot be done is recorded, and the others are done.

    Args:
        failures: where a failed case and its reason go, by ``add(case, reason)``.
        args: see ``SupervisedEvaluator``.
        kwargs: see ``SupervisedEvaluator``.
    """

    def __init__(self, *args: Any, failures: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failures = failures

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        try:
            return super()._iteration(engine, batchdata)
        except (ValueError, RuntimeError, MemoryError) as error:
            logger.debug("", exc_info=True)
            for item in decollate_batch(batchdata):
                self.failures.add(str(item.get("case", "a case")), str(error))
            engine.state.output = []
            return engine.state.output
