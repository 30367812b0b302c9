"""Anomaly maps compared: a bundle's method, its baselines and controls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import ensure_tuple
from numpy.typing import NDArray

from ..files import write_csv
from ..metrics.detection import CaseRecord, average_otsu, examine_case, slice_mean, summarise
from ..metrics.pixels import Curve, PooledCounts
from ..metrics.statistics import Row, Statistic, mean_of
from ..report.figures import Panel, box_around, curves_figure, panel_grid, png
from ..report.page import Picture, Section, write_page
from ..transforms.anomaly import smooth_in
from .answers import Answers, costs_of
from .cases import SCANNERS, Case, Configs, display_of, read_cases
from .plan import Method, methods, pairs_of, rows_of
from .runner import examined
from .tables import NUM_BOOTSTRAPS, compared_rows, costs_picture, on_page, paired_rows

THRESHOLDS = ("dice", "otsu")
NUM_SEEDS = 3
"""Of what a method draws."""

ANOMALY = 0
"""Channel of the map."""

BEFORE_THE_FILTER = {"median_radius": 0, "threshold": 0.0}
"""Of the map that is kept; the filters and thresholds of all rows are tried on it."""

Records = dict[str, list[list[CaseRecord]]]
"""By row: for each seed the records of all cases."""


class DetectionPlan(NamedTuple):
    """What is compared, and how it is counted.

    Attributes:
        region: config of where scores count, see ``read_cases``.
        rows: of the table, see ``methods``; the first is compared with the others.
        tuning: rows of settings that are tried on validation patients.
        shared: settings that several rows have, by name.
        case_settings: keys of the config that cases are read with.
        threshold: of masks, on validation patients: of the largest ``dice``, or the mean of their own by ``otsu``.
        lesion_slices_only: slices without lesions do not count.
        overlaps: also count IoU and HD95 of slices with lesions; where others do not count they are always counted.
        decimals: of the scores that are counted, so that few differ.
    """

    region: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    tuning: Sequence[Mapping[str, Any]]
    shared: Mapping[str, Mapping[str, Any]] = {}
    case_settings: Mapping[str, Any] = {}
    threshold: str = "dice"
    lesion_slices_only: bool = False
    overlaps: bool = False
    decimals: int = 3


class DetectionStudy:
    """A plan for a bundle, and a folder.

    Args:
        configs: of the bundle.
        plan: what is compared.
        folder: with the data sets; answers and tables are written there.

    Raises:
        ValueError: if the plan's ``threshold`` is none of ``THRESHOLDS``.
    """

    def __init__(self, configs: Configs, plan: DetectionPlan, folder: Path) -> None:
        if plan.threshold not in THRESHOLDS:
            raise ValueError(f"threshold must be one of {', '.join(THRESHOLDS)}, got {plan.threshold!r}.")
        self.configs, self.plan, self.folder = configs, plan, folder
        parser = configs("inference")
        radius = parser.get_parsed_content("median_radius") if "median_radius" in parser else 0
        self.radius, self.otsu = list(ensure_tuple(radius)), plan.threshold == "otsu"

    def cases(self, name: str, split: str, count: int | None) -> list[Case]:
        """Return the first cases of a data set; where slices without lesions do not count, those that have some."""
        data, plan = self.folder / name, self.plan
        read = islice(read_cases(self.configs, data, split, plan.region, **plan.case_settings), count)
        return [case for case in read if case.truth.any() or not plan.lesion_slices_only]

    def answers(self, method: Method, split: str, seed: int) -> Answers:
        """Return what a method answers, before its filter."""
        folder, drawn = self.folder / "answers" / split, seed if method.drawn else None
        return Answers(self.configs, method, folder, ANOMALY, BEFORE_THE_FILTER, drawn)

    def examine(
        self,
        compared: Sequence[Method],
        cases: Sequence[Case],
        split: str,
        num_seeds: int,
        thresholds: Mapping[str, float] | None = None,
    ) -> Records:
        """Return the records of all rows; without thresholds nothing is in their masks."""

        def sources() -> Iterator[tuple[str, Callable[[Case], dict[str, CaseRecord]]]]:
            for index, method in enumerate(compared):
                for seed in range(num_seeds if method.drawn else 1):
                    answer, rows = self.answers(method, split, seed), rows_of(method, self.radius)
                    name = f"{split} {index + 1}/{len(compared)} seed {seed}"
                    yield name, partial(self.record, answer, rows, thresholds or {}, cost=answer.cost)

        found: Records = {}
        for name, records in examined(sources(), cases):
            for row, of_cases in records.items():
                found.setdefault(row, []).append(of_cases)
                print(f"{name} {row}: AP {_pooled(of_cases).curve().average_precision():.3f}", flush=True)
        return found

    def record(
        self,
        answer: Callable[[Case], NDArray[np.float32]],
        rows: Mapping[str, Sequence[int]],
        thresholds: Mapping[str, float],
        case: Case,
        cost: Callable[[Case], Row] = lambda case: {},
    ) -> dict[str, CaseRecord]:
        """Return the record of a case for each row, whose filters are tried on the same answer.

        Args:
            answer: of a method, (case) -> map.
            rows: the radius of each row's filter, by its name.
            thresholds: of the masks, by row.
            case: that is examined.
            cost: of the answer, further columns of the record.
        """
        only, overlaps = self.plan.lesion_slices_only, self.plan.lesion_slices_only or self.plan.overlaps
        options: dict[str, Any] = {"otsu": self.otsu, "lesion_slices_only": only, "overlaps": overlaps}
        anomaly, taken, records = answer(case), cost(case), {}
        for row, radius in rows.items():
            scores = np.round(smooth_in(case.organ, anomaly, radius), self.plan.decimals)
            mask = (scores >= thresholds.get(row, np.inf)) & case.organ
            images = (scores, mask, case.organ, case.truth)
            records[row] = examine_case(case.name, case.name, *images, case.spacing_mm, **options)
            records[row].row.update(taken)
        return records

    def tune(self, compared: Sequence[Method], cases: Sequence[Case]) -> list[Row]:
        """Return a row for each setting, on validation patients and without intervals, the best first."""
        found = self.examine(compared, cases, "validation", 1)
        rows = [_plain_row(name, records, self.otsu) for name, records in found.items()]
        return sorted(rows, key=lambda row: -row["ap"])

    def panels(
        self, compared: Sequence[Method], cases: Sequence[Case], split: str, records: Sequence[CaseRecord]
    ) -> list[Picture]:
        """Return the picture of three patients by all methods, as Figures 6 to 11 of Shi et al. 2024."""
        with_lesions = [index for index, case in enumerate(cases) if case.truth.any()]
        order = sorted(with_lesions, key=lambda index: -records[index].row["ap"])
        chosen = dict.fromkeys(order[place] for place in (0, len(order) // 2, -1) if order)  # few patients, fewer rows
        display, rows = display_of(self.configs), []
        for index in chosen:
            case = cases[index]
            window = display.window_of(case.image)
            z = int(case.truth.sum((0, 1)).argmax())
            here: Any = (*box_around(case.organ, margin=4), z)
            outlines = {"label": case.truth[here]}
            row = [Panel(case.name, case.image[here], outlines={"organ": case.organ[here], **outlines}, window=window)]
            for method in compared:
                answer = self.answers(method, split, 0)(case)
                for name, radius in pictured(method, self.radius).items():
                    scores = smooth_in(case.organ, answer, radius)
                    row.append(Panel(name, case.image[here], scores[here], outlines, window, display.map_window))
            rows.append(row)
        return [Picture("", png(panel_grid(rows)))] if rows else []


def detection_study(
    name: str,
    configs: Configs,
    plan: Mapping[str, Any],
    folder: Path,
    num_patients: int | None = None,
    num_seeds: int = NUM_SEEDS,
    num_rows: int | None = None,
    num_bootstraps: int = NUM_BOOTSTRAPS,
    tune: bool = False,
) -> None:
    """Write the tables as CSV, and ``report.html``.

    Args:
        name: of the bundle.
        configs: of the bundle.
        plan: see ``DetectionPlan``.
        folder: with the data set of each scanner.
        num_patients: of each split, the first ones; all by default.
        num_seeds: of what draws.
        num_rows: entries of the plan, the first ones; all by default.
        num_bootstraps: of the intervals.
        tune: compare settings on validation patients instead, without intervals.
    """
    study = DetectionStudy(configs, DetectionPlan(**plan), folder)
    validation = study.cases("scanner_a", "validation", num_patients)
    if tune:
        rows = study.tune(methods(study.plan.tuning[:num_rows], study.plan.shared), validation)
        write_csv(folder / "tuning.csv", rows)
        for row in rows:
            print("  ".join(f"{value:.3f}" if isinstance(value, float) else f"{value:60s}" for value in row.values()))
        return

    compared = methods(study.plan.rows[:num_rows], study.plan.shared)
    fitted = {
        row: float(np.mean([_fitted(r, study.otsu) for r in records]))
        for row, records in study.examine(compared, validation, "validation", 1).items()
    }
    in_figures = {row for method in compared for row in pictured(method, study.radius)}
    against = pairs_of(compared, study.radius)
    sections = []
    for scanner, meaning in SCANNERS.items():
        cases = study.cases(f"scanner_{scanner}", "testing", num_patients)
        found = study.examine(compared, cases, f"testing_{scanner}", num_seeds, fitted)
        rows = compare(found, fitted, num_bootstraps)
        write_csv(folder / f"study_{scanner}.csv", rows)
        pairs = paired_rows(against, found, lambda both: compare(both, fitted, num_bootstraps))
        if pairs:
            write_csv(folder / f"pairs_{scanner}.csv", pairs)
        default = next(iter(found))
        sizes = summarise(found[default][0], fitted[default], num_bootstraps)
        write_csv(folder / f"by_lesion_{scanner}.csv", sizes)
        curves = {row: _pooled(records[0]).curve() for row, records in found.items() if row in in_figures}
        sections += [
            Section(
                f"Scanner {scanner}: {meaning}",
                [explanation(len(cases), num_seeds, study.plan.lesion_slices_only)],
                [on_page(row) for row in rows],
                [Picture("Seed 0.", png(curves_figure(curves))), costs_picture(rows, {"ap": "AP", "dice": "Dice"})],
            ),
            Section(
                f"Scanner {scanner}: pairs; differences are those of the row under 'against' minus this one",
                rows=[on_page(row) for row in pairs],
            ),
            Section(f"Scanner {scanner}: {default} by size of the lesion, seed 0", rows=sizes),
            Section(
                f"Scanner {scanner}: maps of all methods",
                ["The patients of highest, median and lowest AP by the default settings."],
                pictures=study.panels(compared, cases, f"testing_{scanner}", found[default][0]),
            ),
        ]
    write_page(folder / "report.html", f"Study of {name} on phantoms", sections, "Synthetic images, no patients.")
    print(f"report: {folder / 'report.html'}")


def explanation(num_patients: int, num_seeds: int, lesion_slices_only: bool) -> str:
    """Return what is to be known of the table."""
    return (
        f"{num_patients} patients, never trained on; all pixels of the organ pooled; mean of {num_seeds} seeds where a "
        "method draws; 95 % intervals over patients. A difference is that of the first row minus this one, patients "
        "drawn alike. Thresholds of 'dice' were fitted on validation patients of scanner a."
        f"{' Slices without lesions do not count.' if lesion_slices_only else ''}"
    )


def pictured(method: Method, own_radius: Sequence[int]) -> dict[str, Sequence[int]]:
    """Return the rows of a method that figures have; all of them could not be told apart."""
    rows = rows_of(method, own_radius)
    return {row: r for row, r in rows.items() if method.pictured is None or list(r) in method.pictured}


def _fitted(records: Sequence[CaseRecord], otsu: bool) -> float:
    return average_otsu(records) if otsu else _pooled(records).curve().best_dice()[1]


def compare(found: Records, thresholds: Mapping[str, float], num_bootstraps: int) -> list[Row]:
    """Return the table: a row a method, with intervals, and with the difference of the first to it."""
    patients = [record.patient for record in next(iter(found.values()))[0]]
    pooled = {row: [_pooled(records) for records in seeds] for row, seeds in found.items()}

    def metrics(row: str) -> dict[str, Statistic]:
        def over_seeds(metric: Callable[[Curve], float]) -> Statistic:
            return mean_of([partial(_of_curve, p, metric) for p in pooled[row]])

        return {
            "auc": over_seeds(Curve.auroc),
            "ap": over_seeds(Curve.average_precision),
            "dice": over_seeds(lambda curve: curve.dice_at(thresholds[row])),
            "dice_best_threshold_of_this_test": over_seeds(lambda curve: curve.best_dice()[0]),
            **slice_metrics(found[row]),
            **costs_of(found[row]),
        }

    numbers, compared = {row: metrics(row) for row in found}, ("ap", "dice", *slice_metrics(next(iter(found.values()))))
    table = compared_rows("method", numbers, patients, compared, next(iter(found)), num_bootstraps)
    for row in table:
        row["threshold"] = thresholds[row["method"]]
        normal = [s for seed in found[row["method"]] for r in seed for s in r.slice_rows if s["lesion_pixels"] == 0]
        if normal:
            areas = [s["organ_pixels"] for s in normal]
            row["normal_slice_mean"] = float(np.average([s["mean_score"] for s in normal], weights=areas))
            row["normal_slice_mask_cm2"] = float(np.mean([s["mask_cm2"] for s in normal]))
    return table


def slice_metrics(seeds: Sequence[Sequence[CaseRecord]]) -> dict[str, Statistic]:
    """Return what the papers' tables have of slices with lesions; nothing where records have no overlaps."""
    counted = seeds[0][0].slice_rows[0]
    if "hd95_mm" not in counted:
        return {}
    keys = {"dice": "dice", "iou": "jaccard", "hd95_mm": "hd95_mm", "dice_own_otsu": "dice_otsu"}
    return {
        f"slice_{name}": mean_of([slice_mean(records, key, diseased=True) for records in seeds])
        for name, key in keys.items()
        if key in counted
    }


def _of_curve(pooled: PooledCounts, metric: Callable[[Curve], float], weights: NDArray[np.float64]) -> float:
    return metric(pooled.curve(weights))


def _plain_row(name: str, records: Sequence[Sequence[CaseRecord]], otsu: bool) -> Row:
    curves = [_pooled(r).curve() for r in records]
    thresholds = [_fitted(r, otsu) for r in records]
    return {
        "settings": name,
        "ap": float(np.mean([c.average_precision() for c in curves])),
        "auc": float(np.mean([c.auroc() for c in curves])),
        "dice": float(np.mean([c.dice_at(t) for c, t in zip(curves, thresholds, strict=True)])),
        "dice_best_threshold": float(np.mean([c.best_dice()[0] for c in curves])),
    }


def _pooled(records: Sequence[CaseRecord]) -> PooledCounts:
    return PooledCounts([record.counts for record in records])
