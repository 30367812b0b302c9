"""Evaluations that outlive a bad case, and that are repeated."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from .files import printable, write_csv
from .progress import doing, time_left

logger = logging.getLogger(__name__)


class TerseEvaluator(SupervisedEvaluator):
    """An evaluator that says what is doubtful about the threshold of masks once, however many cases it is true of."""

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run the evaluation."""
        with _said_once(logging.getLogger(f"{__package__}.inferers.slices")):
            super().run(global_epoch)


class CaseEvaluator(TerseEvaluator):
    """An evaluator for which one case that cannot be done is recorded, and the others are done.

    Args:
        failures: where a failed case and its reason go, see ``Failures``; batches have one case each.
        args: see ``SupervisedEvaluator``.
        kwargs: see ``SupervisedEvaluator``.
    """

    def __init__(self, *args: Any, failures: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failures, self.begun = failures, 0.0

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run the evaluation; without a case, as where all are bad, its handlers still gather and write."""
        if len(self.data_loader) > 0:  # type: ignore[arg-type]
            super().run(global_epoch)
            return
        for event in (Events.STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
            self.fire_event(event)

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        number, total = engine.state.iteration, len(self.data_loader)  # type: ignore[arg-type]
        if number == 1:
            self.begun = time.perf_counter()
        left = time_left(number - 1, total, time.perf_counter() - self.begun)
        with doing(f"{printable(str(batchdata.get('case', ['a case'])[0]), 40)}, {number} of {total}{left}"):
            return self._case(engine, batchdata)

    def _case(self, engine: Any, batchdata: Any) -> Any:
        if "failure" in batchdata:  # of loading, see ``CaseDataset``, which has logged it
            self.failures.reasons.update(zip(batchdata["case"], batchdata["failure"], strict=True))
        else:
            case = str(batchdata.get("case", ["a case"])[0])
            with self.failures.recording(case, "inferring it, or scoring or drawing what came of it"):
                return super()._iteration(engine, batchdata)
        engine.state.output = []
        return engine.state.output


@contextmanager
def _said_once(log: logging.Logger) -> Iterator[None]:
    """Let a logger say each sentence once, however many cases it is true of."""
    said = set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        known = record.getMessage() in said
        said.add(record.getMessage())
        return not known

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)


def run_repeats(evaluator: SupervisedEvaluator, inferer: Any, scores: Any, num_repeats: int, output_dir: str) -> None:
    """Run an evaluation with one seed after the other; the evaluator's inferer is as before at the end.

    With several, ``repeats.csv`` has mean and standard deviation over the repeats for each row of the summary; all else
    in the folder is of the last.

    Args:
        evaluator: of labelled cases.
        inferer: its inferer, with ``seed``: that of the first repeat; the others have copies of it.
        scores: handler of the evaluator, with ``rows``: ``Detection`` or ``SegmentationScores``.
        num_repeats: 1 is a plain run.
        output_dir: where the table goes.

    Raises:
        ValueError: if there is nothing to run.
    """
    if num_repeats < 1:
        raise ValueError(f"num_repeats must be >= 1, got {num_repeats}.")
    found = []
    try:
        for repeat in range(num_repeats):
            seeded = copy(inferer)
            seeded.seed += repeat
            evaluator.inferer = seeded
            evaluator.run()
            found.append({row["metric"]: row["value"] for row in scores.rows})
    finally:
        evaluator.inferer = inferer
    if num_repeats == 1 or not found[0] or idist.get_rank() > 0:
        return
    rows = []
    for metric in found[0]:
        values = np.array([repeat[metric] for repeat in found])
        rows.append({"metric": metric, "mean": values.mean(), "std": values.std(ddof=1), "repeats": num_repeats})
        logger.info(f"{metric}: {values.mean():.4g} +- {values.std(ddof=1):.2g}")
    write_csv(Path(output_dir) / "repeats.csv", rows)
