import numpy as np
import pytest
import torch
from guided_networks import CLASSES, RECORDED, TIMESTEPS, image, recorded_weights, small_encoder
from monai.networks.nets import DiffusionModelUNet

from common.converters import from_guided_diffusion
from common.networks.encoder_unet import EncoderUNet


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_encoder_of_guided_diffusion_gives_what_it_gave_there():
    x, network = image(), small_encoder()
    network.load_state_dict(from_guided_diffusion(recorded_weights("encoder"), network))
    logits = network(x, TIMESTEPS)
    (gradient,) = torch.autograd.grad(logits.log_softmax(1)[range(2), CLASSES].sum(), x)
    np.testing.assert_allclose(logits.detach(), RECORDED["encoder_logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, RECORDED["encoder_grad"], rtol=1e-5, atol=1e-5)


def test_the_papers_networks_have_the_papers_sizes():
    with torch.device("meta"):
        sizes = {"channels": (128, 128, 256, 256, 512, 512), "attention_levels": [False] * 4 + [True, False]}
        unet = DiffusionModelUNet(
            2, 4, 8, num_res_blocks=2, norm_eps=1e-5, num_class_embeds=2, num_head_channels=sizes["channels"], **sizes
        )
        classifier, regressor = EncoderUNet(2, 4, 2, 256), EncoderUNet(2, 4, 1, 256)
    assert count(unet) == 113_681_160
    assert count(classifier) == 5_452_962
    assert count(regressor) == 5_452_833


def test_an_encoder_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"expected images of \(16, 16\) pixels, as in training, got \(32, 32\)"):
        small_encoder()(torch.zeros(1, 2, 32, 32), torch.zeros(1))
    with pytest.raises(ValueError, match=r"spatial_size must be divisible by 2, got \(15, 15\)"):
        small_encoder(15)
    with pytest.raises(RuntimeError, match=r"position"):
        small_encoder(32).load_state_dict(small_encoder(16).state_dict())


def test_an_encoder_works_on_volumes():
    network = EncoderUNet(3, 1, 3, 16, (32, 64), 1, (False, True), 32)
    assert network(torch.zeros(2, 1, 16, 16, 16), torch.tensor([0, 5])).shape == (2, 3)
