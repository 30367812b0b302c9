import numpy as np
import pytest
from skimage.filters import threshold_otsu

from common.phantoms.ellipses import ellipses


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_what_has_changed_is_as_large_as_in_the_paper(mode):
    changes = [np.abs(drawn.healthy - drawn.image) for drawn in (ellipses(s, True, mode=mode) for s in range(24))]
    assert 0.41 < np.mean([threshold_otsu(change) for change in changes]) < 0.46
    assert 0.055 < np.mean([np.mean(change**2) for change in changes]) < 0.075


def test_a_seed_is_an_image_and_its_healthy_version():
    ill, well = ellipses(3, True), ellipses(3, False)
    np.testing.assert_array_equal(ill.healthy, well.healthy)
    np.testing.assert_array_equal(well.image, well.healthy)
    assert not well.shrunk.any()
    assert 0.02 < ill.shrunk.mean() < 0.2
    assert (ill.healthy.min(), ill.healthy.max()) == (-1, 1)
    assert ill.image.dtype == np.float32
    assert not np.array_equal(ellipses(4, False).image, well.image)


def test_nothing_changes_far_from_the_smaller_ellipse():
    drawn = ellipses(0, True)
    changed = np.abs(drawn.healthy - drawn.image) > 0.01
    assert 0.05 < changed.mean() < 0.5


def test_modes_are_drawn_apart():
    assert not np.array_equal(ellipses(0, True, mode="code").image, ellipses(0, True).image)


def test_small_images_are_means_of_what_is_drawn():
    whole, small = ellipses(1, True), ellipses(1, True, 64)
    np.testing.assert_allclose(small.image, whole.image.reshape(64, 4, 64, 4).mean((1, 3)), atol=1e-6)


def test_other_sizes_and_modes_are_refused():
    with pytest.raises(ValueError, match="size must divide 256, got 96"):
        ellipses(0, True, 96)
    with pytest.raises(ValueError, match="mode must be paper or code, got 'b'"):
        ellipses(0, True, mode="b")
