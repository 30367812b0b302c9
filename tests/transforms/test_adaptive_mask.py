import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import GOLDEN

from common.transforms.adaptive_mask import adaptive_mask, organ_median, smooth

REAL_CT = Path(os.environ.get("REAL_CT_DIR", "no such folder"))
"""Folder with TotalSegmentator's test CT, ``ct.nii.gz`` and ``organs.nii.gz``, which is not ours to ship."""


@pytest.fixture
def liver():
    """A liver of 50 HU in fat, with a lesion of 3x3 pixels at 20 HU, a dark pixel, and a second, darker slice."""
    image, organ = np.full((20, 20, 2), -100.0), np.zeros((20, 20, 2), dtype=bool)
    organ[2:18, 2:18] = True
    image[organ] = 50
    image[6:9, 6:9, 0] = 20
    image[14, 14, 0] = 20
    image[2:18, 2:18, 1] = 10
    return image, organ


def test_what_is_20_hu_darker_than_the_median_is_masked(liver):
    mask = adaptive_mask(*liver)
    assert mask.sum() == 10
    assert mask[6:9, 6:9, 0].all()


def test_the_median_is_that_of_the_slice_by_default(liver):
    assert not adaptive_mask(*liver)[..., 1].any()
    assert organ_median(*liver).tolist() == [50, 10]


def test_against_the_volumes_median_the_dark_slice_is_masked(liver):
    image, organ = liver
    image, organ = np.concatenate([image, image[..., :1]], -1), np.concatenate([organ, organ[..., :1]], -1)
    assert adaptive_mask(image, organ, reference="volume")[..., 1].sum() == organ[..., 1].sum()


def test_a_prefilter_drops_single_pixels_and_keeps_lesions(liver):
    mask = adaptive_mask(*liver, prefilter_radius=1)
    assert not mask[14, 14, 0]
    assert mask[7, 7, 0]


def test_fat_around_the_organ_does_not_leak_into_the_prefilter(liver):
    assert not adaptive_mask(*liver, prefilter_radius=2)[2, 2:18, 0].any()


def test_small_components_go(liver):
    mask = adaptive_mask(*liver, min_component=2)
    assert mask.sum() == 9


def test_dilation_stays_within_the_organ(liver):
    image, organ = liver
    image[2:4, 2:4, 0] = 20
    mask = adaptive_mask(image, organ, dilation=1)
    assert mask[5:10, 5:10, 0].all()
    assert not mask[~organ].any()


def test_an_eroded_rim_is_not_searched(liver):
    image, organ = liver
    image[2, 2:18, 0] = 0
    assert adaptive_mask(image, organ)[2, 5, 0]
    assert not adaptive_mask(image, organ, rim_erosion=1)[2, 5, 0]


def test_without_adaption_the_whole_organ_is_the_hole(liver):
    image, organ = liver
    assert np.array_equal(adaptive_mask(image, organ, adaptive=False), organ)


def test_a_slice_alone_gives_what_it_gives_in_its_volume(liver):
    image, organ = liver
    options = {"prefilter_radius": 1, "dilation": 1, "min_component": 2}
    alone = adaptive_mask(image[..., 0], organ[..., 0], **options)
    assert np.array_equal(alone, adaptive_mask(image, organ, **options)[..., 0])


def test_an_empty_organ_gives_an_empty_mask(liver):
    image, organ = liver
    assert not adaptive_mask(image, organ & False).any()


def test_another_reference_is_refused(liver):
    with pytest.raises(ValueError, match="'slice' or 'volume'"):
        adaptive_mask(*liver, reference="patient")


def test_smoothing_keeps_slices_apart(liver):
    image, _ = liver
    assert np.array_equal(smooth(image, 1)[..., 0], smooth(image[..., 0], 1))


def test_several_radii_are_applied_one_after_the_other(liver):
    image, _ = liver
    np.testing.assert_array_equal(smooth(image, [0, 1, 2]), smooth(smooth(image, 1), 2))


@pytest.mark.skipif(not (REAL_CT / "ct.nii.gz").exists(), reason="no real CT at hand, REAL_CT_DIR is not set")
def test_counts_on_a_real_ct_equal_the_recording():
    recorded = json.loads((GOLDEN / "adaptive_mask_real_ct.json").read_text())
    image = np.asarray(nib.load(REAL_CT / "ct.nii.gz").dataobj)
    liver = np.asarray(nib.load(REAL_CT / "organs.nii.gz").dataobj) == 5
    mask = adaptive_mask(image, liver)
    expected = {entry["z"]: entry["mask_px"] for entry in recorded["slices"]}
    assert {z: int(mask[..., z].sum()) for z in expected} == expected


@pytest.mark.parametrize("radius", [-1, [1, -1]])
def test_a_filter_of_a_negative_radius_is_refused(radius):
    with pytest.raises(ValueError, match="must be >= 0, got"):
        smooth(np.zeros((4, 4)), radius)


@pytest.mark.parametrize("shape", [(30, 26), (30, 26, 3)])
@pytest.mark.parametrize("radius", [0, 1, 4, (1, 2)])
@pytest.mark.parametrize("zeros", [0, 0.4, 0.5, 0.6, 1])
def test_a_filter_that_is_wanted_in_places_says_the_same_there(shape, radius, zeros):
    rng = np.random.default_rng(0)
    image, wanted = rng.normal(size=shape).astype(np.float32), rng.random(shape) > 0.7
    image[rng.random(shape) < zeros] = 0
    before = image.copy()
    assert np.array_equal(smooth(image, radius, wanted)[wanted], smooth(image, radius)[wanted])
    assert np.array_equal(image, before)
