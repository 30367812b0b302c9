import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers.slices import SliceInferer, per_slice
from common.networks.parts import NetworkParts


class Doubling(SliceInferer):
    channels = ("doubled",)

    def examine(self, volume, pixel_mm, network):
        return 2 * volume


def test_images_are_examined_one_after_another_without_their_metadata():
    images = MetaTensor(torch.ones(2, 1, 4, 4, 2), affine=torch.eye(4))
    result = Doubling(pixel_mm=1.0, threshold=0.0)(images, None)
    assert type(result) is torch.Tensor
    assert torch.equal(result, torch.full((2, 1, 4, 4, 2), 2.0))


def test_an_image_without_an_affine_or_with_nan_is_refused():
    with pytest.raises(ValueError, match="no affine"):
        Doubling(pixel_mm=1.0, threshold=0.0)(torch.ones(1, 1, 4, 4), None)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Doubling(pixel_mm=1.0, threshold=0.0)(
            MetaTensor(torch.full((1, 1, 4, 4), torch.inf), affine=torch.eye(4)), None
        )


def test_the_organ_part_finds_the_largest_part_and_fills_its_holes():
    class BrightIsOrgan(nn.Module):
        def forward(self, x):
            assert x.shape[-2:] == (16, 32)
            return x - 0.5

    image = torch.zeros(2, 1, 16, 20)
    image[0, 0, 2:9, 2:9] = 1
    image[0, 0, 5, 5] = 0
    image[:, 0, 12:14, 12:14] = 1
    container = NetworkParts("organ", organ=BrightIsOrgan())
    found = Doubling(pixel_mm=1.0, threshold=0.0).segment_organ(image, container, 0.0)
    assert found.dtype == torch.bool
    assert found[0].sum() == 49
    assert found[1].sum() == 0


def test_arrays_are_given_slices_along_the_last_axis():
    slices = torch.arange(24.0).view(2, 1, 3, 4)
    result = per_slice(lambda x, offset: x + offset, slices, offset=1)
    assert torch.equal(result, slices + 1)
    assert per_slice(lambda x: x[..., :1], slices).shape == (1, 1, 3, 4)
