"""Trainings compared: one network taught by other data or in other ways, several seeds each, on the same patients."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from monai.utils import ensure_tuple
from numpy.typing import NDArray

from ..checkpoints import read_data, read_weights, save_atomically
from ..files import read_csv, write_csv, write_text
from ..metrics.classification import ClassRecord, area_under_roc, class_statistics, examine_class
from ..metrics.statistics import Record, Row, Statistic, mean_of, mean_of_cases, mean_of_column, within
from ..metrics.tumours import tumour_statistics
from ..metrics.twins import TWIN_TITLES, twin_statistics
from ..paths import bundle_root
from ..report.page import Section, write_page
from .controls import write_by_column, write_harmonised
from .tables import NUM_BOOTSTRAPS, compared_rows, on_page

MADE_FROM = "made_from.txt"
"""Beside an evaluation's tables: a digest of what they were made from; with another one they are made again."""


class Measures(NamedTuple):
    """What is measured of a test.

    Attributes:
        titles: of the columns, by their names.
        compared: names of those that have a column for what one arm is ahead of the others.
        statistics: of the records of a test, by title.
        records: those of all cases, from the folder that an evaluation has written.
        configs: names of the configs that evaluate.
    """

    titles: Mapping[str, str]
    compared: Sequence[str]
    statistics: Callable[[Sequence[Any]], Mapping[str, Statistic]]
    records: Callable[[Path], list[Any]]
    configs: Sequence[str]


Run = Callable[..., None]
"""Runs a bundle: (its name, names of configs, later ones over earlier ones, and keys that are set)."""


class Arm(NamedTuple):
    """A way of training.

    Attributes:
        name: of the row.
        train: data set that is learnt from; empty tries the weights that come with the bundle.
        tests: data sets whose testing cases are tried.
        settings: keys of ``train.json``.
        seeds: trainings; None takes as many as the plan says.
        synthesizer: name of one that is trained first; empty takes the one that comes with the bundle.
        harmonised: name of an arm whose network makes the vectors that ComBat adjusts and a linear classifier learns
            from, in place of a training.
        column: of a list of cases, whose numbers a linear classifier learns from, in place of a training; of the sites
            that ``target_sites`` of the settings says.
        config: that trains, in place of ``train.json``; overlays then lie over ``inference.json`` alone.
        overlays: see ``TrainingPlan``; these are the arm's own.
        tried: keys of ``inference.json``.
    """

    name: str
    train: str
    tests: Sequence[str]
    settings: Mapping[str, Any] = {}
    seeds: int | None = None
    synthesizer: str = ""
    harmonised: str = ""
    column: str = ""
    config: str = "train"
    overlays: Sequence[str] = ()
    tried: Mapping[str, Any] = {}


class Synthesizer(NamedTuple):
    """A model of tumours that segmenters learn from.

    Attributes:
        bundle: that trains it.
        part: stage that is run; the others stay as they came with the bundle.
        train: data set that is learnt from.
        settings: keys of its ``train.json``.
    """

    bundle: str
    part: str
    train: str
    settings: Mapping[str, Any] = {}


class TrainingPlan(NamedTuple):
    """What is compared.

    Attributes:
        data: options of each data set that is drawn, by its name.
        arms: see ``Arm``; of those that are tried on a data set, the last one is compared with the others.
        reference: name of an arm that is compared instead.
        settings: keys of ``train.json`` of all arms; one with another ``config`` has its own alone.
        evaluation: keys of ``inference.json``.
        seeds: trainings of each arm.
        synthesizers: see ``Synthesizer``, by name.
        seeded: keys of both that are the seed.
        groups: of cases that are told apart by class, pairs of site and class by the group's name; a class of null is
            all. With groups classes are measured.
        last: try the last epoch of each training, too, in a row of its own.
        overlays: names of configs over ``train.json`` and ``inference.json``.
        part: stage that is run, with the other parts as they came with the bundle; empty trains all.
        fit: before the tests, the threshold of the masks is fitted on the validation cases of what was learnt from.
        measures: what is measured without groups, a name in ``MEASURES``.
        folds: of all patients; in place of a seed each training has a data set of its own, ``<name> <fold>``, and
            the cases that are tried are put together. 0: seeds share their data.
    """

    data: Mapping[str, Mapping[str, Any]]
    arms: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = {}
    evaluation: Mapping[str, Any] = {}
    seeds: int = 3
    synthesizers: Mapping[str, Mapping[str, Any]] = {}
    seeded: Sequence[str] = ("seed",)
    groups: Mapping[str, Sequence[Sequence[Any]]] = {}
    last: bool = False
    overlays: Sequence[str] = ()
    part: str = ""
    fit: bool = False
    measures: str = "tumours"
    folds: int = 0
    reference: str = ""

    def data_set(self, folder: Path, name: str, seed: int) -> Path:
        """Return the folder of a data set as the training of a seed has it."""
        return folder / (f"{name} {seed}" if self.folds else name)

    @property
    def measured(self) -> Measures:
        """What is measured."""
        return class_measures(self.groups) if self.groups else MEASURES[self.measures]

    def taught(self, arm: Arm) -> dict[str, Any]:
        """Return the keys of an arm's config."""
        return {**(self.settings if arm.config == "train" else {}), **arm.settings}

    def tested(self, seed: int) -> dict[str, Any]:
        """Return the keys of ``inference.json`` that go with the training of a seed."""
        return {**self.evaluation, **{key: seed for key in self.seeded if key != "seed"}}


def training_study(
    plans: Mapping[str, Mapping[str, Any]],
    run: Run,
    folder: Path,
    num_rows: int | None = None,
    rows: Sequence[int] | None = None,
    num_seeds: int | None = None,
    num_bootstraps: int = NUM_BOOTSTRAPS,
    num_jobs: int = 1,
) -> None:
    """Write ``study.csv`` and ``report.html``; trainings and trials that are there are not run again.

    Args:
        plans: by the name of a bundle, see ``TrainingPlan``; those of several bundles share data, and come to one
            table.
        run: see ``Run``.
        folder: with the data sets; each training has a folder in it.
        num_rows: arms of each bundle, the first ones; all by default.
        rows: numbers of the arms instead, from 0.
        num_seeds: of each arm, at the most.
        num_bootstraps: of the intervals.
        num_jobs: trainings at once.
    """
    parsed, found = {name: TrainingPlan(**fields) for name, fields in plans.items()}, Found()
    for name, plan in parsed.items():
        chosen = plan.arms[:num_rows] if rows is None else [plan.arms[row] for row in ensure_tuple(rows)]
        arms = [Arm(**arm) for arm in chosen]
        for where, records in _trained_and_tried(name, run, plan, arms, folder, num_seeds, num_jobs):
            found.setdefault(where, {}).update(records)
        if set(plan.seeded) != {"seed"}:
            num_bootstraps = 0  # seeds have patients of their own
    measures = next(iter(parsed.values())).measured
    reference = next((plan.reference for plan in parsed.values() if plan.reference), "")
    together = any(plan.folds for plan in parsed.values())
    table = [
        {"test": test, **row}
        for (test, _), compared in found.items()
        for row in compare(compared, measures, num_bootstraps, reference, together)
    ]
    write_csv(folder / "study.csv", table)
    sections = [
        Section(test, [EXPLANATION], [on_page(row) for row in table if row["test"] == test])
        for test in dict.fromkeys(row["test"] for row in table)
    ]
    write_page(folder / "report.html", f"Study of {', '.join(plans)}", sections, NOTICE)
    print(f"report: {folder / 'report.html'}")


Found = dict[tuple[str, str], dict[str, list[list[Record]]]]
"""By test and epoch: of each arm, for each seed the records of all cases."""


def _trained_and_tried(
    name: str, run: Run, plan: TrainingPlan, arms: Sequence[Arm], folder: Path, num_seeds: int | None, num_jobs: int
) -> Iterator[tuple[tuple[str, str], dict[str, list[list[Record]]]]]:
    """Yield what ``Found`` has of the arms of a bundle."""
    num_trainings = plan.folds or min(plan.seeds, num_seeds or plan.seeds)
    seeds = {arm.name: range(min(arm.seeds or num_trainings, num_trainings)) for arm in arms}
    at_once = Parallel(num_jobs, prefer="threads")
    wanted = dict.fromkeys(arm.synthesizer for arm in arms if arm.synthesizer)
    made = {each: Synthesizer(**plan.synthesizers[each]) for each in wanted}
    at_once(delayed(_train_synthesizer)(run, made[each], folder, folder_of(folder, each)) for each in made)
    train_and_try = partial(_train_and_try, name, run, plan)
    jobs = [(arm, seed) for seed in range(max(map(len, seeds.values()))) for arm in arms if seed in seeds[arm.name]]
    at_once(delayed(train_and_try)(arm, seed, folder) for arm, seed in jobs if not (arm.harmonised or arm.column))
    for arm, seed in jobs:
        if arm.harmonised:
            _harmonise_and_try(name, run, plan, arm, seed, folder)
        elif arm.column:
            _try_column(plan, arm, seed, folder)
    for test in dict.fromkeys(test for arm in arms for test in arm.tests):
        for epoch in ["", LAST] if plan.last else [""]:
            found = {
                f"{arm.name}{epoch}": [
                    plan.measured.records(folder_of(folder, arm.name, seed) / f"{test}{epoch}")
                    for seed in seeds[arm.name]
                ]
                for arm in arms
                if test in arm.tests
            }
            yield (test, epoch), found


LAST = ", last epoch"
NOTICE = "Trainings of networks, for research. Phantoms are synthetic images, no patients."

EXPLANATION = (
    "Patients that nothing was trained on; means over seeds, 95 % intervals over patients; std: over seeds or folds. "
    "Differences: the arm that is compared, by default the last, minus this one, patients drawn alike."
)


def folder_of(folder: Path, name: str, seed: int | None = None) -> Path:
    """Return where the trainings of an arm, or of a synthesizer, lie."""
    own = folder / "".join(c if c.isalnum() else "_" for c in name)
    return own if seed is None else own / f"seed_{seed}"


def _train_synthesizer(run: Run, synthesizer: Synthesizer, folder: Path, own: Path) -> None:
    if not (own / "model.pt").is_file():
        settings = {"dataset_dir": folder / synthesizer.train, **synthesizer.settings}
        train_parts(
            run, synthesizer.bundle, ("train",), [synthesizer.part], _weights_of(synthesizer.bundle), own, settings
        )


def _weights_of(name: str) -> Path:
    return Path(bundle_root(name)) / "models" / "model.pt"


def train_parts(
    run: Run,
    name: str,
    configs: Sequence[str],
    parts: Sequence[str],
    first: Path,
    own: Path,
    settings: Mapping[str, Any],
) -> None:
    """Train stages of a bundle, and write ``model.pt``; a training that was broken off goes on.

    Args:
        run: see ``Run``.
        name: of the bundle.
        configs: that train.
        parts: that are trained, one after another; empty trains all, afresh.
        first: weights that the other parts have, and that these begin with where ``finetune`` is set.
        own: folder that is written to.
        settings: keys of the configs.
    """
    if not parts:
        run(name, *configs, output_dir=own / "training", model_path=own / "model.pt", **settings, resume=True)
        return
    unfinished = own / "training" / "model.pt"
    if not unfinished.is_file():
        unfinished.parent.mkdir(parents=True)
        shutil.copyfile(first, unfinished)
    paths = {"output_dir": unfinished.parent, "model_path": unfinished}
    for part in parts:
        run(name, *configs, **paths, **settings, resume=True, run_id=f"train_{part}")
    shutil.copyfile(unfinished, own / "model.pt")


def _train_and_try(name: str, run: Run, plan: TrainingPlan, arm: Arm, seed: int, folder: Path) -> None:
    own, overlays = folder_of(folder, arm.name, seed), (*plan.overlays, *arm.overlays)
    models = _models(plan, own)
    if arm.train and not models[""].is_file():
        settings = {"dataset_dir": plan.data_set(folder, arm.train, seed), **plan.taught(arm)}
        settings |= dict.fromkeys(plan.seeded, seed)
        if arm.synthesizer:
            settings["synthesizer_path"] = folder_of(folder, arm.synthesizer) / "model.pt"
        configs = ("train", *overlays) if arm.config == "train" else (arm.config,)
        if arm.config == "train" and not plan.part:
            settings["train_parts"] = "all"
        train_parts(run, name, configs, [plan.part] if plan.part else [], _weights_of(name), own, settings)
    if plan.last and not models[LAST].is_file():
        (last,) = (own / "training" / "checkpoints").glob("*_last.pt")
        part = last.name.removesuffix("_last.pt")
        newest = {f"{part}.{key}": value for key, value in read_data(last, "a checkpoint")["model"].items()}
        save_atomically(read_weights(models[""]) | newest, models[LAST])
    first, *others = plan.measured.configs
    drawn = {"num_bootstraps": 0} if "evaluate" in others else {}  # intervals are those of the study

    def try_on(data: str, out: Path, weights: Sequence[Path], **more: Any) -> None:
        options, dataset = {**plan.tested(seed), **arm.tried, **more}, plan.data_set(folder, data, seed)
        made, known = partial(_made_from, options, [dataset / "dataset.json", *weights]), out / MADE_FROM
        if (out / "per_patient.csv").is_file() and known.is_file() and known.read_text() == made():
            return
        given = {"model_path": weights[0]} if arm.train else {}
        run(name, first, *overlays, *others, dataset_dir=dataset, **given, **options, **drawn, output_dir=out)
        write_text(known, made())  # a threshold that was fitted is in the weights now

    for epoch, model in models.items():
        weights = [model] if arm.train else sorted(_weights_of(name).parent.rglob("*.pt"))
        if plan.fit:
            try_on(arm.train, own / f"{arm.train}, validation{epoch}", weights, fit_threshold=True)
        for test in arm.tests:
            try_on(test, own / f"{test}{epoch}", weights)


def _made_from(options: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Return a digest of an evaluation's options and of the files that it reads, as far as they are there."""
    digest = hashlib.sha256(json.dumps(options, default=str, sort_keys=True).encode())
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _harmonise_and_try(name: str, run: Run, plan: TrainingPlan, arm: Arm, seed: int, folder: Path) -> None:
    """Write what a classifier of adjusted vectors says, in the tables that a trained network's evaluation has."""
    theirs, own = folder_of(folder, arm.harmonised, seed), folder_of(folder, arm.name, seed)
    for epoch, model in _models(plan, theirs).items():
        learnt = theirs / f"{arm.train}, training{epoch}"
        if not (learnt / "latents.npz").is_file():
            options = {**plan.tested(seed), "split": "training", "model_path": model, "output_dir": learnt}
            run(name, "inference", *plan.overlays, dataset_dir=plan.data_set(folder, arm.train, seed), **options)
        for test in arm.tests:
            write_harmonised(learnt, theirs / f"{test}{epoch}", own / f"{test}{epoch}")


def _try_column(plan: TrainingPlan, arm: Arm, seed: int, folder: Path) -> None:
    """Write what a classifier of a column says, in the same tables."""
    sites = plan.taught(arm)["target_sites"]
    learnt, own = plan.data_set(folder, arm.train, seed), folder_of(folder, arm.name, seed)
    for test in arm.tests:
        for epoch in _models(plan, own):
            write_by_column(learnt, plan.data_set(folder, test, seed), arm.column, sites, own / f"{test}{epoch}")


def _models(plan: TrainingPlan, own: Path) -> dict[str, Path]:
    """Return the weights of a training that are tried, by what stands behind the name of its row."""
    return {"": own / "model.pt", **({LAST: own / "last.pt"} if plan.last else {})}


def records_of(folder: Path, table: str = "per_tumour") -> list[Record]:
    """Return the records of an evaluation from its tables.

    Args:
        folder: that the evaluation has written.
        table: of what a case has several of, tumours or slices; it is not there where no case has any.
    """
    path = folder / f"{table}.csv"
    parts = _read(path) if path.is_file() else []
    return [
        Record(row["case"], row["patient"], row, [part for part in parts if part["case"] == row["case"]])
        for row in _read(folder / "per_patient.csv")
    ]


def _read(path: Path) -> list[Row]:
    return [{name: _number(value) for name, value in row.items()} for row in read_csv(path)]


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


TUMOURS = Measures(
    titles={
        "dsc": "DSC",
        "nsd": "NSD at 2 mm",
        "early": "sensitivity, tumours of at most 20 mm",
        "early_10_percent": "sensitivity, tumours of at most 20 mm, 10 % covered",
        "found": "sensitivity, all tumours",
        "false_positives": "false positives a scan",
    },
    compared=("dsc", "nsd", "early"),
    statistics=tumour_statistics,
    records=records_of,
    configs=("inference", "evaluate"),
)
"""Of masks against labels."""


def map_statistics(records: Sequence[Record]) -> dict[str, Statistic]:
    """Return the metrics of anomaly maps by title: means over patients, and over slices where it says so."""
    healthy = [[row for row in record.slice_rows if not row["diseased"]] for record in records]
    return {
        "AP": mean_of_cases([record.row["ap"] for record in records]),
        "Dice": mean_of_cases([record.row["dice"] for record in records]),
        "mask in healthy slices, cm²": mean_of_column(healthy, "mask_cm2"),
        "slices that the classifier takes for the other class": mean_of_column(
            [record.slice_rows for record in records], "misclassified"
        ),
    }


MAPS = Measures(
    titles={
        "ap": "AP",
        "dice": "Dice",
        "false_cm2": "mask in healthy slices, cm²",
        "misclassified": "slices that the classifier takes for the other class",
    },
    compared=("ap", "dice", "false_cm2", "misclassified"),
    statistics=map_statistics,
    records=partial(records_of, table="per_slice"),
    configs=("inference", "evaluate"),
)
"""Of anomaly maps against labels."""


TWINS = Measures(
    titles=TWIN_TITLES,
    compared=("difference_dice", "difference_auroc", "difference_mse", "difference_ssim"),
    statistics=lambda records: twin_statistics([record.row for record in records]),
    records=records_of,
    configs=("inference", "evaluate"),
)
"""Of differences against those of twins."""


def film_statistics(records: Sequence[Record]) -> dict[str, Statistic]:
    """Return how well films are told from normal ones, by their class and by their map.

    NaN where a method has none; one without a classifier calls all of them normal, for certain.
    """

    def column(*names: str) -> NDArray[np.float64]:
        return np.array([next((r.row[name] for name in names if name in r.row), np.nan) for r in records], dtype=float)

    label = column("diseased", "image_label").astype(int)
    change, probability = column("mean_score"), column("probability", "probability_1")
    found: dict[str, Statistic] = dict.fromkeys(FILMS.titles.values(), lambda weights: float("nan"))
    if not np.isnan(change).any():
        found["AUROC of the map"] = area_under_roc(label == 1, change)
        found["mean of the map, normal films"] = mean_of_cases(np.where(label == 0, change, np.nan))
    if np.nan_to_num(probability).any():
        said = zip(records, label.tolist(), probability.tolist(), strict=True)
        found |= class_statistics([examine_class(r.case, r.patient, y, np.array([1 - p, p])) for r, y, p in said])
    return found


FILMS = Measures(
    titles={
        "accuracy": "accuracy",
        "kappa": "kappa",
        "auroc": "AUROC",
        "map_auroc": "AUROC of the map",
        "normal_change": "mean of the map, normal films",
    },
    compared=("auroc", "map_auroc"),
    statistics=film_statistics,
    records=partial(records_of, table="per_slice"),
    configs=("inference", "evaluate"),
)
"""Of films of which nothing but their class is known."""


MEASURES = {"tumours": TUMOURS, "maps": MAPS, "twins": TWINS, "films": FILMS}
"""By what plans call it."""


def class_measures(groups: Mapping[str, Sequence[Sequence[Any]]]) -> Measures:
    """Return what is measured of the classes of whole cases, in groups of sites and classes.

    Args:
        groups: see ``TrainingPlan``.
    """
    metrics = {"accuracy": "accuracy", "kappa": "kappa", "auroc": "AUROC", "nearest": "accuracy by the nearest centre"}

    def statistics(records: Sequence[ClassRecord]) -> dict[str, Statistic]:
        found: dict[str, Statistic] = {}
        for group, cells in groups.items():
            inside = [any(r.site == site and k in (None, r.image_label) for site, k in cells) for r in records]
            own = [record for record, is_in in zip(records, inside, strict=True) if is_in]
            for metric, statistic in class_statistics(own).items():
                found[f"{group}: {metric}"] = within(statistic, inside)
        return found

    return Measures(
        titles={f"{group}_{name}": f"{group}: {metric}" for group in groups for name, metric in metrics.items()},
        compared=[f"{group}_{name}" for group in groups for name in ("accuracy", "auroc")],
        statistics=statistics,
        records=classes_of,
        configs=("inference",),
    )


def classes_of(folder: Path) -> list[ClassRecord]:
    """Return the records of cases whose class is known, from the tables of an evaluation."""
    patients = {row["case"]: row["patient"] for row in read_csv(folder / "per_patient.csv")}
    records = []
    for row in read_csv(folder / "predictions.csv"):
        if row["image_label"] != "":
            probability, away = (
                np.array([float(value) for name, value in row.items() if name.startswith(kind)])
                for kind in ("probability_", "distance_")
            )
            patient = patients[row["case"]]
            record = examine_class(row["case"], patient, int(row["image_label"]), probability, row["site"])
            records.append(replace(record, distance=away))
    return records


def compare(
    found: Mapping[str, Sequence[Sequence[Record]]],
    measures: Measures,
    num_bootstraps: int,
    reference: str = "",
    together: bool = False,
) -> list[Row]:
    """Return the table: a row an arm, with intervals, and with what one of them is ahead of it.

    Args:
        found: by the name of an arm, for each seed the records of all cases.
        measures: of them.
        num_bootstraps: of the intervals.
        reference: the arm that is compared with all others, by default the last.
        together: seeds are folds, whose cases are put together; only the spread is over them.
    """
    whole = {name: [[r for run in runs for r in run]] if together else runs for name, runs in found.items()}
    patients = [record.patient for record in next(iter(whole.values()))[0]]
    statistics = {name: [measures.statistics(run) for run in runs] for name, runs in whole.items()}
    apart = {name: [(measures.statistics(run), np.ones(len(run))) for run in runs] for name, runs in found.items()}

    def number(name: str, metric: str) -> Statistic:
        return mean_of([run[measures.titles[metric]] for run in statistics[name]])

    numbers = {name: {metric: number(name, metric) for metric in measures.titles} for name in found}
    compared = reference if reference in found else list(found)[-1]
    table = compared_rows("arm", numbers, patients, measures.compared, compared, num_bootstraps)
    for row in table:
        runs = apart[row["arm"]]
        spread = {m: float(np.std([run[title](once) for run, once in runs])) for m, title in measures.titles.items()}
        row |= {"seeds": len(runs), **{f"{metric}_std": value for metric, value in spread.items()}}
    return table
