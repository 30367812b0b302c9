"""A study of real patients: what learns is trained in each fold, and its numbers are those of all folds' patients."""

import csv
import json
from shutil import copyfile

import nibabel as nib
import numpy as np
import pytest
import torch
from studied import HEAD, small_bundle

from common.studies.cases import Case
from common.studies.detection import DetectionPlan, DetectionStudy
from common.studies.patients import POSITION, middle_of_stack, organs_found, patients_study
from common.studies.plan import Method

PLAN = {
    "data": {"heads": {}},
    "folds": 2,
    "region": HEAD,
    "trainings": [{"config": "baselines", "parts": ["first", "second"], "settings": {"max_epochs": 1}}],
    "rows": [
        {"name": "ours, filter {radius}", "radii": [[0], [1]]},
        {"name": "learnt", "config": "baselines"},
        {"name": "control, filter {radius}", "radii": [[0], [3]], "control": True},
    ],
    "left_out": {"without the largest": ["testing 3"]},
}


@pytest.fixture
def study(tmp_path):
    """Run a study, and return the folder of its tables, and what was trained."""
    small, trained = small_bundle(tmp_path), []

    def configs(bundle, name, **settings):
        return small(name, **settings)

    def run(bundle, *names, run_id, output_dir, dataset_dir, model_path=None, **settings):
        if run_id == "write_dataset":
            assert json.loads((dataset_dir / "dataset.json").read_text())["testing"]
            trained.append((bundle, *names, output_dir.name, settings))
            return
        trained.append((dataset_dir.name, run_id))
        assert model_path.is_file()  # it begins with the weights that there are
        copyfile(model_path, output_dir / "model.pt") if model_path.parent != output_dir else None

    def study_of(plan=PLAN, **options):
        patients_study({"small": plan}, configs, run, tmp_path / "study", num_bootstraps=20, **options)
        return tmp_path / "study", trained

    return study_of


def table(path):
    with open(path, newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_rows_are_compared_with_the_best_that_learns_nothing(study):
    folder, trained = study()
    rows = table(folder / "all_patients.csv")
    assert list(rows) == [
        "ours, filter [0]",
        "ours, filter [1]",
        "learnt",
        "control, filter [0]",
        "control, filter [3]",
    ]
    best = float(rows["control, filter [0]"]["ap"])
    for row in rows.values():
        assert float(row["ap_ahead"]) == pytest.approx(float(row["ap"]) - best)
    assert "'ahead' is of control, filter [0]" in (folder / "report.html").read_text().replace("&#x27;", "'").replace(
        "&#39;", "'"
    )
    assert trained == [(f"heads {n}", f"train_{part}") for n in (0, 1) for part in ("first", "second")]


def test_a_study_is_continued(study):
    study()
    _, trained = study()
    assert len(trained) == 4


def test_the_numbers_are_means_over_the_patients_of_all_folds(study, tmp_path):
    folder, _ = study()
    rows = table(folder / "all_patients.csv")
    examined = DetectionStudy(small_bundle(tmp_path), DetectionPlan(HEAD, PLAN["rows"], ()), folder)
    cases, found = examined.cases("heads 0", "testing", None), {}
    for seeds in examined.examine([Method("ours", radii=[[0]])], cases, "testing", 1).values():
        found = {record.case: record.row for record in seeds[0]}
    diseased = [row["ap"] for row in found.values() if row["lesions"]]
    assert len(found) == 4
    assert float(rows["ours, filter [0]"]["ap"]) == pytest.approx(np.mean(diseased))  # of both folds: the same patients
    without = table(folder / "without_the_largest.csv")
    others = [row["ap"] for case, row in found.items() if row["lesions"] and case != "testing 3"]
    assert float(without["ours, filter [0]"]["ap"]) == pytest.approx(np.mean(others))


def test_the_organ_is_found_without_its_mask(tmp_path):
    asked = []

    class Heads:
        channels = ("anomaly", "organ")

        def __call__(self, inputs, network):
            asked.append(inputs.shape)
            found = torch.zeros(1, 2, *inputs.shape[2:])
            found[:, 1, 2:14, 2:14, 1:2] = 1  # in one slice of two
            return found

    small = small_bundle(tmp_path)

    def configs(name, **settings):
        parser = small(name, **settings)
        inferer = parser.get_parsed_content
        parser.get_parsed_content = lambda key: Heads() if key == "inferer" else inferer(key)
        return parser

    examined = DetectionStudy(small, DetectionPlan(HEAD, PLAN["rows"], ()), tmp_path)
    case = examined.cases("heads", "testing", 1)[0]
    with_mask = case._replace(inputs=torch.cat([case.inputs, case.inputs], 1))
    assert organs_found(configs, [with_mask], tmp_path / "organs") == [{"case": "testing 0", "dice": 2 / 3}]
    assert asked == [case.inputs.shape]


def test_a_study_may_be_made_short(study):
    plan = {**PLAN, "folds": 0, "rows": PLAN["rows"][2:], "left_out": {}}  # none of which is trained
    folder, trained = study(plan, num_patients=2)
    assert list(table(folder / "all_patients.csv")) == ["control, filter [0]", "control, filter [3]"]
    assert "2 patients, 1 with lesions" in (folder / "report.html").read_text()
    assert not trained


def test_without_a_control_nothing_is_trained(study):
    with pytest.raises(ValueError, match="expected a row without a network"):
        study(num_rows=1)


def test_sites_that_have_enough_patients_have_tables_of_their_own(study, tmp_path):
    for name in ("heads 0", "heads 1"):
        (tmp_path / "study" / name).mkdir(parents=True)
        items = [{"case": f"testing {n}", "site": "here"} for n in range(4)] + [{"case": "other", "site": "there"}]
        (tmp_path / "study" / name / "dataset.json").write_text(json.dumps({"testing": items}))
    folder, _ = study({**PLAN, "by_site": True})
    assert table(folder / "site_here.csv") == table(folder / "all_patients.csv")
    assert not (folder / "site_there.csv").exists()


def test_where_a_slice_lies_is_a_row_and_pairs_a_table(study):
    rows = [{**PLAN["rows"][0], "against": "control, filter {radius}"}, {**PLAN["rows"][2], "radii": [[0], [1]]}]
    folder, _ = study({**PLAN, "rows": rows, "position": True, "overlaps": True})
    by_place = table(folder / "all_patients.csv")[POSITION]
    # Lesions lie in the middle slice; of the five without, one lies there, too.
    assert float(by_place["auroc_of_slices_by_the_mean_of_the_map"]) == pytest.approx(4.5 / 5)
    assert by_place["calls_a_slice"] == "nan"
    pairs = table(folder / "pairs.csv")
    found = table(folder / "all_patients.csv")
    assert [row["against"] for row in pairs.values()] == ["control, filter [0]", "control, filter [1]"]
    for name, row in pairs.items():
        for metric in ("ap", "slice_hd95_mm"):
            expected = float(found[name][metric]) - float(found[row["against"]][metric])
            assert float(row[f"{metric}_ahead"]) == pytest.approx(expected)


def test_lesions_that_are_put_into_the_scans_have_a_table_of_their_own(study, tmp_path):
    data = tmp_path / "study" / "heads"
    data.mkdir(parents=True)
    for name in ("image", "organ", "label"):
        voxels = np.full((4, 4, 5), int(name != "label"), np.uint8)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), data / f"{name}.nii.gz")
    item = {"case": "one", "patient": "one"} | {key: f"{key}.nii.gz" for key in ("image", "organ", "label")}
    (data / "dataset.json").write_text(json.dumps({"testing": [item]}))
    made = {"lesions put in": {"bundle": "maker", "overlays": ["real"], "settings": {"size": "small"}, "min_slices": 5}}
    folder, run = study({**PLAN, "folds": 0, "rows": PLAN["rows"][2:], "left_out": {}, "made": made})
    options = {"dataset_split": "testing", "size": "small"}
    assert run == [("maker", "inference", "real", "lesions put in heads", options)]
    assert (folder / "lesions put in heads" / "slabs" / "one_organ.nii.gz").is_file()
    found, own = (table(folder / f"{name}.csv") for name in ("lesions_put_in", "all_patients"))
    assert {name: row["ap"] for name, row in found.items()} == {name: row["ap"] for name, row in own.items()}


def test_settings_are_tried_on_validation_patients_the_best_first(study):
    plan = {**PLAN, "folds": 0, "tuning": [PLAN["rows"][0]]}
    folder, trained = study(plan, tune=True)
    with open(folder / "tuning.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["settings"] for row in rows} == {"ours, filter [0]", "ours, filter [1]"}
    assert float(rows[0]["ap"]) >= float(rows[1]["ap"])
    assert not (folder / "all_patients.csv").exists()
    assert not trained


def test_the_map_of_a_place_is_highest_in_the_middle():
    case = Case("one", torch.zeros(1, 1, 2, 2, 5), np.zeros((2, 2, 5), np.float32), None, None, [1, 1, 1])
    np.testing.assert_allclose(middle_of_stack(case)[1, 1], [0.2, 0.6, 1, 0.6, 0.2], rtol=1e-6)
