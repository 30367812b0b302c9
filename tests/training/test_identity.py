from functools import partial
from pathlib import Path

import pytest
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DiffusionModelUNet
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from common.inferers.noisy import NoisyInferer
from common.losses.hybrid_vlb import HybridVLBLoss
from common.schedulers import NoiseSchedule
from common.training.batches import NoisyPrepareBatch
from common.training.identity import Identity, settings_of
from common.transforms.slices import DropFaintLesionsd, SampleSlicesd


def settings(thing):
    return dict(settings_of(thing, "it"))


def test_the_same_training_is_resumed():
    Identity({"seed": 0, "sizes": [1, 2]}).load_state_dict(Identity({"seed": 0, "sizes": [1, 2]}).state_dict())


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [
        ({"seed": 0, "rate": 1}, {"seed": 1, "rate": 2}, "seed was 0 and is 1 now"),
        ({"case 1": "a", "case 2": "b"}, {"case 1": "a"}, "case 2 was b and is nothing now"),
        ({"case 1": "a"}, {"case 1": "a", "case 2": "b"}, "case 2 was nothing and is b now"),
    ],
)
def test_another_training_is_not_resumed_and_the_first_difference_is_named(was, now, reason):
    with pytest.raises(ValueError, match=f"cannot resume: {reason}"):
        Identity(now).load_state_dict(Identity(was).state_dict())


def test_a_checkpoint_that_holds_it_is_read_without_trust(tmp_path):
    torch.save(Identity(settings(NoiseSchedule(10))).state_dict(), tmp_path / "last.pt")
    Identity(settings(NoiseSchedule(10))).load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True))


UNET = partial(DiffusionModelUNet, 2, 1, 1, 1, (8,), (True,), norm_num_groups=4)
SLICES = partial(SampleSlicesd, canvas_size=(8, 8))
BATCHES = partial(NoisyPrepareBatch, 10, patch_size=(8, 8))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 4)),
        (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, stride=2)),
        (nn.Sequential(nn.GroupNorm(1, 2)), nn.Sequential(nn.GroupNorm(1, 2, eps=1e-3))),
        (UNET(num_head_channels=8), UNET(num_head_channels=4)),
        (nn.MSELoss(), nn.L1Loss()),
        (DiceCELoss(sigmoid=True), DiceCELoss(sigmoid=True, batch=True)),
        (HybridVLBLoss(NoiseSchedule(10)), HybridVLBLoss(NoiseSchedule(10), p2_gamma=0.5)),
        (HybridVLBLoss(NoiseSchedule(10)), HybridVLBLoss(NoiseSchedule(10), rescale=True)),
        (NoisyInferer(NoiseSchedule(10)), NoisyInferer(NoiseSchedule(10, kind="cosine"))),
        (NoisyInferer(NoiseSchedule(10)), NoisyInferer(NoiseSchedule(20))),
        (BATCHES(jitter=1), BATCHES(jitter=2)),
        (Compose([SLICES(2)]), Compose([SLICES(4)])),
        (Compose([SLICES(2)]), Compose([SLICES(2), SLICES(2)])),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_made_with_other_settings_has_others(one, other):
    assert settings(one) != settings(other)


def test_a_setting_is_called_by_where_it_lies():
    assert settings(Compose([SLICES(4)]))["it.transforms.0.num_slices"] == 4


def test_what_a_network_learns_is_no_setting():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = settings(network)
    network(torch.rand(2, 1, 8, 8)).mean().backward()
    torch.optim.SGD(network.parameters(), 1.0).step()
    network.eval()
    assert settings(network) == before


def test_what_a_transform_takes_note_of_or_draws_is_no_setting():
    organ = torch.ones(1, 6, 6, 3)
    item = {"image": torch.rand(1, 6, 6, 3), "organ": organ, "label": organ * (torch.rand(1, 6, 6, 3) > 0.5)}
    steps = Compose([DropFaintLesionsd(0.9), RandGaussianNoised("image", prob=1.0), SLICES(2, healthy=False)])
    before = settings(steps)
    steps(item)
    assert steps.transforms[0].counts
    assert settings(steps) == before


def test_devices_paths_and_networks_that_are_asked_are_no_settings():
    class Reads:
        def __init__(self, path, device, network):
            self.path, self.device, self.network = path, device, network

    here, there = Reads(Path("a"), "cpu", nn.Linear(2, 2)), Reads(Path("b"), "cuda", nn.Linear(3, 3))
    assert settings(here) == settings(there)
