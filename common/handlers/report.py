"""Pictures of cases, and the page of a run."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.engines.utils import IterationEvents
from monai.utils import convert_to_numpy
from torch.utils.tensorboard import SummaryWriter

from ..metrics.statistics import Row, with_all_columns
from ..report.figures import CT, Display, View, overlay_figure, png, samples_figure, save_png
from ..report.page import Picture, Section, Stack, Tile, format_cell, seen_from, versions, without_folders, write_page
from ..timing import synchronise
from .output import as_seen, from_all_ranks, is_placed, spacing_mm
from .scores import Scores
from .verdict import Searched

logger = logging.getLogger(__name__)


PLACED = "Slices are counted from the feet; the patient's right (R) is on the left."
NOT_PLACED = "Orientation and size of pixels unknown: the file does not tell them."

ERRORS = {"missed": "Worst miss", "false": "Most false"}
"""Headings of the slices with most of an error."""


class CaseReport:
    """Draw each case and write one page of the run: what was found first, all else folded.

    What the evaluator's inferer has to say of the threshold of the masks, by ``threshold_warning``, stands at the top.
    A case that has no map, no mask or no organ is listed without a picture, with the ``probability`` of each class if
    the output has that, shape (K,). Beside a case stand the ``remarks`` on its files, see ``list_cases``. Where there
    are labels, the two slices are shown in which most lesion is missed, and most is falsely called so, in the organ.

    Args:
        output_dir: where ``<case>/<case>_overlay.png`` and ``report.html`` go.
        title: of the page.
        notice: said first on the page.
        parameters: shown as a table.
        scores: its tables and curves are shown, if cases have labels.
        failures: cases that could not be done are listed.
        num_slices: that are drawn of a case.
        display: how they are drawn, see ``report.figures.Display``.
        all_slices: also draw each slice with the organ as ``<case>/slices/<number>.png``, for the page to leaf through.
        searched: what is said of each case when it is done, see ``Searched``.
        heading: above the pictures.
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
        all_slices: bool = False,
        searched: Searched = Searched(),  # noqa: B008
        heading: str = "What was found",
    ) -> None:
        self.output_dir, self.title, self.notice, self.parameters = Path(output_dir), title, notice, parameters or {}
        self.scores, self.failures, self.num_slices, self.display = scores, failures, num_slices, display
        self.all_slices, self.searched, self.heading = all_slices, searched, heading
        self._clock = self._seconds = 0.0
        self._start()

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_clock)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop_clock)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._draw)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        self.rows: list[Row] = []
        self._drawn: list[tuple[str, bool]] = []
        self._stacks: list[Stack] = []
        self._worst: dict[str, tuple[float, str, View, int]] = {}

    def _start_clock(self) -> None:
        self._clock = time.perf_counter()

    def _stop_clock(self) -> None:
        synchronise()  # the network's last calls may still be under way
        self._seconds = time.perf_counter() - self._clock

    def _draw(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case, found = item["case"], "organ_from" not in item
            remarks = [item["remarks"]] if item.get("remarks") else []
            if is_drawn(output, self.display):
                view = view_of(output, self.display)
                save_png(overlay_figure(view, view.slices(self.num_slices), case), self._overlay(case))
                self._drawn.append((case, view.pixel_mm is not None))
                self._keep_worst(case, view)
                if self.all_slices and view.image.shape[2] > 1:
                    self._stacks.append(self._draw_slices(case, view))
                measured = _measured(output, self.display)
                if found and (doubt := self.searched.doubt(output)):
                    logger.warning(f"{case}: {doubt}.")
                    remarks.append(doubt)
            else:
                measured = _probabilities(output)
            seconds = self._seconds / len(engine.state.output)
            organ_from = getattr(engine.inferer, "organ_from", "") if found else item["organ_from"]
            logger.info(f"{case}: {self.searched.line(output, organ_from, seconds)}")
            told = {"remarks": "; ".join(remarks)} if remarks else {}
            self.rows.append({"case": case, **measured, "seconds of inference": seconds, **told})

    def _overlay(self, case: str) -> Path:
        return self.output_dir / case / f"{case}_overlay.png"

    def _draw_slices(self, case: str, view: View) -> Stack:
        """Draw each slice with the organ beside the page."""
        shown, files = view.slices(view.image.shape[2]), []
        for k in shown:
            figure = overlay_figure(view, [k])
            files.append(f"{case}/slices/{k:03d}.png")
            save_png(figure, self.output_dir / files[-1])
        width, height = figure.get_size_inches()
        return Stack(f"{case}, slices {shown[0]} to {shown[-1]}", files, width / height)

    def _keep_worst(self, case: str, view: View) -> None:
        """Keep the slice of a case with most of each error, if no other case has more."""
        if view.label is None:
            return
        errors = {"missed": view.label & ~view.mask, "false": view.mask & ~view.label}
        for kind, wrong in errors.items():
            pixels = (wrong & view.organ).sum((0, 1))
            k = int(pixels.argmax())
            area = float(pixels[k] * np.prod(view.pixel_mm or 1)) / (100 if view.pixel_mm else 1)
            if area > (self._worst[kind][0] if kind in self._worst else 0):
                where = f"{case}, slice {k}" if view.image.shape[2] > 1 else case
                said = f"{where}: {format_cell(area)} {'cm²' if view.pixel_mm else 'pixels'} {kind}"
                self._worst[kind] = (area, said, view, k)

    def _write(self, engine: Any) -> None:
        rows = sorted(from_all_ranks(self.rows), key=lambda row: row["case"])
        self._drawn, self._stacks = sorted(from_all_ranks(self._drawn)), from_all_ranks(self._stacks)
        found = self._worst.items()
        own = [(kind, area, said, png(overlay_figure(view, [k]))) for kind, (area, said, view, k) in found]
        worst = {kind: Picture(said, picture) for kind, _, said, picture in sorted(from_all_ranks(own))}
        self._worst = {}  # lets go of the images
        failed = dict(from_all_ranks(list(self.failures.reasons.items()) if self.failures else []))
        if idist.get_rank() == 0:
            warn_of = getattr(engine.inferer, "threshold_warning", lambda network: "")
            sections, warning = self._sections(rows, failed, worst), warn_of(engine.network)
            tiles = [*_tiles(rows, failed), *(self.scores.tiles() if self.scores else [])]
            write_page(self.output_dir / "report.html", self.title, sections, self.notice, warning, tiles)
            logger.info(f"report: {self.output_dir / 'report.html'}")

    def _sections(self, rows: Sequence[Row], failed: Mapping[str, str], worst: Mapping[str, Picture]) -> list[Section]:
        rows = [{k: without_folders(v) if k == "remarks" else v for k, v in row.items()} for row in rows]
        said = {row["case"]: _said(row) for row in rows}
        pictures = [Picture(said[case], self._overlay(case).read_bytes()) for case, _ in self._drawn]
        placed = sorted({PLACED if placed else NOT_PLACED for _, placed in self._drawn})
        parameters = [
            {"parameter": name, "value": seen_from(self.output_dir, str(value))}
            for name, value in self.parameters.items()
        ]
        cases = Section("Cases", rows=with_all_columns(rows))
        folded = [
            Section("All slices", stacks=sorted(self._stacks, key=lambda stack: stack.caption)),
            *(Section(heading, pictures=[worst[kind]]) for kind, heading in ERRORS.items() if kind in worst),
            *([cases] if pictures else []),
            *(self.scores.sections() if self.scores else []),
            Section("Parameters", rows=parameters),
            Section("Versions", rows=versions()),
        ]
        failures = [{"case": case, "reason": without_folders(reason)} for case, reason in failed.items()]
        return [
            Section("Cases that could not be done", rows=failures),
            Section(self.heading, text=placed, pictures=pictures) if pictures else cases,
            *(replace(section, folded=True) for section in folded),
        ]


def _tiles(rows: Sequence[Row], failed: Mapping[str, str]) -> list[Tile]:
    """Return how many cases were done, and the volumes of organ and mask."""
    done = f"{len(rows)} of {len(rows) + len(failed)}" if failed else str(len(rows))
    tiles = [Tile("cases", done, f"{len(failed)} could not be done" if failed else "")]
    for name in ("organ, ml", "mask, ml"):
        volumes = [row[name] for row in rows if np.isfinite(row.get(name, np.nan))]
        if volumes:
            what, several = name.removesuffix(", ml"), len(volumes) > 1
            span = f"{format_cell(min(volumes))} to {format_cell(max(volumes))} ml" if several else ""
            median = f"{format_cell(float(np.median(volumes)))} ml"
            tiles.append(Tile(f"{what}, median of the cases" if several else what, median, span))
    return tiles


def _said(row: Row) -> str:
    """Return the caption of a case's picture: what was measured of it, units behind the numbers."""
    left_out = ("case", "remarks", "seconds of inference")
    names = {name: name.partition(", ")[::2] for name, value in row.items() if name not in left_out and value == value}
    numbers = [f"{what} {format_cell(row[name])} {unit}".strip() for name, (what, unit) in names.items()]
    return f"{row['case']}: {'; '.join(numbers)}"


def _measured(output: Mapping[str, Any], display: Display) -> Row:
    """Return how large organ and mask of a case are, and what its map says of the organ."""
    name = f"{display.name}, {display.unit}".rstrip(", ")
    arrays = as_seen(output, (display.name, "mask", "organ", "probability"))
    scores, organ = arrays[display.name], arrays["organ"] > 0
    probability = None if display.name == "probability" else arrays.get("probability")
    millilitres = float(np.prod(spacing_mm(output["mask"]))) / 1000 if organ.ndim == 3 else np.nan
    return {
        **({"slices with organ": int(organ.any((0, 1)).sum())} if organ.ndim == 3 else {}),
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


def view_of(output: Mapping[str, Any], display: Display = CT) -> View:
    """Return a case as it is drawn; without an organ all of it is searched.

    Args:
        output: of an evaluator, with ``image``, ``mask``, ``organ``, the two that the display names, and perhaps
            ``label``.
        display: see ``CaseReport``.
    """
    arrays = as_seen(output, (display.name, "mask", "organ", "label"))
    arrays |= as_seen(output, ["image"], display.channel)
    translated = len(output[display.version_key]) > display.channel
    arrays |= as_seen(output, [display.version_key], display.channel if translated else 0)
    placed = is_placed(output["mask"])
    turns = 0 if placed else display.rotate
    seen = {key: np.rot90(np.atleast_3d(array), turns) for key, array in arrays.items()}
    organ = seen["organ"] > 0
    right, front = spacing_mm(output["mask"])[:2]
    return View(
        image=seen["image"],
        version=seen[display.version_key],
        scores=seen[display.name],
        mask=seen["mask"] > 0,
        organ=organ if organ.any() else np.ones_like(organ),
        label=seen["label"] > 0 if "label" in seen.keys() & display.words.keys() else None,
        pixel_mm=(right, front) if placed else None,
        display=display,
    )


def case_figure(case: str, output: Mapping[str, Any], num_slices: int, display: Display = CT) -> Figure:
    """Return slices of a case under its name, see ``View.slices`` and ``view_of``."""
    view = view_of(output, display)
    return overlay_figure(view, view.slices(num_slices), case)


def write_samples(path: str, real: Any, generated: Any) -> None:
    """Write real slices above generated ones as PNG.

    Args:
        path: of the picture.
        real: HU, shape (N, X, Y).
        generated: HU, shape (N, X, Y).
    """
    save_png(samples_figure(convert_to_numpy(real), convert_to_numpy(generated)), Path(path))
    logger.info(f"real and generated slices: {path}")
