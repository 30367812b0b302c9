import numpy as np
import pytest
import torch
from conftest import GOLDEN, TinyUNet

from common.losses.hybrid_vlb import HybridVLBLoss
from common.schedulers import NoiseSchedule

RECORDED = {name: torch.tensor(value) for name, value in np.load(GOLDEN / "hybrid_vlb.npz").items()}
SCHEDULE = NoiseSchedule(1000)


@pytest.fixture
def batch():
    return {"image": RECORDED["x"], "noise": RECORDED["noise"], "timesteps": RECORDED["t"]}


def predict(model, batch):
    x_t = SCHEDULE.add_noise(batch["image"], batch["noise"], batch["timesteps"])
    return model(x_t, batch["timesteps"], RECORDED["y"])


def test_values_equal_guided_diffusion(batch):
    loss = HybridVLBLoss(SCHEDULE, reduction="none")(predict(TinyUNet(), batch), batch)
    torch.testing.assert_close(loss, RECORDED["gd_loss"], rtol=1e-9, atol=1e-10)


def test_gradients_equal_guided_diffusion(batch):
    model = TinyUNet()
    for weight in model.w.values():
        weight.requires_grad_()
    HybridVLBLoss(SCHEDULE)(predict(model, batch), batch).backward()
    torch.testing.assert_close(model.w["W2"].grad, RECORDED["grad_W2"], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model.w["E"].grad, RECORDED["grad_E"], rtol=1e-9, atol=1e-10)


def test_a_network_without_variance_gets_the_simple_loss(batch):
    epsilon = predict(TinyUNet(), batch)[:, :4]
    loss = HybridVLBLoss(SCHEDULE, reduction="none")(epsilon, batch)
    torch.testing.assert_close(loss, RECORDED["gd_mse"], rtol=1e-9, atol=1e-10)


def test_p2_weights_fall_with_the_signal(batch):
    epsilon = predict(TinyUNet(), batch)[:, :4]
    loss = HybridVLBLoss(SCHEDULE, p2_gamma=0.5, reduction="none")(epsilon, batch)
    weights = (1 - SCHEDULE.alphas_cumprod[batch["timesteps"]]).sqrt()
    torch.testing.assert_close(loss, RECORDED["gd_mse"] * weights, rtol=1e-9, atol=1e-10)


def test_rescaling_multiplies_the_bound_alone(batch):
    schedule = NoiseSchedule(4000)
    pred = torch.randn(5, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, rescaled = (HybridVLBLoss(schedule, rescale=r, reduction="none")(pred, batch) for r in (False, True))
    simple = HybridVLBLoss(schedule, reduction="none")(pred[:, :4], batch)
    torch.testing.assert_close(rescaled - simple, 4 * (plain - simple))


def test_the_absolute_error_of_the_noise_is_an_option(batch):
    epsilon = predict(TinyUNet(), batch)[:, :4]
    loss = HybridVLBLoss(SCHEDULE, error="absolute")(epsilon, batch)
    torch.testing.assert_close(loss, (epsilon - batch["noise"]).abs().mean())
    with pytest.raises(ValueError, match="squared or absolute"):
        HybridVLBLoss(SCHEDULE, error="huber")
