import pytest
import torch
from torch import nn

from common.training.translation import CycleInferer


class Shift(nn.Module):
    """Adds 1 to images for class 0 and 10 for class 1, and remembers how many it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, image, target):
        self.seen.append(len(image))
        return image + torch.tensor([1.0, 10.0])[target][:, None, None, None]


def flat(*values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 2).clone()


IMAGES, CLASSES = flat(0.0, 0.1, 0.2), torch.tensor([1, 0, 1])


def test_the_paper_asks_for_the_other_class():
    found = CycleInferer()(IMAGES, Shift(), classes=CLASSES)
    assert found.classes.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.fake, flat(1.0, 10.1, 1.2))
    torch.testing.assert_close(found.same, flat(10.0, 1.1, 10.2))
    torch.testing.assert_close(found.back, flat(11.0, 11.1, 11.2))


def test_the_program_asks_for_both_classes():
    found = CycleInferer("code")(IMAGES, Shift(), classes=CLASSES)
    assert found.classes.tolist() == [1, 0, 1, 0, 1, 0]
    torch.testing.assert_close(found.fake, flat(10.0, 1.1, 10.2, 1.0, 10.1, 1.2))
    torch.testing.assert_close(found.same, flat(10.0, 1.1, 10.2))
    torch.testing.assert_close(found.back, flat(11.0, 11.1, 11.2))


def test_critics_are_shown_fakes_alone():
    shift = Shift()
    found = CycleInferer()(IMAGES, shift, classes=CLASSES, only_fakes=True)
    assert (found.same, found.back) == (None, None)
    assert shift.seen == [3]


def test_noise_is_as_high_as_asked_for():
    found = CycleInferer(noise=0.05)(IMAGES, Shift(), classes=CLASSES, only_fakes=True)
    added = found.fake - flat(1.0, 10.1, 1.2)
    assert added.min() >= 0
    assert 0 < added.max() <= 0.1


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="mode must be paper or code, got 'both'"):
        CycleInferer("both")
