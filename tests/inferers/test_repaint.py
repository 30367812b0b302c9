import pytest
import torch
from inpainted import inpainting, liver_network, maps, repainter, scan

from common.samplers.repaint import jump_schedule
from common.schedulers import NoiseSchedule


@pytest.fixture(scope="module")
def network():
    return liver_network()


def test_the_same_seed_gives_the_same_map_and_another_another(network):
    first, again, other = (inpainting(repainter(), seed=seed)(scan(), network) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_filling_stays_within_its_range_around_the_organs_median(network):
    free, bound = (
        maps(inpainting(repainter(fill_range=fill_range))(scan(), network))["healthy"][16:22, 16:22, 2]
        for fill_range in (None, (-5, 10))
    )
    assert free.min() < 55
    assert bound.min() >= 55 - 1e-3
    assert bound.max() <= 70 + 1e-3


def test_its_steps_are_the_transitions_of_the_jump_schedule():
    inpainter = repainter(schedule=NoiseSchedule(100, num_inference_steps=10), jump_length=5, num_resamples=3)
    assert inpainter.num_steps == len(jump_schedule(10, 5, 3)) - 1
