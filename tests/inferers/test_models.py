import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from common.inferers.models import all_finite, noise_predictor


def test_a_class_conditional_network_is_told_one_class():
    torch.manual_seed(0)
    unet = DiffusionModelUNet(2, 1, 1, 1, (8,), (False,), norm_num_groups=4, num_head_channels=8, num_class_embeds=2)
    nn.init.normal_(unet.out[-1].conv.weight)
    x_t, timesteps = torch.randn(3, 1, 8, 8), torch.full((3,), 5)
    for label in (0, 1):
        expected = unet(x_t, timesteps, class_labels=torch.full((3,), label))
        torch.testing.assert_close(noise_predictor(unet, label=label)(x_t, timesteps), expected)


@pytest.mark.parametrize(("spatial_dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_a_network_of_any_dimension_gives_what_it_gave_in_the_layout_that_suits_it(spatial_dims, layout):
    torch.manual_seed(0)
    unet = DiffusionModelUNet(spatial_dims, 1, 1, 1, (8,), (True,), norm_num_groups=4, num_head_channels=8)
    nn.init.normal_(unet.out[-1].conv.weight)
    x_t, timesteps = torch.randn(2, 1, *[8] * spatial_dims), torch.full((2,), 5)
    expected = unet(x_t, timesteps)
    torch.testing.assert_close(noise_predictor(unet)(x_t, timesteps), expected)
    assert unet.conv_in.conv.weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_single_value_that_is_no_number_is_seen(value):
    values = torch.randn(3, 4, 5)
    assert all_finite(values)
    assert all_finite(values[:0])
    values[2, 1, 3] = value
    assert not all_finite(values)
