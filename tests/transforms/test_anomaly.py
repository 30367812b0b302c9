import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.transforms.adaptive_mask import smooth
from common.transforms.anomaly import anomaly_map


def random_case(seed, shape):
    """Return an image, its healthy version and an organ anywhere in it."""
    rng = np.random.default_rng(seed)
    image, healthy = rng.normal(50, 20, (2, *shape)).astype(np.float32)
    organ = np.zeros(shape, dtype=bool)
    x, y = rng.integers(0, 6, 2)
    organ[x : x + 5, y : y + 4] = rng.random((5, 4, *shape[2:])) > 0.3
    return image, healthy, organ


def test_what_is_darker_than_healthy_is_positive_and_what_is_brighter_is_negative():
    healthy, organ = np.full((2, 2), 60.0), np.ones((2, 2), dtype=bool)
    image = np.array([[60.0, 20.0], [70.0, 59.5]])
    np.testing.assert_array_equal(anomaly_map(image, healthy, organ), [[0, 40], [-10, 0.5]])


RADII = [0, 1, 2, 3, [1, 1]]


@given(st.integers(0, 99), st.sampled_from(RADII), st.sampled_from([(10, 9), (10, 9, 3)]))
def test_the_map_is_that_of_the_whole_image_set_to_zero_outside_the_organ(seed, radius, shape):
    image, healthy, organ = random_case(seed, shape)
    expected = np.where(organ, smooth(healthy - image, radius), 0)
    np.testing.assert_array_equal(anomaly_map(image, healthy, organ, radius), expected)


def test_a_volume_is_a_stack_of_slices():
    image, healthy, organ = random_case(0, (10, 9, 4))
    slices = [anomaly_map(image[..., k], healthy[..., k], organ[..., k], 1) for k in range(4)]
    np.testing.assert_array_equal(anomaly_map(image, healthy, organ, 1), np.stack(slices, axis=-1))


@pytest.mark.parametrize("radius", [1, 2])
def test_the_filter_removes_what_is_smaller_than_half_its_window(radius):
    image, healthy, organ = np.zeros((15, 15)), np.zeros((15, 15)), np.ones((15, 15), dtype=bool)
    healthy[7 : 7 + radius, 7 : 7 + radius] = 100
    assert not anomaly_map(image, healthy, organ, radius).any()


def test_what_lies_around_the_organ_weighs_in_the_filter():
    image, healthy, organ = np.zeros((9, 9)), np.zeros((9, 9)), np.zeros((9, 9), dtype=bool)
    organ[4, 3:6] = True
    healthy[organ] = 100
    assert not anomaly_map(image, healthy, organ, 1).any()


def test_without_an_organ_the_map_is_zero():
    assert not anomaly_map(np.zeros((4, 4)), np.ones((4, 4)), np.zeros((4, 4), dtype=bool), 1).any()


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_the_map_is_float32_and_its_inputs_stay(dtype):
    image, healthy, organ = random_case(1, (10, 9))
    image, healthy = image.astype(dtype), healthy.astype(dtype)
    copies = image.copy(), healthy.copy(), organ.copy()
    assert anomaly_map(image, healthy, organ, 1).dtype == np.float32
    for array, copy in zip((image, healthy, organ), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
