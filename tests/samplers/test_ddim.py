import numpy as np
import pytest
import torch
from conftest import GOLDEN, GaussianModel, TinyUNet, healthy
from hypothesis import given
from hypothesis import strategies as st

from common.samplers.ddim import (
    Trajectory,
    ddim_step,
    decode,
    decoding_levels,
    encode,
    encoding_levels,
    predict_noise,
    steps_below,
)
from common.samplers.guidance import classifier_guidance
from common.schedulers import NoiseSchedule

RECORDED = np.load(GOLDEN / "ddim.npz")
CLIP = {0: "none", 1: "authors"}
clips = pytest.mark.parametrize("clip", CLIP)
steps = pytest.mark.parametrize("step", [0, 50, 499, 999])


@clips
@steps
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 5e-7)])
def test_single_steps_equal_guided_diffusion(step, clip, dtype, atol):
    tiny = TinyUNet(dtype)
    x_t = torch.tensor(RECORDED[f"t{step}_xt"], dtype=dtype)
    schedule = NoiseSchedule(1000).like(x_t)
    guide = classifier_guidance(tiny.classify, 0, 100)
    recorded = {"ddim": ((), step), "ddim_guided": ((guide,), step)}
    if step < 999:
        recorded["reverse"] = ((), step + 2)
    for name, (guides, next_level) in recorded.items():
        epsilon = predict_noise(healthy(tiny), x_t, step + 1, schedule, guides, CLIP[clip])
        moved = ddim_step(x_t, epsilon, step + 1, next_level, schedule)
        expected = RECORDED[f"t{step}_clip{clip}_{name}"]
        np.testing.assert_allclose(moved, expected, rtol=1e-9 if dtype == torch.float64 else 1e-6, atol=atol)


@clips
@pytest.mark.parametrize("precision", [64, 32])
def test_the_released_loops_are_authors_mode(clip, precision, monkeypatch):
    dtype, tolerance = (torch.float64, 1e-9) if precision == 64 else (torch.float32, 5e-5)
    tiny, schedule = TinyUNet(dtype), NoiseSchedule(1000)
    modes = {"index_mode": "authors", "clip_mode": CLIP[clip]}
    monkeypatch.setattr("common.samplers.ddim.randn_like", lambda *_: tiny.noise)
    if precision == 64:
        start = encode(healthy(tiny), tiny.image, schedule, 1, **modes)
        np.testing.assert_allclose(start, RECORDED[f"L20_clip{clip}_f64_start"], rtol=1e-9, atol=1e-10)
    latent = encode(healthy(tiny), tiny.image, schedule, 20, **modes)
    np.testing.assert_allclose(latent, RECORDED[f"L20_clip{clip}_f{precision}_enc_end"], rtol=tolerance, atol=tolerance)
    guides = (classifier_guidance(tiny.classify, 0, 100),)
    image = decode(healthy(tiny), latent, schedule, 20, guides, **modes)
    np.testing.assert_allclose(image, RECORDED[f"L20_clip{clip}_f{precision}_dec_end"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("num_inference_steps", "rms"), [(1000, 0.00250), (500, 0.00508), (200, 0.0126), (100, 0.0245)]
)
def test_the_round_trip_of_a_gaussian_has_the_discretisations_error(num_inference_steps, rms):
    schedule = NoiseSchedule(1000, num_inference_steps=num_inference_steps, spacing="trailing")
    model, image = gaussian(200_000)
    latent = encode(model, image, schedule, 500)
    error = (decode(model, latent, schedule, 500) - image).square().mean().sqrt().item()
    assert error == pytest.approx(rms, rel=0.02)


def test_what_is_beyond_the_bounds_is_clamped_and_the_noise_stays(tiny_unet):
    schedule, noise = NoiseSchedule(1000), torch.roll(tiny_unet.noise, 1, dims=-1)
    clean = schedule.predict_x_0(tiny_unet.noise, noise, 799)
    moved = ddim_step(tiny_unet.noise, noise, 800, 700, schedule, (0.0, 1.0))
    assert clean.min() < 0
    assert clean.max() > 1
    torch.testing.assert_close(moved, schedule.add_noise(clean.clamp(0, 1), noise, 699), rtol=0, atol=0)


@given(share=st.floats(-0.03, 0.03))
def test_whatever_part_of_the_noise_a_model_misses_images_stay_within_bounds(share):
    schedule = NoiseSchedule(1000, num_inference_steps=20)
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = decode(lambda x_t, timesteps: (1 + share) * x_t, noise, schedule, 1000, bounds=(0.0, 1.0))
    assert image.min() >= 0
    assert image.max() <= 1


def test_bounds_that_hold_all_images_change_nothing():
    model, image = gaussian(100)
    schedule, noise = NoiseSchedule(1000, num_inference_steps=50), torch.randn_like(image)
    within = decode(model, noise, schedule, 1000, bounds=(-1.0, 2.0))
    torch.testing.assert_close(within, decode(model, noise, schedule, 1000), rtol=0, atol=0)


def test_heuns_encoder_is_of_second_order():
    model, image = gaussian(1000)
    fine = NoiseSchedule(1000)
    exact = encode(model, image, fine, 500, heun=True)

    def error(num_steps, heun):
        latent = encode(model, image, NoiseSchedule(1000, num_inference_steps=num_steps), 500, heun=heun)
        return (latent - exact).abs().mean().item()

    assert error(200, heun=True) < 0.1 * error(200, heun=False)


def test_one_pass_gives_the_latents_of_all_noise_levels(tiny_unet):
    schedule = NoiseSchedule(1000, num_inference_steps=20)
    for mode in ("paper", "paired"):
        together = encode(healthy(tiny_unet), tiny_unet.image, schedule, [700, 100, 400], mode)
        for level, latent in zip([700, 100, 400], together, strict=True):
            alone = encode(healthy(tiny_unet), tiny_unet.image, schedule, level, mode)
            torch.testing.assert_close(latent, alone, rtol=0, atol=0)


def test_the_level_of_the_whole_schedule_works():
    model, image = gaussian(100)
    schedule = NoiseSchedule(1000)
    latent = encode(model, image, schedule, 1000)
    assert latent.std().item() == pytest.approx(1, abs=0.2)
    assert (decode(model, latent, schedule, 1000) - image).abs().mean() < 0.01
    with pytest.raises(ValueError, match="only index_mode 'paper' leaves"):
        encode(model, image, schedule, 1000, "paired")


def test_the_network_is_told_the_step_below_each_level():
    seen = []

    def model(x_t, timesteps):
        seen.append(timesteps[0].item())
        return torch.zeros_like(x_t)

    image, schedule = torch.zeros(1, 1, 2, 2), NoiseSchedule(10)
    latent = encode(model, image, schedule, 4)
    assert seen == [0, 0, 1, 2]
    seen.clear()
    decode(model, latent, schedule, 4)
    assert seen == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("mode", "there", "back"),
    [("paper", [0, 1, 2, 3], [3, 2, 1, 0]), ("paired", [1, 2, 3, 4], [4, 3, 2, 1]), ("authors", [2, 3, 4], [2, 1, 0])],
)
def test_levels_of_three_steps(mode, there, back):
    assert list(encoding_levels(3, mode)) == there
    assert list(decoding_levels(3, mode)) == back


@pytest.mark.parametrize("num_inference_steps", [2, 5, 50])
@pytest.mark.parametrize(("keep", "heun"), [("device", False), ("cpu", True)])
def test_an_exact_inversion_without_guidance_brings_the_image_back(num_inference_steps, keep, heun):
    tiny_unet = TinyUNet(torch.float32)
    schedule = NoiseSchedule(1000, num_inference_steps=num_inference_steps, spacing="trailing")
    model, image, way = healthy(tiny_unet), tiny_unet.image, Trajectory(keep)
    latent = encode(model, image, schedule, 1000, heun=heun, trajectory=way)
    torch.testing.assert_close(decode(model, latent, schedule, 1000, trajectory=way), image, atol=1e-6, rtol=0)
    assert (decode(model, latent, schedule, 1000) - image).abs().max() > 1e-4


def test_of_a_gaussian_an_exact_inversion_changes_what_guidance_changes_and_nothing_else():
    model, image = gaussian(20)
    schedule = NoiseSchedule(1000, num_inference_steps=10, spacing="trailing")
    way = Trajectory()
    latent = encode(model, image, schedule, 500, trajectory=way)
    pulled, plain = (decode(model, latent, schedule, 500, guides) for guides in (darker, None))
    exact = decode(model, latent, schedule, 500, darker, trajectory=way)
    torch.testing.assert_close(exact - image, pulled - plain)  # the predictor is linear
    assert (exact - image).abs().min() > 0.01


def test_what_is_kept_in_half_precision_brings_the_image_back_nearly(tiny_unet):
    schedule, way = NoiseSchedule(1000, num_inference_steps=20, spacing="trailing"), Trajectory("bfloat16")
    latent = encode(healthy(tiny_unet), tiny_unet.image, schedule, 500, trajectory=way)
    back = decode(healthy(tiny_unet), latent, schedule, 500, trajectory=way)
    assert (back - tiny_unet.image).abs().max() < 0.02
    assert back.dtype == tiny_unet.image.dtype


def test_an_exact_inversion_keeps_the_levels_that_it_goes_back_by(tiny_unet):
    way = Trajectory()
    latent = encode(tiny_unet, tiny_unet.image, NoiseSchedule(1000), 20, "authors", trajectory=way)
    with pytest.raises(ValueError, match="the way back leaves the levels that were encoded, as with index_mode"):
        decode(tiny_unet, latent, NoiseSchedule(1000), 20, index_mode="authors", trajectory=way)
    with pytest.raises(ValueError, match="keep_on must be one of device, cpu, bfloat16, got 'disk'"):
        Trajectory("disk")


def darker(x_t, timesteps):
    return -torch.ones_like(x_t)


@pytest.mark.parametrize("level", [0, -1, 1001])
def test_a_noise_level_outside_the_schedule_is_refused(level):
    with pytest.raises(ValueError, match=rf"noise_level must lie in \[1, 1000\].*got {level}"):
        steps_below(level, NoiseSchedule(1000))


def test_unknown_modes_are_refused(tiny_unet):
    with pytest.raises(ValueError, match="index_mode must be one of paper, paired, authors, got 'thesis'"):
        encode(tiny_unet, tiny_unet.image, NoiseSchedule(10), 5, "thesis")
    with pytest.raises(ValueError, match="clip_mode must be one of none, authors, got 'both'"):
        decode(tiny_unet, tiny_unet.image, NoiseSchedule(10), 5, clip_mode="both")


def gaussian(count):
    """Return the exact model of pixels of mean .3 and variance .04, and some of them."""
    generator = torch.Generator().manual_seed(0)
    image = 0.3 + 0.2 * torch.randn(count, 1, 1, generator=generator, dtype=torch.float64)
    return GaussianModel([0.3], [[0.04]], NoiseSchedule(1000).alphas_cumprod), image
