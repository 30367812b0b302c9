"""Anomaly maps compared on patients, each tried by what was trained without them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from ..files import write_csv
from ..metrics.detection import CaseRecord
from ..metrics.intervals import with_interval
from ..metrics.overlap import dice
from ..metrics.statistics import Row, mean_of_cases
from ..report.page import Section, write_page
from .answers import Answers
from .cases import Case, Configs
from .detection import DetectionPlan, DetectionStudy, Records
from .patient_tables import Counted, best_of_patients, compare, explanation, mean_ap, of_validation, terciles
from .plan import Method, methods, pairs_of, rows_of
from .slabs import write_slabs
from .tables import NUM_BOOTSTRAPS, costs_picture, on_page, paired_rows
from .training import Run, train_parts

NOTICES = {
    "real patients": "Real patients: for the eyes of those who may see them. For research, not for diagnosis.",
    "phantoms": "Synthetic images, no patients.",
}
"""On the page, by whom it is about."""


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
        overlaps: see ``DetectionPlan``.
        decimals: see ``DetectionPlan``.
        overlays: names of configs over all others.
        folds: of the patients; each is a data set ``<name> <fold>``. 0: the data set is one.
        left_out: further tables without some cases, by title.
        by_site: further tables of each site that has ``MIN_PATIENTS``.
        sizes: see ``Counted``, None for no end; by default thirds of the slices with lesions.
        position: also try a map that is highest in the middle of a stack, and is the same for all images.
        organ: also try how well the organ is found without its mask.
        made: further tables of lesions that are put into scans of the cases for testing, see ``Made``, by title.
        tuning: rows of settings that are tried on validation patients.
    """

    data: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    region: Mapping[str, Any]
    trainings: Sequence[Mapping[str, Any]] = ()
    shared: Mapping[str, Mapping[str, Any]] = {}
    case_settings: Mapping[str, Any] = {}
    overlaps: bool = False
    decimals: int = 3
    overlays: Sequence[str] = ()
    folds: int = 0
    left_out: Mapping[str, Sequence[str]] = {}
    by_site: bool = False
    sizes: Mapping[str, Sequence[float | None]] = {}
    position: bool = False
    organ: bool = False
    made: Mapping[str, Mapping[str, Any]] = {}
    tuning: Sequence[Mapping[str, Any]] = ()

    def data_sets(self) -> list[str]:
        """Return the names of the data sets that are tried, one after another."""
        return [f"{name} {fold}" for name in self.data for fold in range(self.folds)] if self.folds else list(self.data)


class Made(NamedTuple):
    """How lesions of known place come into scans: into slabs without lesion of a fold's cases for testing.

    Attributes:
        bundle: that puts them there, and can ``write_dataset``.
        overlays: names of configs over its ``inference.json``.
        settings: keys of it.
        min_slices: of a slab, see ``write_slabs``.
    """

    bundle: str
    overlays: Sequence[str] = ()
    settings: Mapping[str, Any] = {}
    min_slices: int = 10

    def write(self, run: Run, src: Path, dst: Path) -> None:
        """Write a data set with the lesions, of the cases of another one, if it is not there yet."""
        if (dst / "dataset.json").is_file():
            return
        slabs = dst / "slabs"
        write_slabs(src, slabs, self.min_slices)
        folders = {"dataset_dir": slabs, "output_dir": dst, "dataset_split": "testing"}
        run(self.bundle, "inference", *self.overlays, run_id="write_dataset", **folders, **self.settings)


class Tested:
    """What the rows of all bundles and folds say of cases.

    Attributes:
        records: by row.
        depths: number of slices of each case.
    """

    def __init__(self) -> None:
        self.records: Records = {}
        self.depths: dict[str, int] = {}

    def add(self, found: Records, cases: Sequence[Case]) -> None:
        """Add the records of further cases."""
        _put_together(self.records, found)
        self.depths |= {case.name: case.image.shape[-1] for case in cases}

    def counted(self, sizes: Mapping[str, tuple[float, float]]) -> Counted:
        """Return how slices are counted; without sizes by thirds of those with lesions."""
        return Counted(self.depths, sizes or terciles(next(iter(self.records.values()))[0]))


class Tried:
    """What the rows of all bundles and folds say.

    Args:
        run: see ``Run``.
        num_patients: see ``patients_study``.
        num_seeds: the same.

    Attributes:
        judged: records of validation patients, by row.
        tested: what is said of patients that are tested on.
        made: the same of lesions that were put into them, by title.
        controls: rows that nothing of was learnt.
        pairs: rows by one that is also compared with another, and that one.
        organs: Dice of each case's organ, see ``organs_found``.
        sections: pictures.
    """

    def __init__(self, run: Run, num_patients: int | None, num_seeds: int) -> None:
        self.run, self.num_patients, self.num_seeds = run, num_patients, num_seeds
        self.judged: Records = {}
        self.tested = Tested()
        self.made: dict[str, Tested] = {}
        self.controls: dict[str, None] = {}
        self.pairs: dict[str, str] = {}
        self.organs: list[Row] = []
        self.sections: list[Section] = []

    def add(
        self, bundle: str, name: str, plan: PatientsPlan, compared: Sequence[Method], study: DetectionStudy
    ) -> None:
        """Try the rows of a bundle on a data set; their thresholds are fitted on its validation patients.

        Args:
            bundle: its name.
            name: of the data set.
            plan: of the bundle.
            compared: the methods of the rows.
            study: with the weights of this data set.
        """
        learnt, judged = self.judge(name, compared, study)
        cases = study.cases(name, "testing", self.num_patients)
        fitted = {row: best_of_patients(records[0]) for row, records in judged.items()}
        found = study.examine(compared, cases, f"testing {name}", self.num_seeds, fitted)
        self.tested.add(found, cases)
        if plan.position:
            limits = {POSITION: best_of_patients(by_place(study, learnt, {}))}
            self.tested.add({POSITION: [by_place(study, cases, limits)]}, cases)
        for title, fields in plan.made.items():
            own = f"{title} {name}"
            Made(**fields).write(self.run, study.folder / name, study.folder / own)
            with_lesions = study.cases(own, "testing", self.num_patients)
            of_made = study.examine(compared, with_lesions, f"testing {own}", self.num_seeds, fitted)
            self.made.setdefault(title, Tested()).add(of_made, with_lesions)
        self.pairs |= pairs_of(compared, study.radius)
        for method in compared:
            self.controls |= dict.fromkeys(rows_of(method, study.radius) if method.control else ())
        if plan.organ:
            self.organs += organs_found(study.configs, cases, study.folder / "answers" / f"organs {name}")
        panels = study.panels(compared, cases, f"testing {name}", next(iter(found.values()))[0])
        self.sections.append(Section(f"{bundle}, {name}: highest, median and lowest AP", pictures=panels))

    def judge(self, name: str, compared: Sequence[Method], study: DetectionStudy) -> tuple[list[Case], Records]:
        """Try rows on the validation patients of a data set, and return these and what was found."""
        cases = study.cases(name, "validation", self.num_patients)
        found = study.examine(compared, cases, f"validation {name}", 1)
        _put_together(self.judged, found)
        return cases, found


POSITION = "position in the stack alone"
MIN_PATIENTS = 4
"""Of a site, for a table of its own."""


def patients_study(
    plans: Mapping[str, Mapping[str, Any]],
    configs: Callable[..., ConfigParser],
    run: Run,
    folder: Path,
    num_patients: int | None = None,
    num_seeds: int = 1,
    num_rows: int | None = None,
    num_bootstraps: int = NUM_BOOTSTRAPS,
    tune: bool = False,
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
        tune: compare settings on validation patients instead, and write ``tuning.csv``.

    Raises:
        ValueError: if no row is a control.
    """
    parsed = {bundle: PatientsPlan(**fields) for bundle, fields in plans.items()}
    if tune:
        parsed = {bundle: plan._replace(rows=plan.tuning) for bundle, plan in parsed.items() if plan.tuning}
    elif not any(row.get("control") for fields in plans.values() for row in fields["rows"][:num_rows]):
        raise ValueError("expected a row without a network, to compare the others with; take more rows.")
    tried = Tried(run, num_patients, num_seeds)
    for bundle, plan in parsed.items():
        compared = methods(plan.rows[:num_rows], plan.shared)
        known = DetectionPlan(
            plan.region, plan.rows, (), plan.shared, plan.case_settings, overlaps=plan.overlaps, decimals=plan.decimals
        )
        for name in plan.data_sets():
            own = _of_fold(bundle, plan, compared, configs, run, folder, name)
            study = DetectionStudy(own, known, folder)
            if tune:
                tried.judge(name, compared, study)
            else:
                tried.add(bundle, name, plan, compared, study)
    if tune:
        write_csv(folder / "tuning.csv", tuned(tried.judged))
        print(f"settings: {folder / 'tuning.csv'}")
        return
    sections = [*tables_of(tried, list(parsed.values()), folder, num_bootstraps), *tried.sections]
    data = next(iter(parsed.values())).data.values()
    whom = "real patients" if any("real" in options for options in data) else "phantoms"
    write_page(folder / "report.html", f"Study of {', '.join(plans)} on {whom}", sections, NOTICES[whom])
    print(f"report: {folder / 'report.html'}")


def tuned(judged: Records) -> list[Row]:
    """Return a row for each setting without intervals, that of the highest mean AP first."""
    rows = [{"settings": name, **of_validation(records)} for name, (records,) in judged.items()]
    return sorted(rows, key=lambda row: -row["ap"])


def tables_of(tried: Tried, plans: Sequence[PatientsPlan], folder: Path, num_bootstraps: int) -> list[Section]:
    """Write the tables of a study as CSV, and return them for its page.

    Args:
        tried: what all rows say.
        plans: of all bundles.
        folder: of the tables.
        num_bootstraps: of the intervals.
    """
    first = plans[0]
    sizes = {size: (low or 0, high or np.inf) for size, (low, high) in first.sizes.items()}
    counted = tried.tested.counted(sizes)

    def validated(row: str) -> float:
        seeds = tried.judged[row]
        return mean_ap(seeds)(np.ones(len(seeds[0])))

    reference, tested = max(tried.controls, key=validated), tried.tested
    left_out = {title: cases for plan in plans for title, cases in plan.left_out.items()}
    sites = sites_of([folder / name / "dataset.json" for name in first.data_sets()]) if first.by_site else {}
    everyone = set(tested.depths)
    shown = {"all patients": everyone}
    shown |= {title: everyone - set(cases) for title, cases in left_out.items()}
    of_sites = {f"site {site}": cases & everyone for site, cases in sites.items()}
    shown |= {title: cases for title, cases in of_sites.items() if len(cases) >= MIN_PATIENTS}
    tables = []

    def add(title: str, records: Records, counted: Counted) -> None:
        table = compare(records, reference, counted, num_bootstraps)
        write_csv(folder / f"{title.replace(' ', '_')}.csv", table)
        pictures = [costs_picture(table, {"ap": "AP", "dice": "Dice"})]
        tables.append(Section(title, [explanation(records, reference)], [on_page(row) for row in table], pictures))

    for title, cases in shown.items():
        kept = {row: [[r for r in seed if r.case in cases] for seed in seeds] for row, seeds in tested.records.items()}
        add(title, kept, counted)
    for title, made in tried.made.items():
        add(title, made.records, made.counted(sizes))
    pairs = paired_rows(
        tried.pairs, tested.records, lambda both: compare(both, next(iter(both)), counted, num_bootstraps)
    )
    if pairs:
        write_csv(folder / "pairs.csv", pairs)
        tables.append(Section("Pairs: 'ahead' is of the row under 'against'", rows=[on_page(row) for row in pairs]))
    if tried.organs:
        write_csv(folder / "organs.csv", tried.organs)
        mean = mean_of_cases([row["dice"] for row in tried.organs])
        summary = {"case": "mean", **with_interval("dice", mean, [row["case"] for row in tried.organs])}
        tables.append(Section("The organ, found by the network", rows=[on_page(summary), *tried.organs]))
    return tables


def middle_of_stack(case: Case) -> NDArray[np.float32]:
    """Return a map that is 1 in the middle of a stack and 0 at its ends, whatever the image."""
    depth = case.image.shape[-1]
    height = 1 - np.abs(2 * (np.arange(depth) + 0.5) / depth - 1)
    return np.broadcast_to(height, case.image.shape).astype(np.float32)


def by_place(study: DetectionStudy, cases: Sequence[Case], thresholds: Mapping[str, float]) -> list[CaseRecord]:
    """Return the records of cases as ``middle_of_stack`` finds their lesions."""
    return [study.record(middle_of_stack, {POSITION: [0]}, thresholds, case)[POSITION] for case in cases]


def sites_of(lists: Iterable[Path]) -> dict[str, set[str]]:
    """Return the cases for testing of each site, by its name."""
    found: dict[str, set[str]] = {}
    for path in lists:
        for item in json.loads(path.read_text())["testing"]:
            found.setdefault(str(item["site"]), set()).add(item["case"])
    return dict(sorted(found.items()))


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
