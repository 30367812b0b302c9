"""Numbers of maps on patients, by hand."""

import numpy as np
import pytest
from studied import HEAD, small_bundle

from common.metrics.detection import examine_case
from common.studies.detection import DetectionPlan, DetectionStudy
from common.studies.patient_tables import Counted, best_of_patients, compare, mean_ap, statistics_of, terciles
from common.studies.plan import Method

ORGAN = np.ones((4, 4, 8), dtype=bool)


def record(case, lesions, false=()):
    """Return the record of a map that finds lesions, ``{slice: pixels}``, and something in other slices."""
    truth = np.zeros((4, 4, 8), dtype=bool)
    for z, count in lesions.items():
        truth[..., z].flat[:count] = True
    mask = truth.copy()
    mask[0, 0, list(false)] = True
    anomaly = 0.1 + mask.astype(np.float32)
    return examine_case(case, case, anomaly, mask, ORGAN, truth, [10.0, 10.0, 10.0], overlaps=True)


@pytest.fixture
def records():
    """Two patients with lesions and one without; false pixels at an end of the stack and in its middle."""
    return [record("a", {3: 2, 4: 6}), record("b", {3: 12}, false=[0, 4]), record("c", {}, false=[7])]


def counted(sizes=None):
    return Counted(dict.fromkeys("abc", 8), sizes or {"small": (1, 6), "large": (6, np.inf)})


def numbers(records, **options):
    return {name: of(np.ones(len(records))) for name, of in statistics_of([records], counted(**options)).items()}


def test_means_are_of_patients_with_lesions(records):
    found = numbers(records)
    assert found["ap"] == pytest.approx(np.mean([r.row["ap"] for r in records[:2]]))
    assert found["dice"] == pytest.approx(np.mean([1, 24 / 26]))
    assert mean_ap([records])(np.ones(3)) == found["ap"]


def test_masks_of_slices_without_lesion_are_counted_at_the_ends_and_in_the_middle(records):
    found = numbers(records)
    assert found["mask_cm2_in_slices_without_lesion"] == pytest.approx(3 / 21)
    assert found["mask_cm2_in_slices_without_lesion_in_the_middle_half"] == pytest.approx(1 / 9)  # slices 2 to 5


def test_slices_are_told_by_the_mean_of_the_map_and_by_size(records):
    found = numbers(records)
    scores = [(s["mean_score"], s["diseased"]) for r in records for s in r.slice_rows]
    pairs = [(x > y) + 0.5 * (x == y) for x, ill in scores if ill for y, other in scores if not other]
    assert found["auroc_of_slices_by_the_mean_of_the_map"] == pytest.approx(np.mean(pairs))
    assert found["ap_of_slices_small"] == 1
    assert found["slice_hd95_mm"] == 0


def test_thirds_of_the_slices_with_lesions(records):
    assert terciles(records) == {"below_5": (1, 5), "5_to_7": (5, 8), "8_or_more": (8, np.inf)}


def test_rows_are_compared_with_one_of_them_and_have_the_same_columns(records):
    worse = [record("a", {3: 2, 4: 6}, false=range(3)), record("b", {3: 12}, false=range(8)), record("c", {})]
    for r in records:
        r.row.update(calls=5.0, gradients=0.0, seconds=1.0)
    rows = compare({"ours": [records], "theirs": [worse]}, "theirs", counted(), 20)
    assert rows[0]["dice_ahead"] == pytest.approx(rows[0]["dice"] - rows[1]["dice"])
    assert rows[1]["dice_ahead"] == 0
    assert rows[0]["calls_a_slice"] == 5
    assert np.isnan(rows[1]["calls_a_slice"])
    assert rows[0].keys() == rows[1].keys()


def test_a_threshold_is_that_of_the_largest_mean_of_the_patients_dice(tmp_path):
    examined = DetectionStudy(small_bundle(tmp_path), DetectionPlan(HEAD, [], ()), tmp_path)
    cases = examined.cases("heads", "validation", None)
    (seeds,) = examined.examine([Method("ours", radii=[[1]])], cases, "validation", 1).values()
    threshold = best_of_patients(seeds[0])

    def mean_dice(limit):
        dice = []
        for record in seeds[0]:
            called = record.counts.scores >= limit
            hit = record.counts.positives[called].sum()
            total = hit + record.counts.negatives[called].sum() + record.counts.positives.sum()
            dice += [2 * hit / total] if record.counts.positives.sum() else []
        return np.mean(dice)

    choices = np.unique(np.concatenate([record.counts.scores for record in seeds[0]]))
    assert mean_dice(threshold) == pytest.approx(max(map(mean_dice, choices)))
