import pytest
import torch

from common.transforms.holes import disc_rounds, organ_medians, random_ellipses, shown_with_holes


@pytest.mark.parametrize(("size", "radius"), [((40, 31), 4), ((17, 50), 3), ((5, 5), 6)])
def test_squares_of_all_rounds_are_the_plane_and_lie_in_their_discs(size, radius):
    taken = torch.zeros(size, dtype=torch.int64)
    for disc, square in disc_rounds(size, radius):
        assert disc.shape == square.shape == size
        assert not (square & ~disc).any()
        taken += square
    assert (taken == 1).all()


def test_discs_of_a_round_lie_apart():
    (disc, _), *_ = disc_rounds((60, 60), 4)
    assert disc[12, 12:17].tolist() == [True] * 5
    assert not disc[12, 17:20].any()
    assert disc[12, 20]


def test_ellipses_lie_in_the_organ_and_a_seed_repeats_them():
    organ = torch.zeros(3, 1, 40, 30, dtype=torch.bool)
    organ[0, :, 10:30, 5:25], organ[1, :, 20, 10] = True, True
    first, second = (random_ellipses(organ, 5, (2.0, 6.0), torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert torch.equal(first, second)
    assert not (first & ~organ).any()
    assert 12 < first[0].sum() < 400
    assert first[1].sum() == 1
    assert not first[2].any()
    assert not torch.equal(first, random_ellipses(organ, 5, (2.0, 6.0), torch.Generator().manual_seed(1)))


def test_half_axes_are_within_their_range():
    organ = torch.ones(200, 1, 41, 41, dtype=torch.bool)
    area = random_ellipses(organ, 1, (3.0, 5.0)).flatten(1).sum(1)
    assert area.max() < 1.1 * torch.pi * 25
    assert area.float().median() > torch.pi * 9


def test_a_network_is_shown_nothing_of_what_is_in_a_hole():
    image = torch.tensor([0.1, 0.3, 0.5, 0.9]).view(1, 1, 2, 2)
    organ = torch.tensor([1, 1, 1, 0], dtype=torch.bool).view(1, 1, 2, 2)
    hole = torch.tensor([1, 0, 0, 0], dtype=torch.bool).view(1, 1, 2, 2)
    median = organ_medians(image, organ)
    assert median.item() == pytest.approx(0.3)
    shown = shown_with_holes(image, hole, organ, median)
    torch.testing.assert_close(shown[0].flatten(1)[0], torch.tensor([0.0, 0.0, 0.2, 0.6]))
    assert torch.equal(shown[0, 1:], torch.cat([hole, organ], 1)[0].float())
    assert organ_medians(image, organ & ~organ).item() == 0
