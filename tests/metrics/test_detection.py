from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from common.metrics.detection import (
    average_otsu,
    dice_at,
    examine_case,
    examine_image,
    froc,
    slices_with_lesions,
    summarise,
    summarise_images,
)
from common.metrics.statistics import with_all_columns


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


def test_slices_with_smaller_lesions_can_be_left_out(scan):
    scan["truth"][2, 2, 2] = False
    assert slices_with_lesions(scan["truth"]).tolist() == [False, True, True, False]
    assert [row["slice"] for row in record(scan, lesion_slices_only=True, min_area=0.04).slice_rows] == [0]


def test_slices_have_iou_and_hd95_if_asked(scan):
    first, second = record(scan, lesion_slices_only=True, overlaps=True).slice_rows
    assert (first["jaccard"], first["hd95_mm"], first["mask_pixels"]) == (1, 0, 4)
    assert (second["jaccard"], second["mask_pixels"]) == (0, 0)
    assert np.isnan(second["hd95_mm"])
    rows = {row["metric"]: row["value"] for row in summarise([record(scan, overlaps=True)], 20.0)}
    assert rows["IoU of the masks, mean of slices with lesions"] == 0.5
    assert rows["HD95 of the masks, mm, mean of slices with lesions and a mask"] == 0
    assert rows["share of slices with lesions that have no mask"] == 0.5
    assert "IoU of the masks, mean of slices with lesions" not in {r["metric"] for r in summarise([record(scan)], 20.0)}


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


def test_froc_ends_where_more_peaks_are_not_counted(scan):
    kept = record(scan)
    peaks = np.linspace(2, 1, 200)  # above eight of ten lesions
    lesions = replace(kept.lesions, false_peaks=peaks, lesion_peaks=np.r_[[3.0, 3.0], np.full(8, 0.5)])
    false_positives, sensitivity, score = froc([replace(kept, lesions=lesions)])
    assert false_positives.max() == 9
    assert sensitivity.max() == score == 0.2


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
    rows = {row["metric"]: row["value"] for row in summarise_images([record(scan, probability=probability)])}
    assert rows["image-level accuracy of the classifier"] == 0.75
    assert rows["image-level AUROC of the classifier"] == 1


def films(diseased, scores, **options):
    """Return a record a film, whose map is a spot of a score."""
    organ = np.ones((6, 8), dtype=bool)
    maps = [np.where(np.arange(48).reshape(6, 8) < 4, score, 0.0) for score in scores]
    return [
        examine_image(f"{i}", f"{i}", a, a > 0.5, organ, [d], (np.nan, np.nan), **options)
        for i, (a, d) in enumerate(zip(maps, diseased, strict=True))
    ]


def test_the_image_level_auroc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    diseased = rng.random(60) > 0.4
    scores = np.round(rng.random(60) + 0.5 * diseased, 1)  # some tie
    (row,) = summarise_images(films(diseased, scores), num_resamples=50)
    assert row["metric"] == "image-level AUROC of the map"
    assert row["value"] == pytest.approx(roc_auc_score(diseased, scores))
    assert row["low"] < row["value"] < row["high"]


@pytest.mark.parametrize("diseased", [True, False])
def test_films_of_one_class_have_no_auroc(diseased):
    (row,) = summarise_images(films([diseased] * 3, [0.1, 0.2, 0.3]))
    assert np.isnan(row["value"])


def test_slices_of_volumes_are_images_too(scan):
    (row,) = summarise_images([record(scan)])
    healthy, diseased = [0, 50], [120, 0]
    assert row["value"] == pytest.approx(roc_auc_score([0, 0, 1, 1], healthy + diseased))


def test_a_film_has_a_row_without_pixels():
    (film,) = films([True], [1.0], otsu=True, probability=np.full((6, 8), 0.7))
    assert film.row == {
        "case": "0",
        "patient": "0",
        "diseased": 1,
        "mean_score": 4 / 48,
        "probability": 0.7,
        "misclassified": 0,
    }
    (row,) = film.slice_rows
    assert (row["organ_pixels"], row["diseased"], row["probability"]) == (48, 1, 0.7)
    assert np.isnan(row["mask_cm2"])
    assert average_otsu([film]) == row["otsu_threshold"]


def test_rows_of_films_and_of_labelled_cases_stand_in_one_table(scan):
    rows = with_all_columns([record(scan).row, films([True], [1.0])[0].row])
    assert rows[0].keys() == rows[1].keys()
    assert np.isnan(rows[1]["dice"])
    assert with_all_columns([]) == []


def test_dice_is_also_told_without_the_slices_that_the_classifier_gets_wrong(scan):
    probability = np.zeros((10, 10, 4))
    probability[5, 5] = [0.1, 0.9, 0.4, 0.7]  # slices 1 and 2 have a lesion, found in 1 alone; 3 has a false finding
    made = record(scan, probability=probability)
    assert [row["misclassified"] for row in made.slice_rows] == [0, 0, 1, 1]
    assert (made.row["probability"], made.row["dice_without_misclassified"]) == (0.9, 1)
    rows = {row["metric"]: row["value"] for row in summarise([made], 20.0)}
    assert rows["Dice of the masks, mean of slices with lesions"] == 0.5
    assert rows["Dice of the masks, mean of slices with lesions, without misclassified ones"] == 1
    assert rows["Dice of the masks, mean of patients, without misclassified slices"] == 1
    assert "probability" not in record(scan).row


def test_where_all_slices_are_misclassified_there_is_no_dice_without_them(scan):
    made = record(scan, probability=np.where(scan["truth"].any((0, 1)), 0.2, 0.8) * np.ones((10, 10, 1)))
    assert np.isnan(made.row["dice_without_misclassified"])
    rows = {row["metric"]: row["value"] for row in summarise([made], 20.0)}
    assert np.isnan(rows["Dice of the masks, mean of slices with lesions, without misclassified ones"])
    accuracy = summarise_images([made])[-1]
    assert (accuracy["metric"], accuracy["value"]) == ("image-level accuracy of the classifier", 0)


def dice_at_shares(scan, *shares):
    rows = record(scan, relative_thresholds=shares).slice_rows
    return [[row[dice_at(share)] for share in shares] for row in rows]


def test_masks_can_be_shares_of_the_highest_value_of_each_slice(scan):
    scan["anomaly"][2:4, 4:6, 1] = 12
    scan["anomaly"][2:4, 2:4, 2] = 0.01
    found = dice_at_shares(scan, 0.3, 0.5)
    np.testing.assert_allclose(found, [[np.nan, np.nan], [2 / 3, 1], [1, 1], [np.nan, np.nan]])


def test_a_map_without_change_finds_nothing_at_any_share(scan):
    scan["anomaly"][:] = 0
    assert dice_at_shares(scan, 0.25, 0.5)[1:3] == [[0, 0], [0, 0]]


def test_only_slices_with_lesions_in_the_organ_are_slices_with_lesions(scan):
    scan["truth"][0, 0, 0] = True
    assert [row["slice"] for row in record(scan, lesion_slices_only=True).slice_rows] == [0, 1]
    assert all(row["lesion_pixels"] for row in record(scan, lesion_slices_only=True).slice_rows)


def test_one_slice_is_a_scan_of_its_own(scan):
    flat = {key: value[..., 1] if isinstance(value, np.ndarray) else value[:2] for key, value in scan.items()}
    (row,) = record(flat, otsu=True, probability=np.full((10, 10), 0.7)).slice_rows
    assert (row["lesion_pixels"], row["probability"], row["dice_otsu"]) == (4, 0.7, 1)
