import nibabel as nib
import numpy as np
import pytest
import torch
from inpainted import inpainting, scan
from inpainted import maps as inpainted_maps
from translated import brain, maps, translating

from common.inferers.baselines.controls import (
    BlurTranslator,
    ChannelTranslator,
    EqualizedTranslator,
    MeanChangeTranslator,
    MedianInpainter,
    MedianTranslator,
)
from common.inferers.translation import Batch
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


def test_a_channel_is_a_map_as_it_is_or_above_its_median(image):
    plain = maps(translating(ChannelTranslator, channel=1, **PLAIN)(image, None))
    voxels, head = image[0, 1].as_tensor(), plain["organ"][0] > 0
    torch.testing.assert_close(plain["anomaly"][0], torch.where(head, voxels, 0))
    above = maps(translating(ChannelTranslator, channel=1, above_median=True, **PLAIN)(image, None))["anomaly"][0]
    for k in range(3):
        inside = voxels[..., k][head[..., k]]
        torch.testing.assert_close(above[..., k][head[..., k]], (inside - inside.median()).clamp(min=0))


def test_the_other_control_is_the_rank_of_a_pixel_in_its_slice(image):
    found = maps(translating(EqualizedTranslator, channel=1, **PLAIN)(image, None))["anomaly"][0, ..., 1]
    voxels = image[0, 1, ..., 1].as_tensor()
    head = voxels > 0
    order = voxels[head].argsort()
    assert (found[head][order].diff() > -1e-5).all()
    assert found[head].mean() == pytest.approx(0.5, abs=0.05)
    assert (found[~head] == 0).all()


def test_a_blurred_image_keeps_its_mean_and_without_a_blur_nothing_changes():
    image = torch.rand(2, 1, 24, 24)
    batch = Batch(image, image > -1)
    assert BlurTranslator(sigma=0.0)(batch, None, [], iter) is image
    blurred = BlurTranslator(sigma=2.0)(batch, None, [], iter)
    assert blurred[..., 8:16, 8:16].std() < 0.5 * image[..., 8:16, 8:16].std()
    assert blurred[..., 8:16, 8:16].mean() == pytest.approx(float(image[..., 4:20, 4:20].mean()), abs=0.05)


def test_what_others_changed_by_in_the_mean_is_added(tmp_path):
    def save(name, value):
        nib.save(nib.Nifti1Image(np.full((4, 4), value, dtype=np.float32), np.eye(4)), tmp_path / name)
        return str(tmp_path / name)

    changes = {"a": (0.0, 1.0), "b": (1.0, -2.0), "healthy": (1.0, 1.0)}
    items = [{"image": save(f"{k}.nii.gz", x), "twin": save(f"{k}_twin.nii.gz", y)} for k, (x, y) in changes.items()]
    image = torch.rand(2, 1, 4, 4)
    found = MeanChangeTranslator(items=items, intensity_range=(-1.0, 1.0))(Batch(image, image > -1), None, [], iter)
    torch.testing.assert_close(found, image + 1)  # half of the mean of 1 and 3
