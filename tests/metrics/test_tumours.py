import numpy as np
import pytest

from common.metrics.tumours import by_column, examine_tumour_segmentation, summarise_tumours

SPACING = (2.0, 2.0, 2.0)


def box(*ranges, shape=(40, 40, 30)):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


SMALL = box((4, 8), (4, 8), (4, 8))  # a ball of 9.9 mm
MEDIUM = box((20, 32), (20, 32), (10, 22))  # 29.8 mm


def examined(case, mask, truth, **columns):
    return examine_tumour_segmentation(case, case, mask.astype(float), mask, truth, SPACING, columns=columns)


def values(records):
    return {row["metric"]: row["value"] for row in summarise_tumours(records)}


def test_each_tumour_is_found_or_not():
    touched = box((7, 10), (4, 8), (4, 8)) | MEDIUM
    record = examined("a", touched, SMALL | MEDIUM)
    small, medium = record.slice_rows
    assert small["diameter_mm"] == pytest.approx(9.93, abs=0.01)
    assert (small["covered"], small["found"], small["found_10_percent"]) == (0.25, 1, 1)
    assert (medium["covered"], medium["found"]) == (1, 1)
    assert record.row["false_positives"] == 0
    assert record.row["tumours"] == 2


def test_a_corner_is_found_by_any_overlap_and_not_by_ten_percent():
    record = examined("a", box((7, 9), (7, 9), (7, 9)), SMALL)
    (row,) = record.slice_rows
    assert (row["found"], row["found_10_percent"]) == (1, 0)


def test_sensitivity_is_told_by_size():
    found = values([examined("a", MEDIUM, SMALL | MEDIUM), examined("b", SMALL, SMALL)])
    assert found["sensitivity, tumours of at most 20 mm"] == 0.5
    assert found["sensitivity, tumours of 0 to 10 mm"] == 0.5
    assert found["sensitivity, tumours of 20 to 40 mm"] == 1
    assert np.isnan(found["sensitivity, tumours above 40 mm"])
    assert found["sensitivity, all tumours"] == pytest.approx(2 / 3)


def test_healthy_scans_count_for_false_positives_and_not_for_overlap():
    nothing = np.zeros_like(SMALL)
    found = values(
        [examined("a", SMALL, SMALL), examined("b", SMALL | MEDIUM, nothing), examined("c", nothing, nothing)]
    )
    assert found["DSC"] == found["NSD at 2 mm"] == 1
    assert found["false positives a scan"] == pytest.approx(2 / 3)
    assert found["share of healthy scans without a false positive"] == 0.5


def test_the_organ_has_a_dice_where_it_is_known():
    known = examine_tumour_segmentation("a", "a", SMALL * 1.0, SMALL, SMALL, SPACING, organ=(MEDIUM, MEDIUM | SMALL))
    assert known.row["organ_dice"] == pytest.approx(2 * 1728 / (2 * 1728 + 64))
    assert np.isnan(examined("a", SMALL, SMALL).row["organ_dice"])


def test_cases_are_told_apart_by_words_and_by_thirds_of_numbers():
    records = [
        examined(f"{age}", SMALL if age < 50 else MEDIUM, SMALL, sex="F" if age % 2 else "M", age=age)
        for age in (30, 41, 52, 63, 74, 85)
    ]
    rows = {(row["group"], row["metric"]): row for row in by_column(records, "sex")}
    assert rows["F", "DSC"]["value"] == pytest.approx(1 / 3)
    assert rows["F", "DSC"]["cases"] == 3
    ages = {row["group"]: row["value"] for row in by_column(records, "age") if row["metric"] == "DSC"}
    assert ages == {"30 to 48.3333": 1, "48.3333 to 66.6667": 0, "66.6667 to 85": 0}
    assert {row["group"] for row in by_column(records, "scanner")} == {"unknown"}


def test_intervals_are_over_patients():
    rows = summarise_tumours([examined("a", SMALL, SMALL), examined("b", MEDIUM, SMALL)], num_resamples=50)
    (row,) = (row for row in rows if row["metric"] == "DSC")
    assert (row["low"], row["value"], row["high"]) == (0, 0.5, 1)
