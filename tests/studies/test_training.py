"""A study of trainings: what is run, and numbers that are those of the metrics."""

import csv
import json

import numpy as np
import pytest
import torch

from common.files import write_csv, write_text
from common.handlers.tumours import TumourScores
from common.metrics.tumours import examine_tumour_segmentation
from common.studies.training import TUMOURS, class_measures, classes_of, compare, records_of, training_study

SPACING = (2.0, 2.0, 2.0)
PLAN = {
    "data": {"one": {}, "other": {}},
    "arms": [
        {"name": "first", "train": "one", "tests": ["one", "other"]},
        {"name": "last, better", "train": "one", "tests": ["one"], "settings": {"good": True}, "seeds": 1},
    ],
    "settings": {"max_epochs": 3},
    "evaluation": {"overlap": 0.0},
    "seeds": 2,
}


def truth():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[2:6, 2:6, 2:6] = True
    return mask


def record(case, found):
    mask = truth()
    mask[2:6, 2:6, 2 + found :] = False
    return examine_tumour_segmentation(case, case, mask.astype(float), mask, truth(), SPACING)


class Bundle:
    """Trains by writing what it was told, and evaluates by finding the more of tumours the more it was taught."""

    def __init__(self):
        self.runs = []

    def __call__(self, bundle, *configs, **options):
        self.runs.append((configs, options))
        if bundle != "name":
            options["model_path"].write_text(options["width"])
            return
        if configs == ("train",):
            options["model_path"].parent.mkdir(parents=True, exist_ok=True)
            options["model_path"].write_text("4" if options.get("good") else str(1 + options["seed"]))
            return
        scores = TumourScores()
        scores.records = [record(case, int(options["model_path"].read_text())) for case in "ab"]
        scores.rows = [{"metric": "none"}]
        scores.write(options["output_dir"])


def test_each_arm_is_trained_and_tried_once_with_each_seed(tmp_path):
    bundle = Bundle()
    training_study({"name": PLAN}, bundle, tmp_path, num_bootstraps=20)
    trained = [options for configs, options in bundle.runs if configs == ("train",)]
    assert [(options["seed"], options.get("good", False)) for options in trained] == [(0, False), (0, True), (1, False)]
    assert all(options["max_epochs"] == 3 for options in trained)
    tried = [options["dataset_dir"].name for configs, options in bundle.runs if configs != ("train",)]
    assert tried == ["one", "other", "one", "one", "other"]
    training_study({"name": PLAN}, bundle, tmp_path, num_bootstraps=20)
    assert len(bundle.runs) == 8


def test_what_was_tried_with_other_weights_is_tried_again(tmp_path):
    bundle = Bundle()
    training_study({"name": PLAN}, bundle, tmp_path, num_bootstraps=20)
    first, *_ = (options for configs, options in bundle.runs if configs == ("train",))
    first["model_path"].write_text("3")
    training_study({"name": PLAN}, bundle, tmp_path, num_bootstraps=20)
    again = [options for _, options in bundle.runs[8:]]
    assert {options["model_path"] for options in again} == {first["model_path"]}
    assert {options["dataset_dir"].name for options in again} == set(PLAN["arms"][0]["tests"])


def test_some_arms_may_be_chosen(tmp_path):
    bundle = Bundle()
    training_study({"name": PLAN}, bundle, tmp_path, rows=[1], num_bootstraps=20)
    assert [options["seed"] for configs, options in bundle.runs if configs == ("train",)] == [0]
    assert (tmp_path / "study.csv").read_text().count("last, better") == 1


def test_the_table_has_means_over_seeds_and_what_the_last_arm_is_ahead(tmp_path):
    training_study({"name": PLAN}, Bundle(), tmp_path, num_bootstraps=20)
    with open(tmp_path / "study.csv", newline="", encoding="utf-8") as file:
        rows = {(row["test"], row["arm"]): row for row in csv.DictReader(file)}
    first, last = rows["one", "first"], rows["one", "last, better"]
    dice = [2 * found / (found + 4) for found in (1, 2)]
    assert float(first["dsc"]) == pytest.approx(np.mean(dice))
    assert float(first["dsc_std"]) == pytest.approx(np.std(dice))
    assert float(first["dsc_difference"]) == pytest.approx(1 - np.mean(dice))
    assert (float(last["dsc"]), float(last["dsc_difference"]), last["seeds"]) == (1, 0, "1")
    assert ("other", "first") in rows
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_tables_give_back_the_records(tmp_path):
    scores = TumourScores()
    scores.records = [record("a", 2), record("b", 0)]
    scores.rows = [{"metric": "none"}]
    scores.write(tmp_path)
    read = records_of(tmp_path)
    (direct,), (again,) = (compare({"arm": [records]}, TUMOURS, 20) for records in (scores.records, read))
    np.testing.assert_equal(again, direct)


def test_a_run_without_any_tumour_has_no_table_of_them(tmp_path):
    write_csv(tmp_path / "per_patient.csv", [record("a", 1).row])
    assert records_of(tmp_path)[0].slice_rows == []


def test_a_synthesizer_is_trained_once_for_all_arms_that_learn_from_it(tmp_path, monkeypatch):
    shipped = tmp_path / "other" / "models" / "model.pt"
    write_text(shipped, "as it came")
    monkeypatch.setattr("common.studies.training.bundle_root", lambda bundle: tmp_path / bundle)
    made = {"wide": {"bundle": "other", "part": "diffusion", "train": "other", "settings": {"width": "9"}}}
    arms = [{"name": name, "train": "one", "tests": ["one"], "synthesizer": "wide"} for name in "ab"]
    bundle, folder = Bundle(), tmp_path / "study"
    plan = {**PLAN, "arms": arms, "synthesizers": made, "seeds": 1}
    for _ in range(2):
        training_study({"name": plan}, bundle, folder, num_bootstraps=20)
    (first, *others) = [options for configs, options in bundle.runs if configs == ("train",)]
    assert (first["run_id"], first["dataset_dir"]) == ("train_diffusion", folder / "other")
    assert [options["synthesizer_path"].read_text() for options in others] == ["9", "9"]
    assert shipped.read_text() == "as it came"


class Guided:
    """Trains a part by writing its number, and evaluates maps that are the better the higher it is."""

    def __init__(self):
        self.runs = []

    def __call__(self, bundle, *configs, **options):
        self.runs.append((configs, options))
        if configs[0] == "train":
            assert options["model_path"].read_text() == "as it came"
            options["model_path"].write_text(options["good"])
            return
        good, out = float(options["model_path"].read_text()), options["output_dir"]
        rows = [{"case": case, "patient": case, "ap": good, "dice": good / 2} for case in "ab"]
        slices = [{"diseased": k, "mask_cm2": 4 - 4 * k, "misclassified": k} for k in (0, 0, 0, 1)]
        write_csv(out / "per_patient.csv", rows)
        write_csv(out / "per_slice.csv", [{"case": case, **each} for case in "ab" for each in slices])


def test_one_part_is_trained_and_its_threshold_fitted_before_maps_are_compared(tmp_path, monkeypatch):
    write_text(tmp_path / "name" / "models" / "model.pt", "as it came")
    monkeypatch.setattr("common.studies.training.bundle_root", lambda bundle: tmp_path / bundle)
    arms = [
        {"name": good, "train": "one", "tests": ["one", "other"], "settings": {"good": good}} for good in ("0.2", "0.6")
    ]
    plan = {
        "data": {},
        "arms": arms,
        "part": "guide",
        "measures": "maps",
        "fit": True,
        "overlays": ["over"],
        "seeds": 1,
    }
    bundle = Guided()
    training_study({"name": plan}, bundle, tmp_path / "study", num_bootstraps=20)
    (configs, first), (_, fitted), *tests = bundle.runs[:4]
    assert (configs, first["run_id"]) == (("train", "over"), "train_guide")
    assert fitted["fit_threshold"]
    assert [(configs, "fit_threshold" in options) for configs, options in tests] == [
        (("inference", "over", "evaluate"), False)
    ] * 2
    row = read_table(tmp_path / "study" / "study.csv")["0.2"]
    assert [float(row[name]) for name in ("ap", "dice", "false_cm2", "misclassified")] == [0.2, 0.1, 4, 0.25]
    assert float(row["ap_difference"]) == pytest.approx(0.4)


class Filming:
    """Films of two classes, by a map and a classifier, by a map alone, or by a classifier of other columns alone."""

    def __call__(self, bundle, *configs, **options):
        if configs == ("train",):
            options["model_path"].parent.mkdir(parents=True)
            options["model_path"].write_text(options["kind"])
            return
        rows = []
        for n, label in enumerate([0, 0, 0, 1, 1]):
            row = {"case": f"film {n}", "patient": f"film {n}"}
            match options["model_path"].read_text():
                case "both":
                    row |= {
                        "diseased": label,
                        "mean_score": 0.1 * n,
                        "probability": 0.6 if n == 0 else 0.2 + 0.7 * label,
                    }
                case "map":
                    row |= {"diseased": label, "mean_score": 0.5, "probability": 0.0}
                case "class":
                    row |= {"image_label": label, "probability_0": 0.4, "probability_1": 0.6}
            rows.append(row)
        write_csv(options["output_dir"] / "per_patient.csv", rows)


def test_films_are_compared_by_their_map_and_their_class_as_far_as_a_method_has_both(tmp_path):
    arms = [
        {"name": kind, "train": "one", "tests": ["one"], "settings": {"kind": kind}}
        for kind in ("map", "class", "both")
    ]
    plan = {"data": {}, "arms": arms, "measures": "films", "seeds": 1}
    training_study({"name": plan}, Filming(), tmp_path, num_bootstraps=20)
    rows = read_table(tmp_path / "study.csv")
    wanted = ("accuracy", "auroc", "map_auroc", "normal_change")
    found = {kind: [float(row[name] or "nan") for name in wanted] for kind, row in rows.items()}
    np.testing.assert_allclose(found["both"], [0.8, 1, 1, 0.1])
    np.testing.assert_allclose(found["map"], [np.nan, np.nan, 0.5, 0.5])
    np.testing.assert_allclose(found["class"], [0.4, 0.5, np.nan, np.nan])


CELLS = {"target": [["T", None]], "crossed": [["A", 0], ["B", 1]]}


class Classifying:
    """Trains by writing its seed, as its best and as its last epoch, and is the more certain the higher it is."""

    def __init__(self):
        self.runs = []

    def __call__(self, bundle, *configs, **options):
        self.runs.append((configs, options))
        model, out = options["model_path"], options["output_dir"]
        if configs == ("train",):
            (out / "checkpoints").mkdir(parents=True)
            certain = torch.tensor(0.6 + 0.1 * options["seed"])
            torch.save({"classifier.w": certain, "other": certain}, model)
            torch.save({"model": {"w": certain / 2}}, out / "checkpoints" / "classifier_last.pt")
            return
        certain = float(torch.load(model)["classifier.w"])
        rows = [(site, label) for site in "TAB" for label in (0, 1, 0, 1)]
        said = [certain if label else 1 - certain for _, label in rows]
        table = [
            {
                "case": f"{site}{i}",
                "site": site,
                "image_label": label,
                "probability_0": 1 - p,
                "probability_1": p,
                "distance_0": 1.0,
                "distance_1": 0.5,
            }
            for i, ((site, label), p) in enumerate(zip(rows, said, strict=True))
        ]
        write_csv(out / "predictions.csv", [*table, {**table[0], "case": "new", "image_label": ""}])
        write_csv(out / "per_patient.csv", [{"case": row["case"], "patient": row["case"]} for row in table])


CLASSES = {
    "data": {"one": {}},
    "arms": [{"name": name, "train": "one", "tests": ["one"]} for name in ("first", "last one")],
    "seeds": 2,
    "groups": CELLS,
    "last": True,
}


def read_table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["arm"]: row for row in csv.DictReader(file)}


def test_classes_are_compared_in_groups_by_the_best_and_the_last_epoch(tmp_path):
    bundle = Classifying()
    training_study({"name": CLASSES}, bundle, tmp_path, num_bootstraps=20)
    rows = read_table(tmp_path / "study.csv")
    assert list(rows) == ["first", "last one", "first, last epoch", "last one, last epoch"]
    assert (float(rows["first"]["target_accuracy"]), float(rows["first"]["crossed_auroc"])) == (1, 1)
    assert float(rows["first, last epoch"]["target_accuracy"]) == 0  # half as certain is wrong
    assert float(rows["first"]["target_nearest"]) == 0.5
    weights = torch.load(tmp_path / "first" / "seed_1" / "last.pt")
    assert (float(weights["classifier.w"]), float(weights["other"])) == (pytest.approx(0.35), pytest.approx(0.7))
    training_study({"name": CLASSES}, bundle, tmp_path, num_bootstraps=20)
    assert len(bundle.runs) == 2 * 2 * 3


def test_each_seed_may_have_a_split_of_its_own_and_then_there_are_no_intervals(tmp_path):
    bundle = Classifying()
    training_study({"name": {**CLASSES, "seeded": ["seed", "split_seed"]}}, bundle, tmp_path)
    assert {options["split_seed"] for _, options in bundle.runs} == {0, 1}
    assert all("seed" in options for configs, options in bundle.runs if configs == ("train",))
    row = read_table(tmp_path / "study.csv")["first"]
    assert (float(row["target_accuracy"]), row["target_accuracy_low"]) == (1, "nan")


def test_folds_have_data_of_their_own_and_are_put_together(tmp_path):
    bundle, folds = Classifying(), [tmp_path / f"one {fold}" for fold in (0, 1)]
    cells = [(site, k) for site in "TAB" for k in (0, 1, 0, 1)]
    items = [{"case": n, "patient": n, "site": s, "image_label": k, "position": k} for n, (s, k) in enumerate(cells)]
    parts = {"training": items, "testing": items}
    for folder in folds:
        folder.mkdir()
        (folder / "dataset.json").write_text(json.dumps(parts))
    position = {"name": "position", "train": "one", "tests": ["one"], "column": "position"}
    plan = {**CLASSES, "arms": [position, *CLASSES["arms"]], "folds": 2, "settings": {"target_sites": ["T"]}}
    training_study({"name": plan}, bundle, tmp_path, num_bootstraps=20)
    assert {options["dataset_dir"] for _, options in bundle.runs} == set(folds)
    rows = read_table(tmp_path / "study.csv")
    assert [rows[name]["seeds"] for name in ("first", "position", "position, last epoch")] == ["2", "2", "2"]
    assert [float(rows[name]["crossed_auroc"]) for name in ("first", "position")] == [1, 1]


def test_cases_of_other_groups_do_not_count(tmp_path):
    Classifying()("name", "inference", model_path=_weights(tmp_path), output_dir=tmp_path)
    records = classes_of(tmp_path)
    assert [record.case for record in records][-1] == "B11"
    statistics = class_measures(CELLS).statistics(records)
    assert statistics["crossed: accuracy"](np.ones(12)) == 1
    only_target = np.array([record.site == "T" for record in records], dtype=float)
    assert np.isnan(statistics["crossed: AUROC"](only_target))


def _weights(folder):
    torch.save({"classifier.w": torch.tensor(0.9)}, folder / "model.pt")
    return folder / "model.pt"


class Differing:
    """Trains by writing its number, and evaluates differences whose error that is; without weights it is 9."""

    def __init__(self):
        self.runs = []

    def __call__(self, bundle, *configs, **options):
        self.runs.append((bundle, configs))
        if configs[0] != "inference":
            options["model_path"].parent.mkdir(parents=True, exist_ok=True)
            options["model_path"].write_text(options["error"])
            return
        error = options["model_path"].read_text() if "model_path" in options else options["translator"]
        rows = [{"case": case, "patient": case, "difference_mse": float(error), "healthy_mse": 1.0} for case in "ab"]
        write_csv(options["output_dir"] / "per_patient.csv", rows)


def test_bundles_come_to_one_table_and_arms_may_do_without_a_training(tmp_path):
    own = {"name": "own", "train": "one", "tests": ["one"], "settings": {"error": "1"}, "overlays": ["over"]}
    other = {"name": "other", "train": "one", "tests": ["one"], "settings": {"error": "3"}, "config": "baselines"}
    control = {"name": "control", "train": "", "tests": ["one"], "tried": {"translator": "9"}}
    shared = {"data": {"one": {}}, "measures": "twins", "seeds": 1}
    plans = {"first": {**shared, "arms": [own, control], "reference": "own"}, "second": {**shared, "arms": [other]}}
    bundle = Differing()
    training_study(plans, bundle, tmp_path, num_bootstraps=20)
    assert bundle.runs == [
        ("first", ("train", "over")),
        ("first", ("inference", "over", "evaluate")),
        ("first", ("inference", "evaluate")),
        ("second", ("baselines",)),
        ("second", ("inference", "evaluate")),
    ]
    rows = read_table(tmp_path / "study.csv")
    assert [float(rows[name]["difference_mse"]) for name in ("own", "other", "control")] == [1, 3, 9]
    assert float(rows["control"]["difference_mse_difference"]) == -8
    assert rows["own"]["difference_dice"] == "nan"
