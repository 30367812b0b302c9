import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, GaussianModel, TinyUNet, healthy

from common.samplers.ancestral import ancestral_step, denoise, mean_and_log_variance, sample
from common.samplers.guidance import classifier_guidance
from common.schedulers import NoiseSchedule

RECORDED = np.load(GOLDEN / "ancestral.npz")
CASES = [("full", None, step) for step in (0, 1, 999)] + [("50", 50, step) for step in (0, 1, 25, 49)]


@pytest.mark.parametrize(("name", "steps", "step"), CASES)
def test_learned_variance_equals_guided_diffusion(tiny_unet, name, steps, step):
    schedule = NoiseSchedule(1000, num_inference_steps=steps)
    x_t = torch.tensor(RECORDED[f"{name}_i{step}_xt"])
    mean, log_variance = mean_and_log_variance(healthy(tiny_unet), x_t, step, schedule)
    np.testing.assert_allclose(mean, RECORDED[f"{name}_i{step}_mean"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(log_variance, RECORDED[f"{name}_i{step}_logvar"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "steps", "step"), CASES)
def test_a_guided_draw_equals_guided_diffusion(tiny_unet, tiny_classifier, monkeypatch, name, steps, step):
    monkeypatch.setattr("common.samplers.ancestral.randn_like", lambda *_: tiny_unet.noise[:1])
    schedule, x_t = NoiseSchedule(1000, num_inference_steps=steps), torch.tensor(RECORDED[f"{name}_i{step}_xt"])
    guide = classifier_guidance(tiny_classifier, 0, 100)
    drawn = ancestral_step(healthy(tiny_unet), x_t, step, schedule)
    np.testing.assert_allclose(drawn, RECORDED[f"{name}_i{step}_sample"], rtol=1e-9, atol=1e-10)
    # guided-diffusion casts mean and gradient to float32 there.
    drawn = ancestral_step(healthy(tiny_unet), x_t, step, schedule, guides=[guide])
    np.testing.assert_allclose(drawn, RECORDED[f"{name}_i{step}_sample_guided"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("step", [0, 500, 999])
def test_a_draw_of_a_mask_equals_the_released_program(monkeypatch, step):
    recorded, masks = (np.load(GOLDEN / f"{name}.npz") for name in ("hybrid_vlb", "segmentation"))
    image, x_t = torch.tensor(recorded["x"][:1]), torch.tensor(recorded["noise"][:1, :1])
    monkeypatch.setattr("common.samplers.ancestral.randn_like", lambda *_: x_t.flip(-1))
    model = TinyUNet(of_masks=True)
    drawn = ancestral_step(lambda x, t: model(torch.cat([image, x], dim=1), t), x_t, step, NoiseSchedule(1000))
    np.testing.assert_allclose(drawn, masks[f"seg_psample_i{step}"], rtol=1e-5, atol=1e-5)


def test_a_loop_of_50_steps_equals_guided_diffusion(tiny_unet, monkeypatch):
    schedule = NoiseSchedule(1000, num_inference_steps=50)
    draws = iter([torch.roll(tiny_unet.noise, step, dims=-1) for step in range(49, 0, -1)])
    monkeypatch.setattr("common.samplers.ancestral.randn_like", lambda *_: next(draws))
    drawn = denoise(healthy(tiny_unet), tiny_unet.noise, schedule)
    np.testing.assert_allclose(drawn, RECORDED["loop50_end"], rtol=1e-9, atol=1e-10)


def test_250_of_1000_steps_leave_the_right_spread():
    schedule = NoiseSchedule(1000, num_inference_steps=250)
    recorded = json.loads((GOLDEN / "noise_schedules.json").read_text())
    recorded_std = recorded["oracle_respacing_test_target_mean0.1_std0.2"]["250"]["respaced"][1]
    model = GaussianModel([0.1], [[0.04]], NoiseSchedule(1000).alphas_cumprod)
    noise = torch.randn(100_000, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = denoise(model, noise, schedule, torch.Generator().manual_seed(1), bounds=None)
    assert drawn.std().item() == pytest.approx(0.1877, rel=0.02)
    assert drawn.std().item() == pytest.approx(recorded_std, rel=0.02)
    assert drawn.mean().item() == pytest.approx(0.1, abs=0.005)


def test_an_image_does_not_depend_on_the_rest_of_its_batch(tiny_unet):
    schedule = NoiseSchedule(1000, num_inference_steps=5)
    together = denoise(tiny_unet, tiny_unet.noise, schedule, [torch.Generator().manual_seed(s) for s in (3, 4)])
    alone = denoise(tiny_unet, tiny_unet.noise[1:], schedule, [torch.Generator().manual_seed(4)])
    torch.testing.assert_close(together[1:], alone)


def test_the_last_step_draws_nothing(tiny_unet):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    ancestral_step(tiny_unet, tiny_unet.noise, 0, NoiseSchedule(10), generator)
    assert torch.equal(generator.get_state(), before)


def test_the_progress_bar_sees_every_step(tiny_unet):
    seen = []
    denoise(tiny_unet, tiny_unet.noise, NoiseSchedule(7), progress=lambda steps: (seen.append(s) or s for s in steps))
    assert seen == [6, 5, 4, 3, 2, 1, 0]


def test_a_sample_starts_from_the_generators_noise():
    schedule, seed = NoiseSchedule(1000, num_inference_steps=20), torch.Generator().manual_seed
    model = GaussianModel([0.1], [[0.04]], NoiseSchedule(1000).alphas_cumprod)
    noise = torch.randn(3, 1, 1, generator=(generator := seed(2)))
    expected = denoise(model, noise, schedule, generator)
    assert torch.equal(sample(model, (3, 1, 1), schedule, generator=seed(2)), expected)
    assert not torch.equal(sample(model, (3, 1, 1), schedule, generator=seed(3)), expected)


def test_a_condition_stands_before_the_noisy_channels():
    schedule, seen = NoiseSchedule(1000, num_inference_steps=5), []

    def model(x, timesteps):
        seen.append(x)
        return torch.zeros_like(x[:, 2:])

    condition = torch.rand(2, 2, 4, 4, dtype=torch.float64)
    drawn = sample(model, (2, 1, 4, 4), schedule, condition, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 1, 4, 4)
    assert drawn.dtype == torch.float64
    assert [torch.equal(x[:, :2], condition) for x in seen] == [True] * 5
