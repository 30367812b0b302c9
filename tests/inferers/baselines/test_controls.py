import pytest
import torch
from inpainted import inpainting, scan
from inpainted import maps as inpainted_maps
from translated import brain, maps, translating

from common.inferers.baselines.controls import EqualizedTranslator, MedianInpainter, MedianTranslator
from common.transforms.adaptive_mask import adaptive_mask

PLAIN = {"normalize": "none", "classifier": None}


@pytest.fixture
def image():
    return brain(scale=1.0)


def test_the_control_says_how_much_darker_than_the_median_a_lesion_is():
    result = inpainted_maps(inpainting(MedianInpainter(), hole=adaptive_mask)(scan(), None))
    assert (result["anomaly"][16:22, 16:22, 2] == 40).all()
    assert (result["anomaly"] != 0).sum() == 36
    assert (result["mask"] > 0).sum() == 36


def test_the_control_is_the_distance_to_the_median_of_head_slice_and_channel(image):
    result = maps(translating(MedianTranslator, **PLAIN)(image, None))
    head = result["organ"][0] > 0
    for k in range(3):
        for c in range(2):
            inside = image[0, c, ..., k].as_tensor()[head[..., k]]
            torch.testing.assert_close(result["translated"][c, ..., k][head[..., k]], inside.median().expand_as(inside))


def test_the_other_control_is_the_rank_of_a_pixel_in_its_slice(image):
    found = maps(translating(EqualizedTranslator, channel=1, **PLAIN)(image, None))["anomaly"][0, ..., 1]
    voxels = image[0, 1, ..., 1].as_tensor()
    head = voxels > 0
    order = voxels[head].argsort()
    assert (found[head][order].diff() > -1e-5).all()
    assert found[head].mean() == pytest.approx(0.5, abs=0.05)
    assert (found[~head] == 0).all()
