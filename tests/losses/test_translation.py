"""Critics whose gradients are known."""

import pytest
import torch
from torch import nn

from common.losses.translation import CycleLoss, Translations, WassersteinLoss, gradient_penalty

WEIGHT = torch.tensor([[[[3.0, 4.0]]]])
"""Of a linear critic: its gradient has length 5 everywhere."""


class Linear(nn.Module):
    """Features are images; what it says of the class k is ``factor ** k`` times a weighted sum."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.heads = factor, [0, 1]
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, features, target):
        return self.factor**target * (features * self.weight).sum((1, 2, 3), keepdim=True)


class Certain(nn.Module):
    """Says class 1 of all images, with logits 0 and 2."""

    def encode(self, image):
        return image

    def classes(self, features):
        return torch.tensor([0.0, 2.0]).expand(len(features), 2)


def critics(factor=1.0):
    return nn.ModuleDict({"classifier": Certain(), "realness": Linear(factor)})


def flat(*values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 1, 2).clone()


def wrong(k):
    """What the cross-entropy says of images of a class."""
    return nn.functional.cross_entropy(torch.tensor([[0.0, 2.0]]), torch.tensor([k]))


def test_the_penalty_of_a_linear_critic_is_exact():
    real, fake = torch.randn(3, 1, 1, 2), torch.randn(3, 1, 1, 2)
    torch.testing.assert_close(gradient_penalty(lambda x: (x * WEIGHT).sum((1, 2, 3)), real, fake), torch.tensor(16.0))


def test_the_penalty_is_taken_between_real_images_and_fakes():
    seen = []
    gradient_penalty(lambda x: seen.append(x.detach()) or (x * WEIGHT).sum((1, 2, 3)), flat(1.0, 1.0), flat(3.0, 3.0))
    assert 1 <= seen[0].min() < seen[0].max() <= 3


def test_the_penalty_is_in_single_precision_under_autocast():
    dtypes = []
    with torch.autocast("cpu", torch.bfloat16):
        half = flat(1.0).bfloat16()
        found = gradient_penalty(lambda x: dtypes.append(x.dtype) or (x * WEIGHT).sum((1, 2, 3)), half, half)
    assert dtypes == [torch.float32]
    assert found.dtype == torch.float32


def test_critics_want_real_images_above_fakes_of_their_class():
    loss = WassersteinLoss(realness_weight=20.0, class_weight=5.0, penalty_weight=0.0)
    target = {"image": flat(1.0, 3.0), "class": torch.tensor([0, 1])}
    pred = Translations(flat(5.0, 7.0), torch.tensor([1, 0]))
    # 7 times the value for class 0, 14 times for class 1
    apart = ((14 * 5 + 7 * 7) - (7 * 1 + 14 * 3)) / 2
    told = (wrong(0) + wrong(1)) / 2
    torch.testing.assert_close(loss.of_critics(critics(2.0), pred, target), 20 * apart + 5 * told)


def test_the_penalty_counts_for_each_class_that_has_images_and_fakes():
    loss = WassersteinLoss(realness_weight=0.0, class_weight=0.0, penalty_weight=10.0)
    both = {"image": flat(1.0, 3.0), "class": torch.tensor([0, 1])}
    found = loss.of_critics(critics(2.0), Translations(flat(5.0, 7.0), torch.tensor([1, 0])), both)
    torch.testing.assert_close(found, torch.tensor(10.0 * (4**2 + 9**2)))
    one = {"image": flat(1.0, 3.0), "class": torch.tensor([0, 0])}
    assert loss.of_critics(critics(), Translations(flat(5.0, 7.0), torch.tensor([1, 1])), one) == 0
    pairs = WassersteinLoss(realness_weight=0.0, class_weight=0.0, penalty_weight=10.0, all_pairs=True)
    all_fakes = Translations(flat(5.0, 7.0, 5.0, 7.0), torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(pairs.of_critics(critics(2.0), all_fakes, one), torch.tensor(10.0 * (4**2 + 9**2)))


def test_a_generator_wants_its_images_to_look_real_and_of_their_class():
    pred = Translations(flat(1.0, 3.0), torch.tensor([1, 1]))
    torch.testing.assert_close(WassersteinLoss().of_network(critics(2.0), pred, {}), wrong(1) - torch.tensor(28.0))


def test_one_critic_may_judge_all_classes():
    networks = critics()
    networks["realness"].heads = [0]
    target = {"image": flat(1.0, 3.0), "class": torch.tensor([0, 1])}
    pred = Translations(flat(5.0, 7.0), torch.tensor([1, 0]))
    loss = WassersteinLoss(realness_weight=1.0, class_weight=0.0, penalty_weight=1.0)
    torch.testing.assert_close(loss.of_critics(networks, pred, target), torch.tensor(7.0 * (6 - 2) + 16))


def test_no_gradient_of_the_critics_reaches_the_generator():
    fake, networks = flat(5.0, 7.0).requires_grad_(), critics()
    target = {"image": flat(1.0, 3.0), "class": torch.tensor([0, 1])}
    WassersteinLoss().of_critics(networks, Translations(fake, torch.tensor([1, 0])), target).backward()
    assert fake.grad is None
    assert networks["realness"].weight.grad is not None


def test_cycles_cost_squared_errors():
    pred = Translations(flat(0.0), torch.tensor([1]), same=flat(1.5), back=flat(3.0))
    assert CycleLoss(50.0, 10.0)(pred, {"image": flat(1.0)}) == pytest.approx(50 * 0.25 + 10 * 4)
