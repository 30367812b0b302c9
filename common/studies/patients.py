"""Anomaly maps compared on real patients, each tried by what was trained without them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.bundle import ConfigParser

from ..files import write_csv
from ..metrics.detection import CaseRecord, pool_pixels, slice_mean
from ..metrics.intervals import with_interval
from ..metrics.overlap import dice
from ..metrics.statistics import Row, Statistic, difference, mean_of, mean_of_cases, mean_of_slices
from ..report.page import Section, write_page
from .answers import Answers
from .cases import Case, Configs
from .detection import DetectionPlan, DetectionStudy, Records
from .plan import Method, methods, rows_of
from .tables import NUM_BOOTSTRAPS, on_page
from .training import Run, train_parts

SIZES = {"below_20": (1, 20), "20_to_100": (20, 101), "above_100": (101, np.inf)}
"""Pixels of lesion in a slice, by the column that such slices have."""

NOTICE = "Real patients: for the eyes of those who may see them. For research, not for diagnosis."


class PatientsPlan(NamedTuple):
    """What is compared.

    Attributes:
        data: options of the data sets that cases are taken from, by name; those of all bundles of a table are the same.
        rows: see ``DetectionPlan``; of the controls, that of the highest mean AP on validation patients is what all
            rows are compared with.
        region: see ``DetectionPlan``.
        trainings: of a fold, each the name of a ``config``, ``settings``, and the ``parts`` that are trained where the
            others stay as they came with the bundle, see ``train_parts``.
        shared: see ``DetectionPlan``.
        case_settings: see ``DetectionPlan``.
        decimals: see ``DetectionPlan``.
        overlays: names of configs over all others.
        folds: of the patients; each is a data set ``<name> <fold>``. 0: the data set is one.
        left_out: further tables without some cases, by title.
        organ: also try how well the organ is found without its mask.
    """

    data: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    region: Mapping[str, Any]
    trainings: Sequence[Mapping[str, Any]] = ()
    shared: Mapping[str, Mapping[str, Any]] = {}
    case_settings: Mapping[str, Any] = {}
    decimals: int = 3
    overlays: Sequence[str] = ()
    folds: int = 0
    left_out: Mapping[str, Sequence[str]] = {}
    organ: bool = False

    def data_sets(self) -> list[str]:
        """Return the names of the data sets that are tried, one after another."""
        return [f"{name} {fold}" for name in self.data for fold in range(self.folds)] if self.folds else list(self.data)


def patients_study(
    plans: Mapping[str, Mapping[str, Any]],
    configs: Callable[..., ConfigParser],
    run: Run,
    folder: Path,
    num_patients: int | None = None,
    num_seeds: int = 1,
    num_rows: int | None = None,
    num_bootstraps: int = NUM_BOOTSTRAPS,
) -> None:
    """Write the tables as CSV, and ``report.html``; trainings and answers that are there are not made again.

    Args:
        plans: by the name of a bundle, see ``PatientsPlan``; those of several bundles come to one table.
        configs: (bundle, names of configs, keys that are set) -> parser.
        run: see ``Run``.
        folder: with the data sets.
        num_patients: of each split, the first ones; all by default.
        num_seeds: of what draws.
        num_rows: of each bundle, the first ones; all by default.
        num_bootstraps: of the intervals.

    Raises:
        ValueError: if no row is a control.
    """
    if not any(row.get("control") for fields in plans.values() for row in fields["rows"][:num_rows]):
        raise ValueError("expected a row without a network, to compare the others with; take more rows.")
    tested: Records = {}
    judged: Records = {}
    controls: list[str] = []
    left_out: dict[str, Sequence[str]] = {}
    organs: list[Row] = []
    sections: list[Section] = []
    for bundle, fields in plans.items():
        plan = PatientsPlan(**fields)
        left_out |= plan.left_out
        compared = methods(plan.rows[:num_rows], plan.shared)
        known = DetectionPlan(plan.region, plan.rows, (), plan.shared, plan.case_settings, decimals=plan.decimals)
        for name in plan.data_sets():
            own = _of_fold(bundle, plan, compared, configs, run, folder, name)
            study = DetectionStudy(own, known, folder)
            learnt, cases = (study.cases(name, split, num_patients) for split in ("validation", "testing"))
            of_validation = study.examine(compared, learnt, f"validation {name}", 1)
            fitted = {row: best_of_patients(records[0]) for row, records in of_validation.items()}
            found = study.examine(compared, cases, f"testing {name}", num_seeds, fitted)
            _put_together(judged, of_validation)
            _put_together(tested, found)
            organs += organs_found(own, cases, folder / "answers" / f"organs {name}") if plan.organ else []
            controls += [row for method in compared if method.control for row in rows_of(method, study.radius)]
            panels = study.panels(compared, cases, f"testing {name}", next(iter(found.values()))[0])
            sections.append(Section(f"{bundle}, {name}: highest, median and lowest AP", pictures=panels))
    reference = max(controls, key=lambda row: statistics_of(judged[row])["ap"](np.ones(len(judged[row][0]))))
    tables = []
    for title, without in {"all patients": (), **left_out}.items():
        kept = {row: [[r for r in seed if r.case not in without] for seed in seeds] for row, seeds in tested.items()}
        table = compare(kept, reference, num_bootstraps)
        write_csv(folder / f"{title.replace(' ', '_')}.csv", table)
        tables.append(Section(title, [explanation(kept, reference)], [on_page(row) for row in table]))
    if organs:
        write_csv(folder / "organs.csv", organs)
        mean = mean_of_cases([row["dice"] for row in organs])
        shown = {"case": "mean", **with_interval("dice", mean, [row["case"] for row in organs])}
        tables.append(Section("The organ, found by the network", rows=[on_page(shown), *organs]))
    write_page(folder / "report.html", f"Study of {', '.join(plans)} on real patients", [*tables, *sections], NOTICE)
    print(f"report: {folder / 'report.html'}")


def _of_fold(
    bundle: str,
    plan: PatientsPlan,
    compared: Sequence[Method],
    configs: Callable[..., ConfigParser],
    run: Run,
    folder: Path,
    name: str,
) -> Configs:
    """Train what the rows of a fold need, and return the configs of the bundle with these weights."""
    weights: dict[str, Path] = {}
    needed = {trained_by(method.config) for method in compared}
    for training in plan.trainings:
        config, own = training["config"], folder / "trainings" / name / f"{bundle} {training['config']}"
        weights[config] = own / "model.pt"
        if config in needed and not weights[config].is_file():
            first = Path(configs(bundle, config).get_parsed_content("model_path"))
            settings = {"dataset_dir": folder / name, **training.get("settings", {})}
            train_parts(run, bundle, (config, *plan.overlays), training.get("parts", ()), first, own, settings)

    def of_fold(config: str, **settings: Any) -> ConfigParser:
        trained = weights.get(trained_by(config))
        own = {"model_path": str(trained)} if trained else {}
        return configs(bundle, config, *plan.overlays, **own, **settings)

    return of_fold


def trained_by(config: str) -> str:
    """Return the name of the config that trains the weights of another one; one that stands alone trains its own."""
    return "train" if config == "inference" else config


def organs_found(configs: Configs, cases: Sequence[Case], folder: Path) -> list[Row]:
    """Return the Dice of each case's organ, as it is found without its mask.

    Args:
        configs: of the bundle.
        cases: with the mask, on the config's grid.
        folder: where answers are kept.
    """
    channel = configs("inference").get_parsed_content("inferer").channels.index("organ")
    answer = Answers(configs, Method("organ"), folder, channel, {})
    alone = [case._replace(inputs=case.inputs[:, :1]) for case in cases]
    return [{"case": case.name, "dice": dice(answer(case) > 0, case.organ)} for case in alone]


def _put_together(all_folds: Records, fold: Records) -> None:
    """Add the records of a fold to those of all, seed by seed."""
    for row, seeds in fold.items():
        known = all_folds.setdefault(row, [[] for _ in seeds])
        for records, more in zip(known, seeds, strict=True):
            records += more


def best_of_patients(records: Sequence[CaseRecord]) -> float:
    """Return the threshold of the largest mean of the patients' Dice."""
    curves = [pool_pixels([record]).curve() for record in records]
    choices = np.unique(np.concatenate([curve.thresholds for curve in curves]))
    dice = [np.nanmean([curve.dice_at(float(threshold)) for curve in curves]) for threshold in choices]
    return float(choices[int(np.argmax(dice))])


def statistics_of(seeds: Sequence[Sequence[CaseRecord]]) -> dict[str, Statistic]:
    """Return the columns of the table; means over patients are of those with lesions."""

    def mean_over_patients(key: str) -> Statistic:
        return over_seeds(lambda rs: mean_of_cases([r.row[key] if r.row["lesions"] else np.nan for r in rs]))

    def over_seeds(of: Callable[[Sequence[CaseRecord]], Statistic]) -> Statistic:
        return mean_of([of(records) for records in seeds])

    def pooled(metric: str) -> Callable[[Sequence[CaseRecord]], Statistic]:
        def of(records: Sequence[CaseRecord]) -> Statistic:
            counts = pool_pixels(records)
            return lambda weights: float(getattr(counts.curve(weights), metric)())

        return of

    return {
        "ap": mean_over_patients("ap"),
        "auroc": mean_over_patients("auroc"),
        "dice": mean_over_patients("dice"),
        "dice_best_threshold_of_each_patient": mean_over_patients("dice_best_threshold_of_this_test"),
        "pooled_ap": over_seeds(pooled("average_precision")),
        "pooled_auroc": over_seeds(pooled("auroc")),
        **{f"ap_of_slices_{size}": over_seeds(partial(_ap_of_slices, bounds)) for size, bounds in SIZES.items()},
        "mask_cm2_in_slices_without_lesion": over_seeds(partial(slice_mean, key="mask_cm2", diseased=False)),
        "map_in_slices_without_lesion": over_seeds(partial(slice_mean, key="mean_score", diseased=False)),
    }


def _ap_of_slices(bounds: tuple[float, float], records: Sequence[CaseRecord]) -> Statistic:
    """Return the mean AP of the slices with so many pixels of lesion."""
    low, high = bounds
    return mean_of_slices([[s["ap"] for s in r.slice_rows if low <= s["lesion_pixels"] < high] for r in records])


def compare(found: Records, reference: str, num_bootstraps: int) -> list[Row]:
    """Return the table: a row a method, with intervals, and with what it is ahead of one of them."""
    patients = [record.patient for record in next(iter(found.values()))[0]]
    theirs, table = statistics_of(found[reference]), []
    for name, seeds in found.items():
        row: Row = {"method": name}
        own = statistics_of(seeds)
        for metric, statistic in own.items():
            row |= with_interval(metric, statistic, patients, num_bootstraps)
        for metric in ("ap", "dice"):
            ahead = difference(own[metric], theirs[metric])
            row |= with_interval(f"{metric}_ahead", ahead, patients, num_bootstraps)
        table.append(row)
    return table


def explanation(found: Mapping[str, Iterable[Sequence[CaseRecord]]], reference: str) -> str:
    """Return what is to be known of the table."""
    records = next(iter(next(iter(found.values()))))
    diseased = sum(bool(record.row["lesions"]) for record in records)
    return (
        f"{len(records)} patients, {diseased} with lesions, tried by what was trained without them; 95 % intervals "
        "over patients. AP, AUROC and Dice are means over those with lesions; thresholds are fitted on other patients; "
        f"'ahead' is of {reference}, the best row without a network on validation patients, patients drawn alike."
    )
