import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers.scaled import ScaledSliceInferer
from common.networks.parts import NetworkParts

OPTIONS = {"patch_size": (16, 16), "pixel_mm": 2.0, "threshold": 0.5}


class Shown(ScaledSliceInferer):
    """Returns the image as the networks see it, and where they look."""

    channels = ("image", "organ")

    def examine(self, volume, pixel_mm, network):
        found = self.slices(volume, pixel_mm, network)
        self.found = found
        return torch.cat([found.coarse, found.coarse_organ.float()], 1).movedim(0, -1)


def head(channels=1, pixel_mm=2.0):
    volume = torch.zeros(1, channels, 24, 24, 3)
    volume[:, :, 6:18, 6:18] = 100 + 100 * torch.rand(12, 12, 3, generator=torch.Generator().manual_seed(0))
    return MetaTensor(volume, affine=torch.diag(torch.tensor([pixel_mm, pixel_mm, 5.0, 1.0])))


def test_intensities_become_0_to_1_and_the_foreground_is_searched():
    inferer = Shown(**OPTIONS)
    image, organ = inferer(head(), None)[0]
    assert (image.min(), image.max()) == (0, 1)
    assert torch.equal(organ > 0, head()[0, 0].as_tensor() > 0)


def test_an_organ_mask_comes_after_the_image_and_what_else_there_is():
    mask = torch.zeros(1, 1, 24, 24, 3)
    mask[..., 8:10, 8:10, 1] = 1
    inferer = Shown(**OPTIONS)
    assert inferer(MetaTensor(torch.cat([head(), mask], 1), affine=head().affine), None)[0, 1].sum() == 4
    assert len(inferer.slices(torch.cat([head(), mask, mask], 1)[0], (2.0, 2.0), None, "a mask")) == 5
    with pytest.raises(ValueError, match="expected an image of 1 channels, perhaps an organ mask; got 3 channels"):
        inferer(MetaTensor(torch.cat([head(), mask, mask], 1), affine=head().affine), None)
    with pytest.raises(ValueError, match=r"expected an image of 1 channels and a mask, perhaps .* got 1 channels"):
        inferer.slices(head()[0], (2.0, 2.0), None, "a mask")


def test_a_network_may_find_the_organ():
    class Bright(nn.Module):
        def forward(self, x):
            return x - 0.1

    network = NetworkParts("organ", organ=Bright())
    assert Shown(organ="network", **OPTIONS)(head(), network)[0, 1].sum() == 12 * 12 * 3
    assert Shown(organ="image", **OPTIONS)(head(), network)[0, 1].all()
    with pytest.raises(ValueError, match="organ must be one of foreground, network, image, got 'liver'"):
        Shown(organ="liver", **OPTIONS)


def test_slices_outside_the_range_are_not_searched():
    assert Shown(slice_range=(1, 1), **OPTIONS)(head(), None)[0, 1].sum((0, 1)).tolist() == [0, 144, 0]
    with pytest.raises(ValueError, match="nothing to search in"):
        Shown(slice_range=(7, 9), **OPTIONS)(head(), None)


def test_only_the_organ_may_be_shown_and_only_a_part_of_it_searched():
    mask = torch.zeros(1, 1, 24, 24, 3)
    mask[..., 8:16, 8:16, :] = 1
    inputs = MetaTensor(torch.cat([head(), mask], 1), affine=head().affine)
    image, organ = Shown(only_organ=True, right_share=0.5, **OPTIONS)(inputs, None)[0]
    assert organ.sum() == 4 * 8 * 3
    assert (image[organ == 0] == 0).all()


def test_the_networks_grid_may_be_coarser():
    inferer = Shown(**OPTIONS)
    assert inferer(head(pixel_mm=1.0), None).shape[2:] == (12, 12, 3)
    assert [patch.item for patch in inferer.patches(inferer.found)] == [0, 1, 2]
