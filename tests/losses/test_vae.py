import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.nets import VarAutoEncoder
from torch.distributions import Normal, kl_divergence

from common.losses.vae import VAELoss

IMAGE = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
STANDARD = torch.zeros(2, 3)


def loss(reconstruction=IMAGE, mean=STANDARD, log_variance=STANDARD, kl_weight=0.5):
    return VAELoss(kl_weight)((reconstruction, mean, log_variance, mean), IMAGE)


def test_a_perfect_reconstruction_from_a_standard_normal_code_costs_nothing():
    assert loss() == 0


def test_of_a_standard_normal_code_the_squared_error_remains():
    assert loss(IMAGE + 0.5) == pytest.approx(0.25)


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_the_rest_is_the_divergence_from_a_standard_normal_per_pixel(mean, log_variance):
    mean, log_variance = torch.full((2, 3), mean), torch.full((2, 3), log_variance)
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum()
    expected = 0.5 * divergence / IMAGE.numel()
    # Two orders of float32 operations.
    torch.testing.assert_close(loss(mean=mean, log_variance=log_variance), expected, rtol=1e-4, atol=1e-6)


def test_without_weight_the_code_is_free():
    assert loss(mean=STANDARD + 3, kl_weight=0) == 0


def test_both_halves_of_monais_autoencoder_learn_from_it():
    torch.manual_seed(0)
    network = VarAutoEncoder(2, (1, 8, 8), 1, latent_size=3, channels=(4, 8), strides=(2, 2))
    image = torch.rand(2, 1, 8, 8)
    VAELoss()(network(image), image).backward()
    halves = (network.encode, network.mu, network.logvar, network.decodeL, network.decode)
    assert all(parameter.grad.abs().sum() > 0 for half in halves for parameter in half.parameters())
