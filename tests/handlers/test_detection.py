import numpy as np
import pytest
import torch
from evaluated import FILM_CHANNELS, ORIENTATIONS, POINTS, SHAPE, film, item, marked, metrics, run, table
from monai.data import MetaTensor

from common.handlers.detection import Detection
from common.handlers.report import CaseReport
from common.metrics.detection import average_otsu


def test_a_perfect_map_has_perfect_numbers():
    detection = Detection()
    state = run([item("a"), item("b")], detection).state
    assert {name: state.metrics[name] for name in ("ap", "auroc", "best_dice")} == pytest.approx(
        {"ap": 1, "auroc": 1, "best_dice": 1}
    )
    assert detection.fitted_threshold == 30


@pytest.mark.parametrize(("threshold", "dice"), [(5.0, 2 * 4 / (5 + 4)), (35.0, 0)])
def test_the_pooled_dice_is_that_at_the_threshold_of_the_inferers_masks(threshold, dice):
    detection = Detection()
    run([item()], detection, threshold=threshold)
    assert metrics(detection)["Dice at the fitted threshold, pooled"] == pytest.approx(dice)


def test_cases_without_a_label_are_passed_over():
    detection = Detection()
    run([item("a", with_label=False), item("b")], detection)
    assert [record.case for record in detection.labelled] == ["b"]


def test_without_any_label_there_are_no_numbers_and_no_files(tmp_path):
    detection = Detection(str(tmp_path / "eval"))
    state = run([item(with_label=False)], detection).state
    assert detection.rows == []
    assert np.isnan(detection.fitted_threshold)
    assert not {"ap", "auroc", "best_dice"} & set(state.metrics)
    assert not (tmp_path / "eval").exists()


def test_volumes_without_labels_are_judged_by_the_tags_of_their_slices():
    """The organ shows in slices 1 and 2; the map is 30 in the lesion of slice 2, and 10 in a voxel of slice 1."""
    tagged = item(with_label=False)
    tagged["slice_class"] = MetaTensor(torch.zeros(1, *SHAPE), affine=tagged["image"].affine)
    tagged["slice_class"][..., 2] = 1
    detection = Detection(threshold_rule="otsu")
    run([tagged], detection)
    (record,) = detection.images
    assert [(row["slice"], row["diseased"]) for row in record.slice_rows] == [(1, 0), (2, 1)]
    assert metrics(detection)["image-level AUROC of the map"] == 1
    assert 0 <= detection.fitted_threshold < 30


def test_films_without_labels_are_judged_by_their_classes(tmp_path):
    detection = Detection(str(tmp_path), num_resamples=20)
    films = [film("b", True, 1.4), film("a", False, 0.2), film("c", True, 0.6), film("d", False, 0.8)]
    state = run(films, detection, channels=FILM_CHANNELS).state
    expected = {
        "image-level AUROC of the map": 0.75,
        "image-level AUROC of the classifier": 0.75,
        "image-level accuracy of the classifier": 0.75,
    }
    assert metrics(detection) == pytest.approx(expected)
    assert state.metrics["image_auroc_map"] == state.metrics["image_auroc_classifier"] == 0.75
    rows = table(tmp_path / "per_patient.csv")
    assert [(row["case"], row["diseased"]) for row in rows] == [("a", "0"), ("b", "1"), ("c", "1"), ("d", "0")]
    assert [float(row["mean_score"]) for row in rows] == pytest.approx([s * 4 / 48 for s in (0.2, 1.4, 0.6, 0.8)])
    assert [float(row["probability"]) for row in rows] == pytest.approx([0.1, 0.7, 0.3, 0.4])
    assert {row["metric"] for row in table(tmp_path / "summary.csv")} == set(expected)


def test_films_with_labels_have_the_metrics_of_pixels_too():
    detection = Detection(in_mm=False)
    films = [film("a", True, 1.4, with_label=True), film("b", False, 0.2, with_label=True), film("c", True)]
    run(films, detection, channels=FILM_CHANNELS)
    assert [record.case for record in detection.images] == ["a", "b", "c"]
    assert [record.case for record in detection.labelled] == ["a", "b"]
    found = metrics(detection)
    assert found["pixel AUROC, pooled"] == found["image-level AUROC of the map"] == 1
    assert found["lesion sensitivity (any overlap)"] == 1
    assert np.isnan(found["mask in slices without lesions, cm²"])  # a film's pixels have no size
    assert np.isnan(found["lesion sensitivity, 0 to 10 mm"])


def test_where_all_films_are_of_one_class_there_is_no_auroc(tmp_path):
    detection = Detection(num_resamples=5)
    run(
        [film("a", True), film("b", True)],
        detection,
        CaseReport(str(tmp_path), "T", scores=detection),
        channels=FILM_CHANNELS,
    )
    assert np.isnan(metrics(detection)["image-level AUROC of the map"])
    assert metrics(detection)["image-level accuracy of the classifier"] == 0
    assert (tmp_path / "report.html").is_file()


def test_the_average_otsu_threshold_of_films_needs_no_label():
    detection = Detection(threshold_rule="otsu")
    run([film("a", True), film("b", False, 30.0)], detection, channels=FILM_CHANNELS)
    (record,) = [record for record in detection.images if record.case == "a"]
    assert detection.fitted_threshold == record.slice_rows[0]["otsu_threshold"] < 1


def test_differences_are_compared_with_those_of_the_twin(tmp_path):
    detection = Detection(str(tmp_path), num_resamples=5)
    films = [film("a", True, 1.4), film("b", False, 0.5)]
    for known, twin in zip(films, (2, 0), strict=True):  # what the inferer says, and the image itself
        known["twin"] = known["image"][twin : twin + 1].clone()
    run(films, detection, channels=FILM_CHANNELS)
    found = metrics(detection)
    assert found["squared error of the difference"] == 0
    assert found["Dice of the difference at the threshold of true ones"] == 1
    assert found["squared error of healthy images"] == pytest.approx(0.25 * 4 / 48, rel=1e-4)
    ill, well = table(tmp_path / "per_patient.csv")
    assert (float(ill["difference_dice"]), float(ill["difference_auroc"])) == (1, 1)
    assert float(ill["zero_mse"]) == pytest.approx(1.96 * 4 / 48, rel=1e-4)
    assert (well["difference_dice"], float(well["healthy_mse"])) == ("nan", pytest.approx(0.25 * 4 / 48, rel=1e-4))


def test_a_volume_of_a_diseased_patient_says_nothing_of_its_slices():
    detection = Detection()
    run([item(with_label=False) | {"image_label": 1}], detection)
    assert detection.images == []


def test_without_lesions_there_is_no_fitted_threshold():
    detection = Detection()
    run([item(lesions=0)], detection)
    assert np.isnan(detection.fitted_threshold)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR"])
def test_the_distance_from_a_marked_point_to_the_peak_is_told_in_mm(tmp_path, axcodes):
    detection = Detection(str(tmp_path))
    run([marked(case, with_label=False, axcodes=axcodes) for case in POINTS], detection)
    rows = {
        row["case"]: [float(row[column]) for column in list(row)[2:]] for row in table(tmp_path / "per_patient.csv")
    }
    assert rows == {
        "peak": pytest.approx([0, 0]),
        "beside": pytest.approx([5, 5]),
        "below": pytest.approx([np.sqrt(8**2 + 9**2 + 4.6**2), 0.4]),
    }
    assert detection.rows == []
    assert not (tmp_path / "summary.csv").exists()


def test_marked_cases_stand_beside_labelled_ones_and_count_for_nothing_else(tmp_path):
    run([item("a"), marked("peak", with_label=False), marked("beside")], Detection(str(tmp_path / "marks")))
    run([item("a"), item("beside")], Detection(str(tmp_path / "labels")))
    a, beside, peak = table(tmp_path / "marks" / "per_patient.csv")
    assert (a["peak_to_point_mm"], a["lesions"]) == ("nan", "1")
    assert (float(beside["peak_to_point_mm"]), beside["lesions"]) == (5, "1")
    assert (float(peak["peak_to_point_mm"]), peak["lesions"]) == (0, "nan")
    for name in ("summary.csv", "per_slice.csv"):
        assert (tmp_path / "marks" / name).read_bytes() == (tmp_path / "labels" / name).read_bytes()


def test_a_map_without_change_has_no_peak():
    detection = Detection()
    empty = marked("peak", with_label=False)
    empty["image"][1] = 0
    run([empty], detection)
    assert np.isnan(detection.case_rows[0]["peak_to_point_mm"])


def test_a_second_run_starts_afresh():
    detection = Detection()
    evaluator = run([item("b"), item("a")], detection)
    evaluator.run()
    assert [record.case for record in detection.labelled] == ["a", "b"]


def test_tables_are_written_for_slices_patients_and_the_run(tmp_path):
    run([item("b", patient="x"), item("a", patient="x")], Detection(str(tmp_path)))
    assert [(row["case"], row["patient"]) for row in table(tmp_path / "per_patient.csv")] == [("a", "x"), ("b", "x")]
    slices = [(row["case"], row["slice"], row["lesion_pixels"]) for row in table(tmp_path / "per_slice.csv")]
    assert slices == [("a", "1", "0"), ("a", "2", "4"), ("b", "1", "0"), ("b", "2", "4")]
    assert "pixel AUROC, pooled" in {row["metric"] for row in table(tmp_path / "summary.csv")}


def test_volumes_are_in_millilitres(tmp_path):
    run([item()], Detection(str(tmp_path)))
    (row,) = table(tmp_path / "per_patient.csv")
    assert float(row["organ_ml"]) == pytest.approx(8 * 6 * 2 * 0.03)
    assert float(row["lesion_ml"]) == pytest.approx(4 * 0.03)


def test_intervals_are_drawn_if_asked():
    detection = Detection(num_resamples=20)
    run([item("a"), item("b", score=15.0), item("c")], detection)
    (row,) = [row for row in detection.rows if row["metric"] == "Dice at the fitted threshold, mean of patients"]
    assert row["low"] < row["value"] < row["high"]


def test_slices_without_lesions_are_left_out_if_asked(tmp_path):
    run([item()], Detection(str(tmp_path), lesion_slices_only=True))
    (row,) = table(tmp_path / "per_slice.csv")
    assert row["lesion_pixels"] == "4"


def test_a_healthy_case_is_left_out_where_only_slices_with_lesions_count():
    detection = Detection(lesion_slices_only=True)
    run([item("a"), item("b", lesions=0)], detection)
    assert [record.case for record in detection.labelled] == ["a"]


def test_a_case_whose_lesions_lie_beyond_the_organ_has_no_slice_with_lesions():
    outside = item("b")
    outside["label"][:] = 0
    outside["label"][:, 0, 0, 2] = 1
    detection = Detection(lesion_slices_only=True)
    run([item("a"), outside], detection)
    assert [record.case for record in detection.labelled] == ["a"]


def test_slices_whose_lesions_are_small_are_left_out_and_counted(caplog):
    share = 4 / (14 * 12)
    detection, small = Detection(min_area=share), item("small")
    small["label"][:, 5, 4, 2] = 0
    with caplog.at_level("INFO"):
        run([item("a"), small], detection)
    assert [record.case for record in detection.labelled] == ["a"]
    assert "small: 0 of 1 slices with lesions are kept, where these fill 2%" in caplog.text


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_the_numbers_do_not_depend_on_how_a_file_is_stored(tmp_path, axcodes):
    for folder, codes in (("expected", "RAS"), ("got", axcodes)):
        run([item(axcodes=codes)], Detection(str(tmp_path / folder)))
    for name in ("per_slice.csv", "per_patient.csv", "summary.csv"):
        assert (tmp_path / "got" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_a_rule_for_thresholds_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match="threshold_rule must be 'dice' or 'otsu', got 'mean'"):
        Detection(threshold_rule="mean")


def test_thresholds_can_be_fitted_by_otsu():
    detection = Detection(threshold_rule="otsu")
    run([item()], detection)
    assert detection.fitted_threshold == average_otsu(detection.images)
