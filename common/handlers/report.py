"""Pictures of cases, and the page of a run."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.engines.utils import IterationEvents
from monai.utils import convert_to_numpy
from torch.utils.tensorboard import SummaryWriter

from ..metrics.statistics import Row, with_all_columns
from ..report.figures import CT, Display, overlay_figure, samples_figure, save_png
from ..report.page import Picture, Section, versions, write_page
from .output import as_seen, from_all_ranks, spacing_mm
from .scores import Scores
from .verdict import Searched

logger = logging.getLogger(__name__)


SIDES = "Slices are counted from the feet; the patient's right is on the left."


class CaseReport:
    """Draw each case and write one page of the run.

    What the evaluator's inferer has to say of the threshold of the masks, by ``threshold_warning``, stands at the top.
    A case that has no map, no mask or no organ is listed without a picture, with the ``probability`` of each class if
    the output has that, shape (K,). Beside a case stand the ``remarks`` on its files, see ``list_cases``.

    Args:
        output_dir: where ``<case>/<case>_overlay.png`` and ``report.html`` go.
        title: of the page.
        notice: said first on the page.
        parameters: shown as a table.
        scores: its tables and curves are shown, if cases have labels.
        failures: cases that could not be done are listed.
        num_slices: most anomalous slices that are drawn of a case.
        display: how they are drawn, see ``report.figures.Display``.
        searched: what is said of each case when it is done, see ``Searched``.
    """

    def __init__(
        self,
        output_dir: str,
        title: str,
        notice: str = "",
        parameters: Mapping[str, Any] | None = None,
        scores: Scores | None = None,
        failures: Any = None,
        num_slices: int = 4,
        display: Display = CT,
        searched: Searched = Searched(),  # noqa: B008
    ) -> None:
        self.output_dir, self.title, self.notice, self.parameters = Path(output_dir), title, notice, parameters or {}
        self.scores, self.failures, self.num_slices, self.display = scores, failures, num_slices, display
        self.searched = searched
        self.rows: list[Row] = []
        self._drawn: list[str] = []
        self._clock = self._seconds = 0.0

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_clock)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop_clock)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._draw)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        self.rows, self._drawn = [], []

    def _start_clock(self) -> None:
        self._clock = time.perf_counter()

    def _stop_clock(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the network's last calls may still be under way
        self._seconds = time.perf_counter() - self._clock

    def _draw(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = item["case"]
            if is_drawn(output, self.display):
                save_png(case_figure(case, output, self.num_slices, self.display), self._overlay(case))
                self._drawn.append(case)
                measured = _measured(output, self.display)
            else:
                measured = _probabilities(output)
            seconds, found = self._seconds / len(engine.state.output), "organ_from" not in item
            organ_from = getattr(engine.inferer, "organ_from", "") if found else item["organ_from"]
            remarks = [item["remarks"]] if item.get("remarks") else []
            if found and is_drawn(output, self.display) and (doubt := self.searched.doubt(output)):
                logger.warning(f"{case}: {doubt}.")
                remarks.append(doubt)
            logger.info(f"{case}: {self.searched.line(output, organ_from, seconds)}")
            told = {"remarks": "; ".join(remarks)} if remarks else {}
            self.rows.append({"case": case, **measured, "seconds of inference": seconds, **told})

    def _overlay(self, case: str) -> Path:
        return self.output_dir / case / f"{case}_overlay.png"

    def _write(self, engine: Any) -> None:
        rows = sorted(from_all_ranks(self.rows), key=lambda row: row["case"])
        self._drawn = sorted(from_all_ranks(self._drawn))
        failed = dict(from_all_ranks(list(self.failures.reasons.items()) if self.failures else []))
        if idist.get_rank() == 0:
            warn_of = getattr(engine.inferer, "threshold_warning", lambda network: "")
            sections, warning = self._sections(rows, failed), warn_of(engine.network)
            write_page(self.output_dir / "report.html", self.title, sections, self.notice, warning)
            logger.info(f"report: {self.output_dir / 'report.html'}")

    def _sections(self, rows: Sequence[Row], failed: Mapping[str, str]) -> list[Section]:
        legend = f"{self.display.legend} {SIDES}"
        pictures = [Picture(case, self._overlay(case).read_bytes()) for case in self._drawn]
        parameters = [{"parameter": name, "value": str(value)} for name, value in self.parameters.items()]
        return [
            Section("Cases", rows=with_all_columns(rows)),
            Section("Cases that could not be done", rows=[{"case": c, "reason": r} for c, r in failed.items()]),
            *(self.scores.sections() if self.scores else []),
            Section(self.display.heading, text=[legend], pictures=pictures) if pictures else Section(""),
            Section("Parameters", rows=parameters),
            Section("Versions", rows=versions()),
        ]


def _measured(output: Mapping[str, Any], display: Display) -> Row:
    """Return how large organ and mask of a case are, and what its map says of the organ."""
    name = f"{display.name}, {display.unit}".rstrip(", ")
    arrays = as_seen(output, (display.name, "mask", "organ", "probability"))
    scores, organ, probability = arrays[display.name], arrays["organ"] > 0, arrays.get("probability")
    millilitres = float(np.prod(spacing_mm(output["mask"]))) / 1000 if organ.ndim == 3 else np.nan
    return {
        "slices with organ": int(organ.any((0, 1)).sum()) if organ.ndim == 3 else 1,
        "organ, ml": float(organ.sum() * millilitres),
        "mask, ml": float((arrays["mask"] > 0).sum() * millilitres),
        "mask, % of the organ": 100 * float((arrays["mask"] > 0)[organ].mean()),
        f"mean {name}": float(scores[organ].mean()),
        f"highest {name}": float(scores.max()),
        **({} if probability is None else {"highest probability of disease": float(probability.max())}),
    }


def _probabilities(output: Mapping[str, Any]) -> Row:
    """Return the probability of each class of a case, nothing where it has none, or a map of it."""
    probability = output.get("probability")
    classes = [] if probability is None or probability.ndim > 1 else probability.tolist()
    return {f"probability of class {k}": p for k, p in enumerate(classes)}


class Previews:
    """Show the most anomalous slices of each case in TensorBoard; cases that have no map are left out.

    Args:
        log_dir: of TensorBoard.
        display: see ``CaseReport``.
    """

    def __init__(self, log_dir: str, display: Display = CT) -> None:
        self.log_dir, self.display = log_dir, display
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._draw)

    def _draw(self, engine: Any) -> None:
        with SummaryWriter(self.log_dir) as writer:
            for item, output in zip(engine.state.batch, engine.state.output, strict=True):
                if is_drawn(output, self.display):
                    figure = case_figure(item["case"], output, 4, self.display)
                    writer.add_figure(item["case"], figure, engine.state.epoch)


def is_drawn(output: Mapping[str, Any], display: Display) -> bool:
    """Return whether a case has all that its picture shows, see ``case_figure``."""
    shown = ("image", "mask", "organ", display.name, display.version_key)
    return all(output.get(key) is not None for key in shown)


def case_figure(case: str, output: Mapping[str, Any], num_slices: int, display: Display = CT) -> Figure:
    """Return the slices of a case that its map says most of, see ``overlay_figure``.

    Args:
        case: title of the figure.
        output: of an evaluator, with ``image``, ``mask``, ``organ``, the two that the display names, and perhaps
            ``label``.
        num_slices: at the most.
        display: see ``CaseReport``.
    """
    arrays = as_seen(output, (display.name, "mask", "organ", "label"))
    arrays |= as_seen(output, ["image"], display.channel)
    translated = len(output[display.version_key]) > display.channel
    arrays |= as_seen(output, [display.version_key], display.channel if translated else 0)
    right, front = spacing_mm(output["mask"])[:2]
    truth = arrays["label"] > 0 if "label" in arrays else None
    mask, organ = arrays["mask"] > 0, arrays["organ"] > 0
    images = (arrays["image"], arrays[display.version_key], arrays[display.name], mask, organ, truth)
    return overlay_figure(*images, num_slices, case, front / right, display)


def write_samples(path: str, real: Any, generated: Any) -> None:
    """Write real slices above generated ones as PNG.

    Args:
        path: of the picture.
        real: HU, shape (N, X, Y).
        generated: HU, shape (N, X, Y).
    """
    save_png(samples_figure(convert_to_numpy(real), convert_to_numpy(generated)), Path(path))
    logger.info(f"real and generated slices: {path}")
