from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DiffusionModelUNet, UNet
from torch import nn

from common.inferers.anomaly import (
    MedianAnomalyInferer,
    ReconstructionAnomalyInferer,
    RepaintAnomalyInferer,
)
from common.networks.parts import NetworkParts
from common.schedulers import NoiseSchedule
from common.transforms.adaptive_mask import adaptive_mask

WINDOW = (-160.0, 240.0)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    organ = UNet(2, 1, 1, (4, 8), (2,))
    unet = DiffusionModelUNet(2, 1, 1, 1, (8, 16), (False, False), norm_num_groups=4, num_head_channels=8)
    return NetworkParts("diffusion", organ=organ, diffusion=unet, copy=nn.Identity()).eval()


def scan(shape=(48, 40, 5), spacing=(3.0, 3.0, 5.0), with_organ=True):
    """Return a liver of 60 HU in fat with a lesion of 20 HU, and its mask as second channel."""
    image, organ = torch.full(shape, -100.0), torch.zeros(shape)
    inside = (slice(8, 40), slice(8, 32), *(slice(1, 4),) * (len(shape) - 2))
    organ[inside] = 1
    image[inside] = 60
    lesion = (slice(16, 22), slice(16, 22), *(slice(2, 3),) * (len(shape) - 2))
    image[lesion] = 20
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    channels = torch.stack([image, organ]) if with_organ else image[None]
    return MetaTensor(channels[None], affine=affine)


def repainter(**options):
    defaults = {
        "schedule": NoiseSchedule(100, num_inference_steps=3),
        "jump_length": 1,
        "num_resamples": 2,
        "window": WINDOW,
        "pixel_mm": 3.0,
        "patch_size": (48, 48),
        "hole": partial(adaptive_mask, dilation=1),
        "median_radius": 0,
        "progress": False,
    }
    return RepaintAnomalyInferer(**{**defaults, **options})


def channels(result):
    return dict(zip(RepaintAnomalyInferer.channels, result[0], strict=True))


def test_channels_have_the_shape_of_the_image(network):
    result = repainter()(scan(), network)
    assert result.shape == (1, 4, 48, 40, 5)
    assert type(result) is torch.Tensor


def test_outside_the_hole_the_healthy_image_is_the_image(network):
    image = scan()
    result = channels(repainter()(image, network))
    hole = torch.zeros(48, 40, 5, dtype=torch.bool)
    hole[15:23, 15:23, 2] = True
    assert torch.equal(result["healthy"][~hole], image[0, 0].as_tensor()[~hole])
    assert (result["healthy"][hole] != image[0, 0].as_tensor()[hole]).float().mean() > 0.9


def test_without_a_filter_the_map_is_the_difference_and_zero_elsewhere(network):
    image = scan()
    result = channels(repainter()(image, network))
    difference = result["healthy"] - image[0, 0].as_tensor()
    assert torch.equal(result["anomaly"], difference)


def test_the_map_is_zero_outside_the_organ_and_may_leave_the_hole(network):
    result = channels(
        MedianAnomalyInferer(window=WINDOW, pixel_mm=3.0, hole=adaptive_mask, median_radius=1)(scan(), network)
    )
    assert (result["anomaly"][result["organ"] == 0] == 0).all()
    assert result["anomaly"][18, 18, 2] == 40


def test_the_control_says_how_much_darker_than_the_median_a_lesion_is(network):
    result = channels(
        MedianAnomalyInferer(window=WINDOW, pixel_mm=3.0, hole=adaptive_mask, median_radius=0)(scan(), network)
    )
    assert (result["anomaly"][16:22, 16:22, 2] == 40).all()
    assert (result["anomaly"] != 0).sum() == 36
    assert (result["mask"] > 0).sum() == 36


def test_a_copying_autoencoder_finds_nothing(network):
    hole = partial(adaptive_mask, adaptive=False)
    inferer = ReconstructionAnomalyInferer(
        part="copy", window=WINDOW, pixel_mm=3.0, patch_size=(32, 32), hole=hole, progress=False
    )
    assert inferer(scan(), network)[0, 0].abs().max() < 1e-3


def test_a_slice_is_examined_like_the_same_slice_of_a_volume(network):
    volume = scan()[..., 2:3]
    flat = MetaTensor(volume[..., 0].as_tensor(), affine=volume.affine)
    assert repainter()(flat, network).shape == (1, 4, 48, 40)
    torch.testing.assert_close(repainter()(flat, network), repainter()(volume, network)[..., 0])


def test_the_same_seed_gives_the_same_map_and_another_another(network):
    first, again, other = (repainter(seed=s)(scan(), network) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_map_does_not_depend_on_the_batch(network):
    image = scan((48, 40, 6))
    image[:, 0, 16:22, 10:16, 1:4] = 10
    small, large = (repainter(slice_batch_size=n)(image, network) for n in (1, 8))
    torch.testing.assert_close(small, large, atol=1e-3, rtol=0)


def test_slices_without_a_hole_cost_nothing(network):
    calls = []
    watched = NetworkParts("diffusion", organ=network.organ, diffusion=network.diffusion)
    handle = network.diffusion.register_forward_hook(lambda m, inputs, out: calls.append(len(inputs[0])))
    repainter()(scan(), watched)
    handle.remove()
    assert set(calls) == {1}


def test_an_organ_larger_than_a_patch_gets_several(network):
    result = channels(repainter(patch_size=(32, 32))(scan(), network))
    assert (result["anomaly"][16:22, 16:22, 2] != 0).all()


def test_the_mean_of_several_draws_is_smoother_than_one(network):
    one, many = (channels(repainter(num_samples=n)(scan(), network))["healthy"] for n in (1, 6))
    assert many[16:22, 16:22, 2].std() < one[16:22, 16:22, 2].std()


def test_a_finer_image_is_examined_on_the_networks_grid(network):
    image = scan((96, 80, 5), (1.5, 1.5, 5.0))
    image[:, 1] = 0
    image[:, 1, 16:80, 16:64, 1:4] = 1
    image[:, 0] = torch.where(image[:, 1] > 0, 60.0, -100.0)
    image[:, 0, 32:44, 32:44, 2] = 20
    result = channels(repainter()(image, network))
    hole = (result["healthy"] != image[0, 0].as_tensor())[20:76, 20:60]  # the rim is darkened by the fat beside it
    assert hole[14:22, 14:22, 2].all()
    assert 12 * 12 <= hole.sum() <= 18 * 18


def test_the_filter_is_as_wide_in_mm_on_a_finer_image(network):
    coarse = MedianAnomalyInferer(window=WINDOW, pixel_mm=3.0, hole=adaptive_mask, median_radius=1)
    image = scan((96, 80, 3), (1.0, 1.0, 5.0))
    image[:, 1] = 1
    image[:, 0] = 60.0
    image[:, 0, 30:33, 30:33, 1] = 0
    assert channels(coarse(image, network))["anomaly"].abs().max() == 0
    coarse.pixel_mm = 1.0
    assert channels(coarse(image, network))["anomaly"].max() == 60


def test_without_a_mask_the_organ_part_finds_the_organ(network):
    class EverythingBright(nn.Module):
        def forward(self, x):
            return x - (-0.2)

    finder = NetworkParts("diffusion", organ=EverythingBright(), diffusion=network.diffusion)
    result = channels(repainter()(scan(with_organ=False), finder))
    assert torch.equal(result["organ"] > 0, scan()[0, 1].as_tensor() > 0)


def test_without_any_organ_there_is_an_error(network):
    image = scan()
    image[:, 1] = 0
    with pytest.raises(ValueError, match="no organ to search in"):
        repainter()(image, network)


def test_nan_is_refused(network):
    image = scan()
    image[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        repainter()(image, network)


def test_the_fitted_threshold_comes_with_the_weights(network, caplog):
    inferer = MedianAnomalyInferer(window=WINDOW, pixel_mm=3.0, hole=adaptive_mask, median_radius=0, threshold=50.0)
    assert channels(inferer(scan(), network))["mask"].sum() == 0
    assert "bring no threshold" in caplog.text
    fitted = NetworkParts("diffusion", organ=network.organ, diffusion=network.diffusion)
    fitted.threshold.fill_(40.0)
    assert channels(inferer(scan(), fitted))["mask"].sum() == 36


def test_gradients_and_training_mode_are_left_alone(network):
    image = scan().requires_grad_()
    assert not repainter()(image, network).requires_grad


def test_results_are_finite_on_a_constant_organ(network):
    image = scan()
    image[:, 0] = 50
    result = repainter()(image, network)
    assert np.isfinite(result).all()
    assert result[0, 0].abs().max() == 0
