import pytest
import torch
from inpainted import inpainting, scan
from torch import nn

from common.inferers.conditioned import ConditionedInpainter
from common.inferers.inpainting import Holes, chosen_inpainter
from common.networks.parts import NetworkParts

GENERATORS = [torch.Generator()]


class Count(nn.Module):
    """Answers how many pixels of holes are in the square around each pixel, and keeps what it was shown."""

    def __init__(self, size=13):
        super().__init__()
        self.size, self.shown = size, []

    def forward(self, shown):
        self.shown.append(shown)
        return nn.functional.avg_pool2d(shown[:, 1:2], self.size, 1, self.size // 2, divisor_override=1)


def holes(size=(48, 40)):
    image = torch.rand(1, 1, *size)
    organ = torch.zeros(1, 1, *size, dtype=torch.bool)
    organ[..., 8:40, 8:32] = True
    return Holes(image, organ, image.new_full(image.shape, 0.5), organ)


def answered(holes, network, **options):
    steps = []
    inpainter = ConditionedInpainter(**options)
    found = inpainter(holes, NetworkParts("filler", filler=network), GENERATORS, lambda s: steps.append(s) or iter(s))
    return found, inpainter, steps


def test_one_call_fills_all_holes_around_the_median():
    found, inpainter, _ = answered(holes(), Count(1))
    assert (found[holes().hole] == 1.5).all()
    assert inpainter.num_steps == 1


@pytest.mark.parametrize("radius", [3, 6])
def test_by_discs_each_pixel_is_told_once_from_what_is_outside_its_disc(radius):
    given, network = holes(), Count(2 * radius + 1)
    found, inpainter, (steps,) = answered(given, network, disc_radius=radius)
    assert len(steps) == inpainter.num_steps == len(network.shown) == 9
    for shown in network.shown:
        inside = shown[:, 1:2] > 0
        assert not (inside & ~given.organ).any()
        assert (shown[:, :1][inside] == 0).all()
    assert torch.equal(found[~given.hole], given.image[~given.hole])
    assert (found[given.hole] > 1).all()


def test_a_liver_is_filled_in_an_inferer():
    network = NetworkParts("filler", filler=Count(), organ=nn.Identity())
    inferer = inpainting(ConditionedInpainter(disc_radius=4), hole=lambda image, organ: organ)
    result = inferer(scan(), network)
    assert result.shape == (1, 4, 48, 40, 5)
    assert inferer.settings["disc_radius"] == 4
    organ = result[0, 3] > 0
    assert not torch.equal(result[0, 1][organ], scan()[0, 0][organ])
    assert torch.equal(result[0, 1][~organ], scan()[0, 0].as_tensor()[~organ])


def test_a_config_says_which_inpainter_fills_holes():
    assert [chosen_inpainter(name, "network", "diffusion") for name in ("conditioned", "repaint")] == [
        "network",
        "diffusion",
    ]
    with pytest.raises(ValueError, match="sampler must be one of conditioned, repaint, got 'ddim'"):
        chosen_inpainter("ddim", "network", "diffusion")
