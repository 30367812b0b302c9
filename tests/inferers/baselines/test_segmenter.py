import pytest
import torch
from torch import nn
from translated import brain

from common.inferers.baselines.segmenter import NetworkSegmenter
from common.inferers.grid import Grid
from common.inferers.segmentation import EnsembleInferer
from common.networks.parts import NetworkParts

GRID = Grid(patch_size=(24, 24), pixel_mm=2.0, num_channels=2)


@pytest.fixture
def network():
    torch.manual_seed(0)
    dropping = nn.Sequential(nn.Conv2d(2, 32, 1), nn.Dropout2d(0.5), nn.Conv2d(32, 1, 1))
    unsure = nn.Conv2d(2, 2, 1)
    nn.init.zeros_(unsure.weight)
    unsure.bias.data = torch.tensor([1.0, 0.5])
    return NetworkParts("dropping", dropping=dropping, unsure=unsure).eval()


@pytest.fixture
def image():
    return brain()


def segmenting(num_samples=5, **options):
    segmenter = NetworkSegmenter(**options)
    return EnsembleInferer(grid=GRID, segmenter=segmenter, num_samples=num_samples, progress=False)


def test_dropout_stays_on_only_for_the_draws(network, image):
    options = {"part": "dropping", "num_samples": 30}
    found = segmenting(dropout=True, **options)(image, network)
    assert found[0, 1].max() > 1e-4
    assert not network.dropping.training
    assert not network.dropping[1].training
    assert segmenting(**options)(image, network)[0, 1].max() < 1e-6
    torch.testing.assert_close(segmenting(dropout=True, **options)(image, network), found)


def test_draws_leave_the_global_random_state_as_it_was(network, image):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    segmenting(dropout=True, part="dropping")(image, network)
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_with_variances_are_drawn(network, image):
    """Logits are N(1, e^0.5) everywhere."""
    found = segmenting(part="unsure", num_samples=200)(image, network)[0]
    head = found[-1] > 0
    drawn = (1 + torch.randn(100000, generator=torch.Generator().manual_seed(0)) * torch.tensor(0.25).exp()).sigmoid()
    assert found[0][head].mean() == pytest.approx(drawn.mean().item(), abs=2e-3)
    assert found[1][head].mean() == pytest.approx(drawn.var().item(), rel=0.03)
