import numpy as np
import pytest

from common.metrics.tables import average_otsu, examine_case, froc, summarise


@pytest.fixture
def scan():
    """An organ of four slices with a lesion of 8 voxels that is half found, and a false finding."""
    organ = np.zeros((10, 10, 4), dtype=bool)
    organ[1:9, 1:9] = True
    truth, anomaly = organ & False, np.zeros((10, 10, 4))
    truth[2:4, 2:4, 1:3] = True
    anomaly[2:4, 2:4, 1] = 30
    anomaly[6, 6, 3] = 50
    return {"anomaly": anomaly, "mask": anomaly > 20, "organ": organ, "truth": truth, "spacing_mm": (3.0, 3.0, 5.0)}


def record(scan, case="a", **options):
    return examine_case(case=case, patient=case, **scan, **options)


def test_a_case_is_summed_up_in_a_row(scan):
    row = record(scan).row
    assert row["organ_ml"] == pytest.approx(256 * 0.045)
    assert row["lesion_ml"] == pytest.approx(8 * 0.045)
    assert row["dice"] == pytest.approx(2 * 4 / (5 + 8))
    assert (row["lesions"], row["lesions_found"], row["false_positive_components"]) == (1, 1, 1)
    assert row["mean_in_lesions"] == pytest.approx(15)


def test_there_is_a_row_for_each_slice_with_organ(scan):
    scan["organ"][..., 0] = False
    rows = record(scan).slice_rows
    assert [row["slice"] for row in rows] == [1, 2, 3]
    assert np.isnan(rows[2]["auroc"])


def test_the_papers_test_set_has_slices_with_lesions_only(scan):
    assert [row["lesion_pixels"] for row in record(scan, lesion_slices_only=True).slice_rows] == [4, 4]


def test_lesions_beyond_the_organ_do_not_count(scan):
    scan["truth"][0, 0, 0] = True
    assert record(scan).row["lesions"] == 1


def test_a_healthy_case_has_no_dice(scan):
    scan["truth"][:] = False
    row = record(scan).row
    assert np.isnan(row["dice"])
    assert row["p95_outside"] == pytest.approx(np.percentile(scan["anomaly"][scan["organ"]], 95))


def test_the_summary_holds_pooled_and_mean_values_with_intervals(scan):
    other = {**scan, "anomaly": scan["anomaly"] / 2}
    rows = {r["metric"]: r for r in summarise([record(scan), record(other, "b")], 20.0, num_resamples=50)}
    assert rows["lesion sensitivity (any overlap)"]["value"] == 1
    assert rows["lesion sensitivity, 10 to 20 mm"]["value"] != rows["lesion sensitivity, 10 to 20 mm"]["value"]
    row = rows["pixel AP, pooled"]
    assert row["low"] <= row["value"] <= row["high"]


def test_without_resampling_there_are_no_intervals(scan):
    assert all(np.isnan(row["low"]) for row in summarise([record(scan)], 20.0))


def test_froc_finds_the_lesion_after_the_false_peak(scan):
    false_positives, sensitivity, _ = froc([record(scan)])
    assert sensitivity[false_positives == 1].max() == 1
    assert sensitivity[false_positives == 0].max() == 0


def with_otsu(scan, **options):
    scan["anomaly"] = np.where(scan["anomaly"] > 0, scan["anomaly"], 1.0)
    return record(scan, otsu=True, **options)


def test_otsu_finds_a_threshold_in_each_slice(scan):
    rows = with_otsu(scan).slice_rows
    assert rows[1]["dice_otsu"] == 1
    assert 1 <= rows[1]["otsu_threshold"] < 30
    assert rows[0]["otsu_threshold"] == 1  # a constant map has nothing above it
    assert np.isnan(rows[0]["dice_otsu"])


def test_the_average_otsu_threshold_is_that_of_slices_with_lesions(scan):
    made = with_otsu(scan)
    expected = np.mean([row["otsu_threshold"] for row in made.slice_rows if row["lesion_pixels"]])
    assert average_otsu([made]) == pytest.approx(expected)
    rows = {row["metric"]: row["value"] for row in summarise([made], 20.0)}
    assert rows["Dice at each slice's own Otsu threshold, mean of slices with lesions"] == pytest.approx(0.5)
    scan["truth"][:] = False
    assert np.isnan(average_otsu([record(scan, otsu=True)]))


def test_the_mask_in_healthy_slices_is_an_area(scan):
    rows = {row["metric"]: row["value"] for row in summarise([record(scan)], 20.0)}
    assert rows["mask in slices without lesions, cm²"] == pytest.approx((0 + 1 * 9 / 100) / 2)


def test_a_classifier_is_judged_by_its_slices(scan):
    probability = np.zeros((10, 10, 4))
    probability[5, 5] = [0.1, 0.9, 0.4, 0.3]
    rows = {row["metric"]: row["value"] for row in summarise([record(scan, probability=probability)], 20.0)}
    assert rows["classifier's accuracy, slices"] == 0.75
    assert rows["classifier's AUROC, slices"] == 1


def test_one_slice_is_a_scan_of_its_own(scan):
    flat = {key: value[..., 1] if isinstance(value, np.ndarray) else value[:2] for key, value in scan.items()}
    (row,) = record(flat, otsu=True, probability=np.full((10, 10), 0.7)).slice_rows
    assert (row["lesion_pixels"], row["probability"], row["dice_otsu"]) == (4, 0.7, 1)
