import numpy as np
import pytest

from common.metrics.pixels import PooledCounts, count_scores
from common.metrics.segmentation import (
    NUM_BINS,
    calibration_error,
    examine_segmentation,
    examine_sizes,
    retention,
    retention_area,
    summarise_segmentations,
    summarise_sizes,
)

SPACING = [2.0, 2.0, 5.0]


def square(first, last, size=20, slices=(0, 1, 2), count=3):
    mask = np.zeros((size, size, count), dtype=bool)
    for z in slices:
        mask[first:last, first:last, z] = True
    return mask


def record(case="a", mask=None, truth=None, mean=None, uncertainty=None):
    mask, truth = square(5, 10) if mask is None else mask, square(5, 10) if truth is None else truth
    mean = mask.astype(float) if mean is None else mean
    uncertainty = np.zeros(mask.shape) if uncertainty is None else uncertainty
    return examine_segmentation(case, case, mean, uncertainty, mask, np.ones(mask.shape, bool), truth, SPACING)


def table(*records, **options):
    return {row["metric"]: row["value"] for row in summarise_segmentations(records, **options)}


def test_a_perfect_segmentation():
    found = table(record())
    assert found["Dice, mean of slices"] == found["IoU in 3-D, mean of patients"] == 1
    assert found["HD95, mm, mean of slices with a mask"] == 0
    assert found["share of slices without a mask"] == 0
    assert found["expected calibration error"] == 0
    assert found["Brier score, mean of patients"] == 0
    assert found["error rate"] == 0


def test_slices_where_nothing_is_segmented_count_as_0_or_not_at_all():
    found = table(record(mask=square(5, 10, slices=(0, 1))))
    assert found["Dice, mean of slices"] == pytest.approx(2 / 3)
    assert found["Dice, mean of slices with a mask"] == 1
    assert found["share of slices without a mask"] == pytest.approx(1 / 3)
    assert found["Dice in 3-D, mean of patients"] == pytest.approx(0.8)


def test_slices_without_lesions_have_no_dice():
    rows = record(mask=square(5, 10), truth=square(5, 10, slices=(1,))).slice_rows
    assert [np.isfinite(row["dice"]) for row in rows] == [False, True, False]
    assert [row["mask_pixels"] for row in rows] == [25, 25, 25]


def test_calibration_compares_probabilities_with_how_often_they_are_true():
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 1, (50, 50, 3))
    truth = rng.uniform(0, 1, mean.shape) < mean
    right = record(mean=mean, mask=mean > 0.5, truth=truth)
    wrong = record(mean=mean**3, mask=mean > 0.5, truth=truth)
    assert right.calibration.shape == (3, NUM_BINS)
    assert calibration_error(right.calibration) < 0.03
    assert calibration_error(wrong.calibration) == pytest.approx(0.25, abs=0.02)  # mean of p - p^3


def test_the_uncertainty_may_know_the_errors_or_not():
    mask, truth = square(5, 10), square(5, 12)
    wrong = (mask != truth).astype(float)
    knowing, ignorant, misled = (
        table(record(mask=mask, truth=truth, uncertainty=u)) for u in (wrong, 0 * wrong, 1 - wrong)
    )
    name = "AUROC of the uncertainty for errors"
    assert [found[name] for found in (knowing, ignorant, misled)] == [1, 0.5, 0]
    area = "area under the error retention curve"
    assert knowing[area] < ignorant[area] < misled[area]
    assert knowing["error rate"] == pytest.approx(24 / 400)
    assert ignorant[area] == pytest.approx(24 / 400)  # whichever pixels leave first, the rate stays


def test_retention_by_hand():
    curve = PooledCounts([count_scores([0.9, 0.8, 0.1, 0.0], [True, False, True, False])]).curve()
    kept, rate = retention(curve)
    assert kept.tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert rate.tolist() == pytest.approx([0.5, 1 / 3, 0.5, 0, 0])
    assert retention_area(curve) == pytest.approx(0.25 * (0.25 + 1 / 3 + 0.5))


def test_bad_slices_that_are_uncertain_correlate():
    records = []
    for i in range(4):
        uncertainty = np.full((20, 20, 3), 0.1 * i)
        records.append(record(f"p{i}", mask=square(5 + i, 10 + i), uncertainty=uncertainty))
    assert table(*records)["correlation of Dice and mean uncertainty over slices (Spearman)"] == pytest.approx(-1)


def test_slices_that_were_not_examined_do_not_count_for_any_number_of_members():
    drawn, organ = square(5, 10)[None].repeat(2, axis=0), np.ones((20, 20, 3), bool)
    organ[..., 0], drawn[..., 0] = False, False
    rows = summarise_sizes([examine_sizes(drawn.astype(float), organ, square(5, 10), SPACING)])
    assert [(row["members"], row["dice"], row["hd95_mm"]) for row in rows] == [(1, 1, 0), (2, 1, 0)]


def test_members_without_a_mask_have_no_distance():
    drawn, organ = np.stack([square(5, 10), square(0, 0)]).astype(float), np.ones((20, 20, 3), bool)
    single, _ = summarise_sizes([examine_sizes(drawn, organ, square(5, 10), SPACING)])
    assert (single["dice"], single["dice_std"]) == (0.5, 0.5)
    assert (single["hd95_mm"], single["hd95_mm_std"]) == (0, 0)


def test_intervals_are_over_patients():
    records = [record(f"p{i}", mask=square(5 + i, 10 + i)) for i in range(4)]
    rows = summarise_segmentations(records, num_resamples=50)
    dice = rows[0]
    assert dice["metric"] == "Dice, mean of slices"
    assert dice["low"] < dice["value"] < dice["high"]


def test_a_slice_is_a_case_too():
    mask = square(5, 10)[..., 0]
    found = examine_segmentation("a", "a", mask * 1.0, mask * 0.0, mask, np.ones_like(mask), mask, SPACING[:2])
    assert found.row["dice"] == 1
    assert len(found.slice_rows) == 1
