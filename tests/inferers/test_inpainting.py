from functools import partial

import numpy as np
import pytest
import torch
from inpainted import inpainting, liver_network, maps, repainter, scan
from monai.data import MetaTensor
from torch import nn

from common.inferers.baselines.controls import MedianInpainter
from common.inferers.inpainting import Inpainter
from common.networks.parts import NetworkParts
from common.transforms.adaptive_mask import adaptive_mask


@pytest.fixture(scope="module")
def network():
    return liver_network()


def median(**options):
    return inpainting(MedianInpainter(), **{"hole": adaptive_mask, **options})


def test_channels_have_the_shape_of_the_image(network):
    result = inpainting(repainter())(scan(), network)
    assert result.shape == (1, 4, 48, 40, 5)
    assert type(result) is torch.Tensor


def test_outside_the_hole_the_healthy_image_is_the_image(network):
    image = scan()
    result = maps(inpainting(repainter())(image, network))
    hole = torch.zeros(48, 40, 5, dtype=torch.bool)
    hole[15:23, 15:23, 2] = True
    assert torch.equal(result["healthy"][~hole], image[0, 0].as_tensor()[~hole])
    assert (result["healthy"][hole] != image[0, 0].as_tensor()[hole]).float().mean() > 0.9


def test_without_a_filter_the_map_is_the_difference_and_zero_elsewhere(network):
    image = scan()
    result = maps(inpainting(repainter())(image, network))
    difference = result["healthy"] - image[0, 0].as_tensor()
    assert torch.equal(result["anomaly"], difference)


def test_the_map_is_zero_outside_the_organ_and_may_leave_the_hole(network):
    result = maps(median(median_radius=1)(scan(), network))
    assert (result["anomaly"][result["organ"] == 0] == 0).all()
    assert result["anomaly"][18, 18, 2] == 40


def test_a_slice_is_examined_like_the_same_slice_of_a_volume(network):
    volume, inferer = scan()[..., 2:3], inpainting(repainter())
    flat = MetaTensor(volume[..., 0].as_tensor(), affine=volume.affine)
    assert inferer(flat, network).shape == (1, 4, 48, 40)
    torch.testing.assert_close(inferer(flat, network), inferer(volume, network)[..., 0])


def test_the_map_does_not_depend_on_the_batch(network):
    image = scan((48, 40, 6))
    image[:, 0, 16:22, 10:16, 1:4] = 10
    small, large = (inpainting(repainter(), slice_batch_size=n)(image, network) for n in (1, 8))
    torch.testing.assert_close(small, large, atol=1e-3, rtol=0)


def test_slices_without_a_hole_cost_nothing(network):
    calls = []
    watched = NetworkParts("diffusion", organ=network.organ, diffusion=network.diffusion)
    handle = network.diffusion.register_forward_hook(lambda m, inputs, out: calls.append(len(inputs[0])))
    inpainting(repainter())(scan(), watched)
    handle.remove()
    assert set(calls) == {1}


def test_an_organ_larger_than_a_patch_gets_several(network):
    result = maps(inpainting(repainter(), patch_size=(32, 32))(scan(), network))
    assert (result["anomaly"][16:22, 16:22, 2] != 0).all()


def test_the_mean_of_several_draws_is_smoother_than_one(network):
    one, many = (maps(inpainting(repainter(), num_samples=n)(scan(), network))["healthy"] for n in (1, 6))
    assert many[16:22, 16:22, 2].std() < one[16:22, 16:22, 2].std()


def test_a_finer_image_is_examined_on_the_networks_grid(network):
    image = scan((96, 80, 5), (1.5, 1.5, 5.0))
    image[:, 1] = 0
    image[:, 1, 16:80, 16:64, 1:4] = 1
    image[:, 0] = torch.where(image[:, 1] > 0, 60.0, -100.0)
    image[:, 0, 32:44, 32:44, 2] = 20
    result = maps(inpainting(repainter())(image, network))
    hole = (result["healthy"] != image[0, 0].as_tensor())[20:76, 20:60]  # the rim is darkened by the fat beside it
    assert hole[14:22, 14:22, 2].all()
    assert 12 * 12 <= hole.sum() <= 18 * 18


def test_the_filter_is_as_wide_in_mm_on_a_finer_image(network):
    image = scan((96, 80, 3), (1.0, 1.0, 5.0))
    image[:, 1] = 1
    image[:, 0] = 60.0
    image[:, 0, 30:33, 30:33, 1] = 0
    coarse, fine = (maps(median(median_radius=1, pixel_mm=mm)(image, network))["anomaly"] for mm in (3.0, 1.0))
    assert coarse.abs().max() == 0
    assert fine.max() == 60


def test_without_a_mask_the_organ_part_finds_the_organ(network):
    class EverythingBright(nn.Module):
        def forward(self, x):
            return x - (-0.2)

    finder = NetworkParts("diffusion", organ=EverythingBright(), diffusion=network.diffusion)
    result = maps(inpainting(repainter())(scan(with_organ=False), finder))
    assert torch.equal(result["organ"] > 0, scan()[0, 1].as_tensor() > 0)


def test_without_any_organ_there_is_an_error(network):
    image = scan()
    image[:, 1] = 0
    with pytest.raises(ValueError, match="no organ to search in"):
        inpainting(repainter())(image, network)


def test_nan_is_refused(network):
    image = scan()
    image[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        inpainting(repainter())(image, network)


def test_the_fitted_threshold_comes_with_the_weights(network, caplog):
    inferer = median(default_threshold=50.0)
    assert maps(inferer(scan(), network))["mask"].sum() == 0
    assert "bring no threshold" in caplog.text
    fitted = NetworkParts("diffusion", organ=network.organ, diffusion=network.diffusion)
    fitted.threshold.fill_(40.0)
    assert maps(inferer(scan(), fitted))["mask"].sum() == 36


def test_a_threshold_that_is_given_outranks_the_fitted_one(network, caplog):
    network.threshold.fill_(50.0)
    assert maps(median()(scan(), network))["mask"].sum() == 0
    assert maps(median(threshold=40.0)(scan(), network))["mask"].sum() == 36
    assert "threshold" not in caplog.text


def test_gradients_and_training_mode_are_left_alone(network):
    image = scan().requires_grad_()
    assert not inpainting(repainter())(image, network).requires_grad


def test_results_are_finite_on_a_constant_organ(network):
    image = scan()
    image[:, 0] = 50
    result = inpainting(repainter())(image, network)
    assert np.isfinite(result).all()
    assert result[0, 0].abs().max() == 0


def test_an_inpainter_sees_the_image_its_holes_and_the_median_of_the_organ_in_the_slice(network):
    seen = []

    class Watching(Inpainter):
        def __call__(self, holes, network, generators, progress):
            seen.append(holes)
            return holes.image

    inpainting(Watching(), hole=partial(adaptive_mask, dilation=0))(scan(), network)
    (holes,) = seen
    assert sorted(holes.image.unique().tolist()) == pytest.approx([-1, -0.7, -0.1, 0.1])  # beyond, fat, lesion, liver
    assert holes.hole.sum() == 36
    assert holes.median.unique().tolist() == pytest.approx([0, 0.1], abs=1e-6)
