"""Trainings compared: one network taught by other data or in other ways, several seeds each, on the same patients."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed

from ..files import read_csv, write_csv
from ..metrics.intervals import with_interval
from ..metrics.statistics import Record, Row, Statistic, difference, mean_of
from ..metrics.tumours import tumour_statistics
from ..paths import bundle_root
from ..report.page import Section, write_page
from .tables import NUM_BOOTSTRAPS, on_page

METRICS = {
    "dsc": "DSC",
    "nsd": "NSD at 2 mm",
    "early": "sensitivity, tumours of at most 20 mm",
    "early_10_percent": "sensitivity, tumours of at most 20 mm, 10% covered",
    "found": "sensitivity, all tumours",
    "false_positives": "false positives a scan",
}
"""Columns of the table."""

COMPARED = ("dsc", "nsd", "early")
"""Those that have a column for what the last arm is ahead."""

Run = Callable[..., None]
"""Runs a bundle: (its name, names of configs, later ones over earlier ones, and keys that are set)."""


class Arm(NamedTuple):
    """A way of training.

    Attributes:
        name: of the row.
        train: data set that is learnt from.
        tests: data sets whose testing cases are tried.
        settings: keys of ``train.json``.
        seeds: trainings; None takes as many as the plan says.
        synthesizer: name of one that is trained first; empty takes the one that comes with the bundle.
    """

    name: str
    train: str
    tests: Sequence[str]
    settings: Mapping[str, Any] = {}
    seeds: int | None = None
    synthesizer: str = ""


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
        settings: keys of ``train.json`` of all arms.
        evaluation: keys of ``inference.json``.
        seeds: trainings of each arm.
        synthesizers: see ``Synthesizer``, by name.
    """

    data: Mapping[str, Mapping[str, Any]]
    arms: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = {}
    evaluation: Mapping[str, Any] = {}
    seeds: int = 3
    synthesizers: Mapping[str, Mapping[str, Any]] = {}


def training_study(
    name: str,
    run: Run,
    plan: Mapping[str, Any],
    folder: Path,
    num_rows: int | None = None,
    num_seeds: int | None = None,
    num_bootstraps: int = NUM_BOOTSTRAPS,
    num_jobs: int = 1,
) -> None:
    """Write ``study.csv`` and ``report.html``; trainings and trials that are there are not run again.

    Args:
        name: of the bundle.
        run: see ``Run``.
        plan: see ``TrainingPlan``.
        folder: with the data sets; each training has a folder in it.
        num_rows: arms, the first ones; all by default.
        num_seeds: of each arm, at the most.
        num_bootstraps: of the intervals.
        num_jobs: trainings at once.
    """
    fields = TrainingPlan(**plan)
    arms = [Arm(**arm) for arm in fields.arms[:num_rows]]
    seeds = {arm.name: range(min(arm.seeds or fields.seeds, num_seeds or fields.seeds)) for arm in arms}
    at_once = Parallel(num_jobs, prefer="threads")
    wanted = dict.fromkeys(arm.synthesizer for arm in arms if arm.synthesizer)
    made = {each: Synthesizer(**fields.synthesizers[each]) for each in wanted}
    at_once(delayed(_train_synthesizer)(run, made[each], folder, folder_of(folder, each)) for each in made)
    jobs = [delayed(_train_and_try)(name, run, fields, arm, seed, folder) for arm in arms for seed in seeds[arm.name]]
    at_once(jobs)
    table: list[Row] = []
    for test in dict.fromkeys(test for arm in arms for test in arm.tests):
        found = {
            arm.name: [records_of(folder_of(folder, arm.name, seed) / test) for seed in seeds[arm.name]]
            for arm in arms
            if test in arm.tests
        }
        table += [{"test": test, **row} for row in compare(found, num_bootstraps)]
    write_csv(folder / "study.csv", table)
    sections = [
        Section(test, [EXPLANATION], [on_page(row) for row in table if row["test"] == test])
        for test in dict.fromkeys(row["test"] for row in table)
    ]
    write_page(folder / "report.html", f"Study of {name} on phantoms", sections, "Synthetic images, no patients.")
    print(f"report: {folder / 'report.html'}")


EXPLANATION = (
    "Patients that nothing was trained on; means over seeds, 95 % intervals over patients; std: over the seeds. "
    "Differences: the last row minus this one, patients drawn alike."
)


def folder_of(folder: Path, name: str, seed: int | None = None) -> Path:
    """Return where the trainings of an arm, or of a synthesizer, lie."""
    own = folder / "".join(c if c.isalnum() else "_" for c in name)
    return own if seed is None else own / f"seed_{seed}"


def _train_synthesizer(run: Run, synthesizer: Synthesizer, folder: Path, own: Path) -> None:
    model, shipped = own / "model.pt", Path(bundle_root(synthesizer.bundle)) / "models" / "model.pt"
    if model.is_file():
        return
    unfinished = own / "training" / "model.pt"
    if not unfinished.is_file():
        unfinished.parent.mkdir(parents=True)
        shutil.copyfile(shipped, unfinished)
    options = {**synthesizer.settings, "resume": True, "run_id": f"train_{synthesizer.part}"}
    paths = {"output_dir": unfinished.parent, "model_path": unfinished}
    run(synthesizer.bundle, "train", dataset_dir=folder / synthesizer.train, **paths, **options)
    shutil.copyfile(unfinished, model)


def _train_and_try(name: str, run: Run, plan: TrainingPlan, arm: Arm, seed: int, folder: Path) -> None:
    own = folder_of(folder, arm.name, seed)
    model = own / "model.pt"
    if not model.is_file():
        settings = {**plan.settings, **arm.settings, "seed": seed, "resume": True, "train_parts": "all"}
        if arm.synthesizer:
            settings["synthesizer_path"] = folder_of(folder, arm.synthesizer) / "model.pt"
        run(name, "train", dataset_dir=folder / arm.train, output_dir=own / "training", model_path=model, **settings)
    for test in arm.tests:
        if not (own / test / "per_patient.csv").is_file():
            options = {"num_bootstraps": 0, **plan.evaluation, "model_path": model, "output_dir": own / test}
            run(name, "inference", "evaluate", dataset_dir=folder / test, **options)


def records_of(folder: Path) -> list[Record]:
    """Return the records of an evaluation from its tables."""
    rows = _read(folder / "per_patient.csv")
    tumours = _read(folder / "per_tumour.csv") if (folder / "per_tumour.csv").is_file() else []
    return [
        Record(row["case"], row["patient"], row, [one for one in tumours if one["case"] == row["case"]]) for row in rows
    ]


def _read(path: Path) -> list[Row]:
    return [{name: _number(value) for name, value in row.items()} for row in read_csv(path)]


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def compare(found: Mapping[str, Sequence[Sequence[Record]]], num_bootstraps: int) -> list[Row]:
    """Return the table: a row an arm, with intervals, and with what the last one is ahead of it.

    Args:
        found: by the name of an arm, for each seed the records of all cases.
        num_bootstraps: of the intervals.
    """
    patients = [record.patient for record in next(iter(found.values()))[0]]
    statistics = {name: [tumour_statistics(run) for run in runs] for name, runs in found.items()}

    def number(name: str, metric: str) -> Statistic:
        return mean_of([run[METRICS[metric]] for run in statistics[name]])

    table, last, once = [], list(found)[-1], np.ones(len(patients))
    for name in found:
        row: Row = {"arm": name, "seeds": len(found[name])}
        for metric, title in METRICS.items():
            row |= with_interval(metric, number(name, metric), patients, num_bootstraps)
            row[f"{metric}_std"] = float(np.std([run[title](once) for run in statistics[name]]))
        for metric in COMPARED:
            ahead = difference(number(last, metric), number(name, metric))
            row |= with_interval(f"{metric}_difference", ahead, patients, num_bootstraps)
        table.append(row)
    return table
