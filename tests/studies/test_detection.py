"""A study of anomaly maps: its numbers are those of the metrics."""

import csv

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from studied import HEAD, small_bundle

from common.studies.detection import DetectionPlan, DetectionStudy, detection_study, pictured
from common.studies.plan import Method

PLAN = {
    "region": HEAD,
    "rows": [
        {"name": "ours", "radii": [[0]]},
        {"name": "filter {radius}", "radii": [[1]], "pictured": []},
        {"name": "filter {radius}", "radii": [[2]], "against": "filter [1]"},
        {"name": "median", "config": "baselines"},
    ],
    "tuning": [
        {
            "name": "channel {channel}, filter {radius}",
            "vary": {"inferer::translator::channel": [0]},
            "radii": [[0], [3]],
        }
    ],
}


@pytest.fixture
def study(tmp_path):
    """Run a study, and return the folder of its tables."""

    def run(**options):
        detection_study("small", small_bundle(tmp_path), PLAN, tmp_path / "study", num_bootstraps=20, **options)
        return tmp_path / "study"

    return run


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_row_of_the_plan_has_its_rows_and_is_compared_with_the_first(study):
    folder = study()
    for scanner in "ab":
        rows = table(folder / f"study_{scanner}.csv")
        assert [row["method"] for row in rows] == ["ours", "filter [1]", "filter [2]", "median"]
        for row in rows:
            assert float(row["ap_difference"]) == pytest.approx(float(rows[0]["ap"]) - float(row["ap"]))
        pairs = table(folder / f"pairs_{scanner}.csv")
        assert [(row["method"], row["against"]) for row in pairs] == [("filter [2]", "filter [1]")]
        assert float(pairs[0]["ap_difference"]) == pytest.approx(float(rows[1]["ap"]) - float(rows[2]["ap"]))
    page = (folder / "report.html").read_text()
    assert "4 patients" in page
    assert page.count("data:image/png") == 6  # curves, costs and maps of each scanner


def test_the_numbers_of_a_row_are_those_of_its_maps_in_all_organs(study, tmp_path):
    row = table(study() / "study_a.csv")[0]
    examined = DetectionStudy(small_bundle(tmp_path), DetectionPlan(**PLAN), tmp_path / "study")
    cases, answer = examined.cases("scanner_a", "testing", None), examined.answers(Method("ours"), "testing_a", 0)
    scores = np.concatenate([np.round(answer(case), 3)[case.organ] for case in cases])
    truth = np.concatenate([case.truth[case.organ] for case in cases])
    assert float(row["ap"]) == pytest.approx(average_precision_score(truth, scores))
    assert float(row["auc"]) == pytest.approx(roc_auc_score(truth, scores))
    called = scores >= float(row["threshold"])
    assert float(row["dice"]) == pytest.approx(2 * (called & truth).sum() / (called.sum() + truth.sum()))


def test_settings_are_tried_on_validation_patients_the_best_first(study):
    rows = table(study(tune=True) / "tuning.csv")
    assert [row["settings"] for row in rows] == ["channel 0, filter [0]", "channel 0, filter [3]"]
    assert float(rows[0]["ap"]) > float(rows[1]["ap"])


def test_a_study_may_be_made_short(study):
    folder = study(num_patients=2, num_rows=1)
    assert [row["method"] for row in table(folder / "study_a.csv")] == ["ours"]
    assert not (folder / "pairs_a.csv").exists()
    assert "2 patients" in (folder / "report.html").read_text()


def test_what_draws_has_records_for_each_seed(tmp_path):
    study = DetectionStudy(small_bundle(tmp_path), DetectionPlan(**PLAN), tmp_path)
    cases = study.cases("scanner_a", "testing", 2)
    found = study.examine([Method("drawn", drawn=True), Method("once")], cases, "testing", 3)
    assert {row: [len(records) for records in seeds] for row, seeds in found.items()} == {
        "drawn": [2, 2, 2],
        "once": [2],
    }
    assert len(list((tmp_path / "answers" / "testing").iterdir())) == 3  # of the seeds; 0 is the bundle's own


def test_where_slices_without_lesions_do_not_count_a_healthy_patient_is_no_case(tmp_path):
    plans = [DetectionPlan(**PLAN), DetectionPlan(**PLAN, lesion_slices_only=True, threshold="otsu")]
    every, diseased = [DetectionStudy(small_bundle(tmp_path), plan, tmp_path) for plan in plans]
    assert [len(study.cases("scanner_a", "testing", None)) for study in (every, diseased)] == [4, 3]
    (records,) = diseased.examine([Method("ours")], diseased.cases("scanner_a", "testing", None), "testing", 1)["ours"]
    assert [[row["slice"] for row in record.slice_rows] for record in records] == [[0], [0], [0]]
    assert "hd95_mm" in records[0].slice_rows[0]


def test_pictures_have_the_rows_that_the_plan_says():
    method = Method("filter {radius}", radii=[[0], [1]])
    assert list(pictured(method, [2])) == ["filter [0]", "filter [1]"]
    assert list(pictured(method._replace(pictured=[[1]]), [2])) == ["filter [1]"]
    assert not pictured(method._replace(pictured=[]), [2])


def test_a_threshold_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="threshold must be one of dice, otsu, got 'best'"):
        DetectionStudy(small_bundle(tmp_path), DetectionPlan(**PLAN, threshold="best"), tmp_path)
