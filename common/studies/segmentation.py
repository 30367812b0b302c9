"""Segmentations with their uncertainty compared: an ensemble, its single runs, and other sources of uncertainty."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..files import write_csv
from ..metrics.segmentation import (
    THRESHOLD,
    SegmentationRecord,
    examine_segmentation,
    examine_sizes,
    segmentation_statistics,
    summarise_sizes,
)
from ..metrics.statistics import Row, Statistic, mean_of
from ..report.figures import Display, Panel, box_around, members_figure, panel_grid, png
from ..report.page import Picture, Section, write_page
from .answers import Answers, costs_of
from .cases import SCANNERS, Case, Configs, display_of, read_cases
from .plan import Method, methods
from .runner import examined
from .tables import NUM_BOOTSTRAPS, compared_rows, costs_picture, on_page

ENSEMBLE = 5
"""Members of the ensembles that are compared, as in Table 1 of Wolleb et al. 2022, "Implicit Image Segmentation"."""

MEMBERS = slice(4, None)
"""Channels of the result that are samples of the one region; before them are mean, variance, mask and head."""

FIRST, SINGLE = "ensemble", "one run"
"""Rows of the bundle's own method: all its members together, and the mean of each alone."""

METRICS = {
    "dice": "Dice, mean of slices",
    "dice_with_a_mask": "Dice, mean of slices with a mask",
    "jaccard": "IoU, mean of slices",
    "hd95_mm": "HD95, mm, mean of slices with a mask",
    "empty": "share of slices without a mask",
    "brier": "Brier score, mean of patients",
    "calibration_error": "expected calibration error",
    "errors_auroc": "AUROC of the uncertainty for errors",
    "retention_area": "area under the error retention curve",
    "correlation": "correlation of Dice and mean uncertainty over slices (Spearman)",
}
"""Columns of the table."""

OF_UNCERTAINTY = ("errors_auroc", "retention_area", "correlation")
"""Those that what is sampled once has not."""

COMPARED = ("dice", "hd95_mm", "brier", "calibration_error", "errors_auroc")
"""Those that have a column for the difference of the first row."""

Runs = list[list[SegmentationRecord]]
"""For each run the records of all cases."""


class SegmentationPlan(NamedTuple):
    """What is compared.

    Attributes:
        region: config of where scores count, see ``read_cases``.
        rows: methods, see ``methods``; the first is the bundle's own, which gives the rows ``FIRST`` and ``SINGLE``.
    """

    region: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]


class Samples(NamedTuple):
    """What a method samples for a case, and how many of the samples are compared.

    Attributes:
        name: of the method.
        members: (case) -> samples, shape (N, X, Y, Z).
        cost: (case) -> what all samples have cost, see ``Answers``.
        compared: the first ones; of one alone there is no variance.
        is_first: whether it is the bundle's own.
    """

    name: str
    members: Callable[[Case], NDArray[np.float32]]
    cost: Callable[[Case], Row]
    compared: int
    is_first: bool

    def records(self, case: Case) -> dict[tuple[str, int], SegmentationRecord]:
        """Return the record of a case by row and run."""
        every, cost = self.members(case), self.cost(case)

        def record(members: NDArray[np.float32]) -> SegmentationRecord:
            made, share = examine(case, members), len(members) / len(every)
            made.row.update({name: share * value for name, value in cost.items()})
            return made

        members = every[: self.compared]
        if not self.is_first:
            return {(self.name, 0): record(members)}
        runs = {(SINGLE, run): record(members[run : run + 1]) for run in range(ENSEMBLE)}
        return {(FIRST, 0): record(members), **runs}


def samples_of(configs: Configs, compared: Sequence[Method], folder: Path, num_members: int) -> list[Samples]:
    """Return what methods sample.

    Args:
        configs: of the bundle.
        compared: the methods.
        folder: of the answers.
        num_members: that are sampled where a method does not say how many.
    """
    made: list[Samples] = []
    for method in compared:
        settings = {"num_samples": method.members or num_members, f"{method.inferer}::with_members": True}
        answers = Answers(configs, method, folder, MEMBERS, settings)
        made.append(Samples(method.name, answers, answers.cost, method.members or ENSEMBLE, not made))
    return made


def segmentation_study(
    name: str,
    configs: Configs,
    plan: Mapping[str, Any],
    folder: Path,
    num_patients: int | None = None,
    num_rows: int | None = None,
    num_bootstraps: int = NUM_BOOTSTRAPS,
    num_members: int = 10,
) -> None:
    """Write ``study_<scanner>.csv``, ``members_<scanner>.csv`` and ``report.html`` to ``<num_members>_members``.

    Args:
        name: of the bundle.
        configs: of the bundle.
        plan: see ``SegmentationPlan``.
        folder: with the data set of each scanner; answers are kept there.
        num_patients: of each scanner, the first ones; all by default.
        num_rows: entries of the plan, the first ones; all by default.
        num_bootstraps: of the intervals.
        num_members: that are sampled, 5 at least; 100 for Table 2 and Figure 5 of the paper.

    Raises:
        ValueError: for fewer members.
    """
    if num_members < ENSEMBLE:
        raise ValueError(f"num_members must be >= {ENSEMBLE}, got {num_members}.")
    fields, tables, sections = SegmentationPlan(**plan), folder / f"{num_members}_members", []
    compared = methods(fields.rows[:num_rows])
    for scanner, meaning in SCANNERS.items():
        read = read_cases(configs, folder / f"scanner_{scanner}", "testing", fields.region)
        cases = list(islice(read, num_patients))
        sampled = samples_of(configs, compared, folder / "answers" / f"testing_{scanner}", num_members)
        found: dict[str, Runs] = {}
        for _, records in examined([(each.name, each.records) for each in sampled], cases):
            for (row, _run), of_cases in records.items():
                found.setdefault(row, []).append(of_cases)
        table = compare(found, num_bootstraps)
        write_csv(tables / f"study_{scanner}.csv", table)
        ours = sampled[0].members
        sizes_table = summarise_sizes([examine_sizes(ours(c), c.organ, c.truth, c.spacing_mm) for c in cases])
        write_csv(tables / f"members_{scanner}.csv", sizes_table)
        sections += [
            Section(
                f"Scanner {scanner}: {meaning}",
                [explanation(len(cases), compared)],
                [on_page(row) for row in table],
                [costs_picture(table, {"dice": "Dice, mean of slices", "brier": "Brier score"})],
            ),
            Section(
                f"Scanner {scanner}: members of the ensemble",
                ["Slices with tumour; of the single runs, mean and standard deviation over the runs."],
                sizes_table,
                [Picture("", png(members_figure(sizes_table)))],
            ),
            Section(
                f"Scanner {scanner}: where it is uncertain",
                ["The patients of highest, median and lowest Dice; variance of all members."],
                pictures=[Picture("", png(panels(display_of(configs), cases, sampled, found[FIRST][0])))],
            ),
        ]
    write_page(tables / "report.html", f"Study of {name} on phantoms", sections, "Synthetic images, no patients.")
    print(f"report: {tables / 'report.html'}")


def explanation(num_patients: int, compared: Sequence[Method]) -> str:
    """Return what is to be known of the table."""
    others = ", ".join(f"{method.name} {method.members}" for method in compared if method.members)
    return (
        f"{num_patients} patients, never trained on; 95 % intervals over patients. One run: mean over the members. "
        f"Ensembles have {ENSEMBLE} members{others and f', {others}'}. "
        "Differences: the first row minus this one, patients drawn alike."
    )


def examine(case: Case, members: NDArray[np.float32]) -> SegmentationRecord:
    """Return the record of a case that is segmented by the mean of samples, shape (N, X, Y, Z)."""
    mean, variance = members.mean(0), members.var(0)
    maps = (mean, variance, (mean > THRESHOLD) & case.organ, case.organ, case.truth)
    return examine_segmentation(case.name, case.name, *maps, case.spacing_mm)


def compare(found: Mapping[str, Runs], num_bootstraps: int) -> list[Row]:
    """Return the table: a row a method, with intervals, and with the differences of the first to it."""
    patients = [record.patient for record in next(iter(found.values()))[0]]
    statistics = {name: [segmentation_statistics(run) for run in runs] for name, runs in found.items()}

    def number(name: str, metric: str) -> Statistic:
        if metric in OF_UNCERTAINTY and not any(record.row["mean_uncertainty"] for record in found[name][0]):
            return lambda weights: float("nan")
        return mean_of([run[METRICS[metric]] for run in statistics[name]])

    numbers = {name: {metric: number(name, metric) for metric in METRICS} | costs_of(found[name]) for name in found}
    return compared_rows("method", numbers, patients, COMPARED, next(iter(found)), num_bootstraps)


def panels(
    display: Display, cases: Sequence[Case], sampled: Sequence[Samples], records: Sequence[SegmentationRecord]
) -> Figure:
    """Return three patients with the mean and the variance of what is sampled several times, the paper's Figure 5."""
    order = np.argsort([-record.row["dice"] for record in records])

    def row(case: Case) -> Iterator[Panel]:
        z = int(case.truth.sum((0, 1)).argmax())
        here: Any = (*box_around(case.organ, margin=2), z)
        outlines, window = {"label": case.truth[here]}, display.window_of(case.image)
        yield Panel(case.name, case.image[here], outlines=outlines, window=window)
        for each in sampled:
            members = each.members(case)
            if len(members) > 1:
                short = each.name.split(" (")[0]
                yield Panel(f"{short}: mean", members.mean(0)[here], outlines=outlines, window=(0.0, 1.0))
                yield Panel("variance", case.image[here], members.var(0)[here], outlines, window, display.map_window)

    chosen = dict.fromkeys(int(order[i]) for i in (0, len(order) // 2, -1))  # fewer patients have fewer rows
    return panel_grid([list(row(cases[index])) for index in chosen])
