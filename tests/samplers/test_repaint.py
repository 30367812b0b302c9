import hashlib
import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import GOLDEN, GaussianModel
from hypothesis import given
from hypothesis import strategies as st

from common.samplers.repaint import jump_schedule, repaint
from common.schedulers import NoiseSchedule

CORRELATED = ([0.0, 0.0], [[0.25, 0.2], [0.2, 0.25]])


@pytest.mark.parametrize("name", ["250_1_10_10", "250_1_1_10", "50_1_5_5"])
def test_jump_schedules_equal_those_of_the_authors(name):
    steps, _, jump_length, num_resamples = (int(n) for n in name.split("_"))
    levels = jump_schedule(steps, jump_length, num_resamples)
    assert levels == np.load(GOLDEN / "repaint_schedules.npz")[name].tolist()
    key = f"t_T={steps},n_sample=1,jump_length={jump_length},jump_n_sample={num_resamples}"
    checksum = json.loads((GOLDEN / "repaint_checksums.json").read_text())[key]
    assert hashlib.sha256(",".join(map(str, levels)).encode()).hexdigest() == checksum


@pytest.mark.parametrize(
    ("arguments", "entries", "calls"),
    [((250, 10, 5), 2171, 1210), ((100, 10, 10), 1721, 910), ((50, 10, 10), 771, 410)],
)
def test_jump_schedules_have_the_published_lengths(arguments, entries, calls):
    levels = jump_schedule(*arguments)
    assert len(levels) == entries
    assert sum(b < a for a, b in pairwise(levels)) == calls


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 6))
def test_jump_schedules_follow_the_definition(steps, jump_length, num_resamples):
    levels = jump_schedule(steps, jump_length, num_resamples)
    assert levels[0] == steps - 1
    assert levels[-1] == -1
    assert all(abs(a - b) == 1 for a, b in pairwise(levels))
    turns = Counter(b for a, b, c in zip(levels, levels[1:], levels[2:], strict=False) if a > b < c)
    if jump_length > 1:
        expected = dict.fromkeys(range(0, steps - jump_length, jump_length), num_resamples - 1)
        assert turns == Counter({turn: n for turn, n in expected.items() if n})
    downward = Counter((a, b) for a, b in pairwise(levels) if b < a)
    assert set(downward.values()) <= {1, num_resamples}


def test_without_resampling_the_schedule_is_a_plain_descent():
    assert jump_schedule(5, 2, 1) == [4, 3, 2, 1, 0, -1]


def test_a_schedule_below_one_is_refused():
    with pytest.raises(ValueError, match="must be >= 1, got 250, 0 and 10"):
        jump_schedule(250, 0, 10)


def inpainted_neighbour(num_resamples, draws):
    """Return draws of the second pixel of a correlated pair, given 0.8 in the first: exactly N(0.64, 0.30^2)."""
    model = GaussianModel(*CORRELATED, NoiseSchedule(1000).alphas_cumprod)
    image = torch.tensor([0.8, 0.0], dtype=torch.float64).expand(draws, 1, 2)
    hole = torch.tensor([False, True])
    schedule = NoiseSchedule(1000, num_inference_steps=250)
    return repaint(model, image, hole, schedule, 10, num_resamples, torch.Generator().manual_seed(0), bounds=None)[
        :, 0, 1
    ]


def test_resampling_brings_the_hole_into_agreement_with_its_surroundings():
    drawn = inpainted_neighbour(num_resamples=10, draws=10_000)
    assert 0.58 <= drawn.mean() <= 0.62
    assert 0.28 <= drawn.std() <= 0.30


def test_without_resampling_the_hole_disagrees():
    assert inpainted_neighbour(num_resamples=1, draws=10_000).mean() < 0.45


class Recorder:
    """A model that answers with noise of its own and keeps what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, x_t, timesteps):
        self.asked.append((timesteps[0].item(), x_t.clone()))
        return torch.zeros_like(x_t)


@pytest.fixture(scope="module")
def watched():
    schedule = NoiseSchedule(1000, num_inference_steps=20)
    image = torch.full((20_000, 1, 2), 0.9, dtype=torch.float64)
    model = Recorder()
    result = repaint(model, image, torch.tensor([False, True]), schedule, 5, 3, torch.Generator().manual_seed(0))
    return schedule, image, model.asked, result


def test_the_known_part_is_as_noisy_as_its_level_says_at_every_call(watched):
    schedule, _, asked, _ = watched
    for timestep, x_t in asked[1:]:
        alpha_bar = schedule.alphas_cumprod[schedule.timesteps == timestep].item()
        known = x_t[:, 0, 0]
        assert known.mean().item() == pytest.approx(alpha_bar**0.5 * 0.9, abs=0.03)
        assert known.var().item() == pytest.approx(1 - alpha_bar, abs=0.03)


def test_the_first_call_sees_nothing_but_noise(watched):
    _, _, asked, _ = watched
    assert asked[0][1].mean().item() == pytest.approx(0, abs=0.03)
    assert asked[0][1].var().item() == pytest.approx(1, abs=0.03)


def test_the_known_part_comes_back_exactly(watched):
    _, image, _, result = watched
    assert torch.equal(result[:, 0, 0], image[:, 0, 0])


def test_going_up_adds_the_beta_of_the_level_it_reaches():
    """With jumps of one level, the call before and the call after a jump are of the same level, one beta apart."""
    schedule = NoiseSchedule(1000, num_inference_steps=20)
    model = Recorder()
    hole = torch.ones(2, dtype=torch.bool)
    image = torch.zeros(40_000, 1, 2, dtype=torch.float64)
    repaint(model, image, hole, schedule, 1, 2, torch.Generator().manual_seed(0), bounds=None)
    levels = jump_schedule(20, 1, 2)
    called_at = [i for i, (a, b) in enumerate(pairwise(levels)) if b < a]
    for number, at_transition in enumerate(called_at[1:], start=1):
        if levels[at_transition] <= levels[at_transition - 1]:
            continue
        level, (_, before), (_, after) = levels[at_transition], model.asked[number - 1], model.asked[number]
        # The model predicts no noise, so the step down is known: what remains is the noise of down and up.
        step_mean = schedule.posterior_mean(
            schedule.predict_x_0(before, torch.zeros_like(before), level), before, level
        )
        beta = schedule.betas[level]
        added = after - (1 - beta).sqrt() * step_mean
        step_variance = schedule.posterior_variance[level] if level else 0.0
        expected = (beta + (1 - beta) * step_variance).item()
        assert added.var().item() == pytest.approx(expected, rel=0.03)


def test_volumes_go_through_the_same_code():
    image = torch.zeros(1, 1, 4, 4, 4)
    hole = torch.zeros_like(image, dtype=torch.bool)
    hole[..., 1:3, 1:3, 1:3] = True
    result = repaint(
        lambda x, t: torch.zeros_like(x), image, hole, NoiseSchedule(10), 2, 2, torch.Generator().manual_seed(0)
    )
    assert torch.equal(result[~hole], image[~hole])
    assert (result[hole] != 0).all()


def test_a_slice_is_the_same_alone_and_in_a_batch(tiny_unet):
    hole = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    hole[..., 2:5, 2:5] = True
    schedule = NoiseSchedule(1000, num_inference_steps=6)

    def fill(images, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return repaint(lambda x, t: tiny_unet(x, t)[:, :4], images, hole, schedule, 2, 2, generators)

    together = fill(tiny_unet.image, (1, 2))
    torch.testing.assert_close(together[1:], fill(tiny_unet.image[1:], (2,)))
