import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from translated import brain, maps, translating

from common.inferers.baselines.attribution import ATTRIBUTIONS, AtTimestep, AttributionTranslator
from common.networks.encoder_unet import EncoderUNet
from common.networks.parts import NetworkParts


def attributing(**options):
    return translating(AttributionTranslator, normalize="none", classifier=None, **options)


@pytest.fixture
def image():
    return brain(scale=1.0)


@pytest.fixture
def network():
    torch.manual_seed(0)
    encoder = EncoderUNet(2, 2, 2, 24, (8, 8), 1, (False, True), 8, 4)
    for block in encoder.blocks:
        nn.init.normal_(block.conv2.weight, std=0.1)
    return NetworkParts("classifier", classifier=encoder).eval()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("method", ATTRIBUTIONS)
def test_what_a_classifier_looks_at_is_a_map_of_its_own_in_each_slice(image, network, method, smooth):
    result = maps(attributing(method=method, smooth=smooth)(image, network))
    found, head = result["anomaly"][0], result["organ"][0] > 0
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1.0001
    assert (found[~head] == 0).all()
    assert found.max() > 0.01
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


class Channels(nn.Module):
    """A classifier that scores the mean of two known channels, here x and -x, with weights 2 and 1."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Conv2d(1, 2, 1, bias=False)
        self.norm.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)

    def forward(self, x, timesteps):
        score = (self.norm(x).mean((2, 3)) * torch.tensor([2.0, 1.0])).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def test_activation_maps_are_what_their_papers_say():
    """By hand: gradients are 2 / P and 1 / P, both positive, and channels x and -x."""
    x = torch.linspace(-1, 3, 16).view(1, 1, 4, 4)
    expected = x.clamp(min=0)[:, 0]
    for name in ("grad_cam", "layer_cam"):
        found = ATTRIBUTIONS[name](AtTimestep(Channels()), "network.norm")(x)[0]
        torch.testing.assert_close(found / found.max(), expected[0] / 3)
    scores = torch.stack([(x * (x + 1) / 4).mean(), (x * (3 - x) / 4).mean()]).softmax(0)
    found = ATTRIBUTIONS["score_cam"](AtTimestep(Channels()), "network.norm")(x)[0]
    torch.testing.assert_close(found, ((scores[0] - scores[1]) * x[0, 0]).clamp(min=0))


def test_another_attribution_is_refused():
    with pytest.raises(ValueError, match="method must be one of saliency, grad_cam"):
        AttributionTranslator(method="gradcam")


def test_saliency_is_the_gradient_of_the_diseased_class(network):
    class Weighted(nn.Module):
        def forward(self, x, timesteps):
            assert (timesteps == 0).all()
            score = (x[:, 0] * torch.arange(24.0)).flatten(1).sum(1)
            return torch.stack([torch.zeros_like(score), score], 1)

    image = MetaTensor(torch.ones(1, 2, 24, 24), affine=torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0])))
    found = maps(attributing(margin=0)(image, NetworkParts("classifier", classifier=Weighted())))["anomaly"]
    torch.testing.assert_close(found[0], torch.arange(24.0).expand(24, 24) / 23)


def test_a_network_is_told_that_there_is_no_noise():
    told = [AtTimestep(lambda x, timesteps: timesteps, t)(torch.ones(3, 1)).tolist() for t in (0, 7)]
    assert told == [[0, 0, 0], [7, 7, 7]]
