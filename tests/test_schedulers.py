import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from common.schedulers import NoiseSchedule, at

NOISE = json.loads((GOLDEN / "noise_schedules.json").read_text())


@pytest.mark.parametrize(("kind", "length"), [("linear", 1000), ("linear", 4000), ("cosine", 1000)])
def test_alpha_bar_equals_guided_diffusion(kind, length):
    recorded = np.load(GOLDEN / "schedules.npz")[f"{kind}_T{length}_acp"]
    np.testing.assert_allclose(NoiseSchedule(length, kind).alphas_cumprod[::37], recorded, rtol=1e-12)


def test_250_of_1000_equals_guided_diffusion():
    recorded = NOISE["linear_T1000_respaced250"]
    schedule = NoiseSchedule(1000, num_inference_steps=250)
    assert schedule.timesteps.tolist() == recorded["timestep_map"]
    np.testing.assert_allclose(schedule.betas, recorded["betas"], rtol=1e-10)
    np.testing.assert_allclose(schedule.alphas_cumprod, recorded["alphas_cumprod"], rtol=1e-12)


def test_50_of_1000_equals_guided_diffusion():
    recorded = np.load(GOLDEN / "ancestral.npz")
    schedule = NoiseSchedule(1000, num_inference_steps=50)
    np.testing.assert_array_equal(schedule.timesteps, recorded["tmap_50"])
    np.testing.assert_allclose(schedule.betas, recorded["betas_50"], rtol=1e-10)


def test_strided_spacing_takes_every_20th():
    assert NoiseSchedule(1000, num_inference_steps=50, spacing="strided").timesteps.tolist() == list(range(0, 1000, 20))


@pytest.mark.parametrize("steps", [1, 2, 4, 10])
def test_all_coefficients_of_few_steps_are_the_authors(steps):
    recorded = json.loads((GOLDEN / "tumour_synthesis.json").read_text())["cosine"][str(steps)]
    schedule = NoiseSchedule(steps, "cosine", max_beta=0.9999)
    for ours, theirs in (
        ("betas", "betas"),
        ("alphas_cumprod", "alphas_cumprod"),
        ("posterior_mean_x_0", "posterior_mean_coef1"),
        ("posterior_mean_x_t", "posterior_mean_coef2"),
        ("posterior_variance", "posterior_variance"),
    ):
        expected = torch.tensor(recorded[theirs], dtype=torch.float64)
        torch.testing.assert_close(getattr(schedule, ours), expected, rtol=1e-6, atol=1e-9)


@given(st.integers(2, 1000), st.sampled_from(["linear", "cosine"]))
def test_a_respaced_schedule_keeps_the_noise_levels_of_its_timesteps(steps, kind):
    full, respaced = NoiseSchedule(1000, kind), NoiseSchedule(1000, kind, steps)
    torch.testing.assert_close(respaced.alphas_cumprod, full.alphas_cumprod[respaced.timesteps])
    torch.testing.assert_close((1 - respaced.betas).cumprod(0), respaced.alphas_cumprod, rtol=1e-10, atol=1e-16)
    assert respaced.timesteps[0] == 0
    assert respaced.timesteps[-1] == 999


@given(st.integers(0, 249))
def test_the_posterior_is_bayes_rule(step):
    schedule = NoiseSchedule(1000, num_inference_steps=250)
    alpha, prior_variance = 1 - schedule.betas[step], 1 - schedule.alphas_cumprod_prev[step]
    # The product of N(x_{t-1}; sqrt(abar_{t-1}) x_0, 1 - abar_{t-1}) and N(x_t; sqrt(alpha) x_{t-1}, beta) in x_{t-1}.
    variance = 1 / (alpha / schedule.betas[step] + 1 / prior_variance) if step else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(schedule.posterior_variance[step], variance, rtol=1e-8, atol=1e-15)


def test_add_noise_leaves_the_tables_alone():
    schedule = NoiseSchedule(10)
    before = schedule.alphas_cumprod.clone()
    half = torch.ones(2, 1, 4, 4, dtype=torch.float16)
    assert schedule.add_noise(half, half, torch.tensor([0, 9])).dtype == torch.float16
    assert schedule.alphas_cumprod.dtype == torch.float64
    assert torch.equal(schedule.alphas_cumprod, before)


@pytest.mark.parametrize(("length", "steps"), [(1000, None), (4000, None), (1000, 100)])
def test_float32_has_all_its_digits_at_each_timestep(length, steps):
    """Next to 1, alpha_bar in float32 is off by 6e-8, and 1 - alpha_bar begins at 1e-4, or 2.5e-5 of 4,000."""
    exact = NoiseSchedule(length, num_inference_steps=steps, spacing="trailing")
    cast = exact.like(torch.zeros(1))
    for name in ("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "log_betas", "posterior_mean_x_0"):
        torch.testing.assert_close(getattr(cast, name).double(), getattr(exact, name), rtol=1.2e-7, atol=0)


@given(st.integers(0, 999))
def test_a_noised_image_in_float32_is_the_exact_one_rounded(step):
    schedule = NoiseSchedule(1000)
    image, noise = torch.randn(2, 1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact, single = schedule.add_noise(image, noise, step), schedule.add_noise(image.float(), noise.float(), step)
    torch.testing.assert_close(single.double(), exact, rtol=3e-7, atol=3e-7)


def test_half_precision_images_are_noised_from_the_first_timestep_on():
    image, noise = torch.zeros(1, 1, 1, 1, dtype=torch.float16), torch.ones(1, 1, 1, 1, dtype=torch.float16)
    for timestep in (0, torch.tensor([0])):
        assert NoiseSchedule(1000).add_noise(image, noise, timestep).item() == pytest.approx(0.01, rel=1e-3)


def test_x_0_comes_back_from_its_noise():
    schedule = NoiseSchedule(1000)
    image, noise = torch.randn(2, 3, 1, 4, 4, 4, dtype=torch.float64)
    timesteps = torch.tensor([0, 500, 999])
    x_t = schedule.add_noise(image, noise, timesteps)
    torch.testing.assert_close(schedule.predict_x_0(x_t, noise, timesteps), image, rtol=1e-9, atol=1e-9)


def test_like_casts_all_tables_and_keeps_timesteps_whole():
    schedule = NoiseSchedule(100).like(torch.zeros(1))
    assert schedule.betas.dtype == torch.float32
    assert schedule.timesteps.dtype == torch.int64


def test_table_entries_broadcast_over_2d_and_3d():
    table = NoiseSchedule(10).betas
    assert at(table, torch.tensor([1, 2]), torch.zeros(2, 1, 4, 4)).shape == (2, 1, 1, 1)
    assert at(table, torch.tensor([1, 2]), torch.zeros(2, 1, 4, 4, 4)).shape == (2, 1, 1, 1, 1)
    assert at(table, 3, torch.zeros(2, 1, 4, 4)).shape == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": 1001}, r"must lie in \[1, 1000\]"),
        ({"num_inference_steps": 0}, r"must lie in \[1, 1000\], the steps of training, got 0"),
        ({"num_inference_steps": 3, "spacing": "odd"}, "fractional"),
        ({"num_inference_steps": 999, "spacing": "strided"}, "no whole stride"),
        ({"kind": "quadratic"}, "'linear' or 'cosine'"),
    ],
)
def test_an_impossible_schedule_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(1000, **arguments)


@pytest.mark.parametrize(("steps", "first"), [(100, [9, 19, 29]), (1000, [0, 1, 2]), (3, [332, 666, 999])])
def test_trailing_spacing_ends_at_the_last_timestep(steps, first):
    timesteps = NoiseSchedule(1000, num_inference_steps=steps, spacing="trailing").timesteps
    assert timesteps[:3].tolist() == first
    assert timesteps[-1] == 999


@pytest.mark.parametrize("steps", [300, torch.tensor([100, 999])])
def test_the_noise_in_an_image_is_what_was_added(steps):
    schedule = NoiseSchedule(1000)
    image, noise = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(schedule.noise_in(schedule.add_noise(image, noise, steps), image, steps), noise)
