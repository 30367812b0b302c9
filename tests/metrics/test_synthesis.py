import numpy as np
import pytest

from common.metrics.synthesis import examine_tumours

SPACING = (2.0, 2.0, 2.0)


def scene(noise=10.0, darker=40.0, seed=0):
    random = np.random.default_rng(seed)
    tumours = np.zeros((30, 30, 30), dtype=bool)
    tumours[6:12, 6:12, 6:12] = tumours[20:24, 20:24, 20:24] = True
    organ = np.zeros_like(tumours)
    organ[2:28, 2:28, 2:28] = True
    before = 50 + noise * random.standard_normal(tumours.shape)
    return np.where(tumours, before - darker, before), tumours, organ, before


def test_each_tumour_has_its_size_contrast_and_change():
    image, tumours, organ, before = scene()
    large, small = examine_tumours(image, tumours, organ, SPACING, before)
    assert large["volume_ml"] == pytest.approx(6**3 * 8 / 1000)
    assert small["diameter_mm"] == pytest.approx(np.cbrt(6 * 64 * 8 / np.pi))
    for tumour in (large, small):
        assert tumour["contrast_hu"] == pytest.approx(-40, abs=4)
        assert tumour["change_hu"] == pytest.approx(40)
        assert tumour["inside"] == 1


def test_the_noise_ratio_is_one_for_equal_noise_and_small_for_a_flat_tumour():
    image, tumours, organ, _ = scene(darker=0.0)
    assert examine_tumours(image, tumours, organ, SPACING)[0]["noise_ratio"] == pytest.approx(1, abs=0.2)
    flat = np.where(tumours, 50.0, image)
    assert examine_tumours(flat, tumours, organ, SPACING)[0]["noise_ratio"] < 0.4


def test_a_tumour_that_leaves_the_organ_says_how_much_of_it_is_inside():
    image, tumours, organ, _ = scene()
    organ[:9] = False
    assert examine_tumours(image, tumours, organ, SPACING)[0]["inside"] == 0.5


def test_a_tumour_with_no_organ_around_it_has_no_contrast():
    image, tumours, _, _ = scene()
    rows = examine_tumours(image, tumours, tumours, SPACING)
    assert all(np.isnan(row["contrast_hu"]) and np.isnan(row["noise_ratio"]) for row in rows)
    assert examine_tumours(image, tumours & False, tumours, SPACING) == []
