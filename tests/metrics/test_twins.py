import numpy as np
import pytest
from skimage.filters import threshold_otsu

from common.metrics.twins import examine_twin, scored, similarity, summarise_twins, true_threshold

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(32, 32)).astype(np.float32)
TWIN = IMAGE.copy()
TWIN[8:16, 8:16] += 2


def records(healthy):
    """Return one diseased case and one healthy one, of which a method says so much."""
    ill = examine_twin("a", "a", IMAGE, healthy, TWIN)
    well = examine_twin("b", "b", IMAGE, IMAGE + 0.5, IMAGE)
    return [ill, well]


def values(found):
    return {row["metric"]: row["value"] for row in summarise_twins(scored(found))}


def test_a_perfect_difference():
    found = values(records(TWIN))
    assert found["Dice of the difference at the threshold of true ones"] == 1
    assert found["pixel AUROC of the difference, mean of images"] == 1
    assert found["squared error of the difference"] == 0
    assert found["SSIM of the difference"] == pytest.approx(1)
    assert found["squared error of healthy images"] == pytest.approx(0.25)
    assert found["squared error of no difference at all"] == pytest.approx(4 / 16)


def test_no_difference_at_all():
    found = values(records(IMAGE))
    assert found["Dice of the difference at the threshold of true ones"] == 0
    assert found["pixel AUROC of the difference, mean of images"] == 0.5
    assert found["squared error of the difference"] == found["squared error of no difference at all"]
    assert found["SSIM of the difference"] == 0


def test_signs_count_in_the_error_and_not_in_what_is_found():
    found = values(records(2 * IMAGE - TWIN))
    assert found["Dice of the difference at the threshold of true ones"] == 1
    assert found["squared error of the difference"] == pytest.approx(4 * 4 / 16)


def test_the_threshold_is_the_mean_of_otsu():
    other = examine_twin("c", "c", IMAGE, IMAGE, IMAGE + 3 * (TWIN - IMAGE))
    expected = [threshold_otsu(np.abs(k * (TWIN - IMAGE))) for k in (1, 3)]
    assert true_threshold([*records(IMAGE), other]) == pytest.approx(np.mean(expected))
    assert np.isnan(true_threshold(records(IMAGE)[1:]))


def test_slices_of_volumes_are_compared_one_by_one():
    flat = np.zeros_like(IMAGE)
    pair = similarity(np.stack([IMAGE, flat], axis=-1), np.stack([IMAGE, IMAGE], axis=-1))
    assert pair == pytest.approx(0.5)


def test_intervals_are_drawn_over_patients():
    rows = summarise_twins(scored(records(TWIN)), num_resamples=20)
    assert {"low", "high"} <= rows[0].keys()
