import json
from pathlib import Path

import torch
from monai.networks.nets import PatchDiscriminator
from torch import nn

from common.losses.adversarial import HingeGANLoss, feature_matching, hinge

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tumour_synthesis.json").read_text())["hinge"]


class Mean(nn.Module):
    """A critic of one layer, whose logit is the mean of what it sees."""

    def forward(self, image):
        return [image, image.flatten(1).mean(1)]


def critics():
    return nn.ModuleDict({"slice": Mean(), "volume": Mean()})


def flat(value):
    return torch.full((2, 1, 4, 4, 4), value)


def test_the_hinge_is_the_standard_one():
    logits = torch.tensor(GOLDEN["logits"])
    torch.testing.assert_close(2 * hinge(torch.full_like(logits, -9.0), logits), torch.tensor(GOLDEN["std_D_real"]))
    torch.testing.assert_close(2 * hinge(logits, torch.full_like(logits, 9.0)), torch.tensor(GOLDEN["std_D_fake"]))


def test_a_network_wants_high_logits_and_the_features_of_real_images():
    loss = HingeGANLoss(feature_weight=4.0)
    torch.testing.assert_close(loss.of_network(critics(), [flat(0.5)], flat(0.5)), torch.tensor(-1.0))
    torch.testing.assert_close(loss.of_network(critics(), [flat(0.5)], flat(0.25)), torch.tensor(-1.0 + 2 * 4 * 0.25))


def test_critics_want_fakes_below_minus_one_and_real_ones_above_one():
    loss = HingeGANLoss()
    assert loss.of_critics(critics(), [flat(-2.0)], flat(2.0)) == 0
    assert loss.of_critics(critics(), [flat(0.0)], flat(0.0)) == 2


def test_no_gradient_of_the_critics_loss_reaches_the_network():
    fake = flat(0.0).requires_grad_(True)
    networks = nn.ModuleDict({"volume": PatchDiscriminator(3, 2, 1, num_layers_d=1, padding=2)})
    HingeGANLoss().of_critics(networks, [fake], flat(1.0)).backward()
    assert fake.grad is None
    assert all(p.grad is not None for p in networks.parameters())


def test_features_are_compared_without_logits():
    ours, theirs = [torch.ones(2), torch.zeros(3), torch.zeros(1)], [torch.zeros(2), torch.zeros(3), torch.ones(1)]
    assert feature_matching(ours, theirs) == 1
