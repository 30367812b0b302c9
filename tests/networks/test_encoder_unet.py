import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from monai.networks.nets import DiffusionModelUNet

from common.checkpoints import convert, from_guided_diffusion, load_parts
from common.networks.encoder_unet import EncoderUNet
from common.networks.parts import NetworkParts

RECORDED = np.load(GOLDEN / "guided_networks.npz")
KEYS = json.loads((GOLDEN / "guided_network_keys.json").read_text())
TIMESTEPS, CLASSES = torch.tensor(RECORDED["t"]), torch.tensor(RECORDED["y"])


def recorded_weights(name):
    """Return the weights that the outputs were recorded with: they are drawn by their names' order."""
    weights = {}
    shapes = dict(KEYS[name])
    for number, key in enumerate(sorted(shapes)):
        drawn = np.random.RandomState(number).standard_normal(shapes[key])
        if drawn.ndim > 1:
            drawn /= np.sqrt(np.prod(drawn.shape[1:]))
        else:
            drawn = 0.1 * drawn + (1 if key.endswith(".weight") else 0)
        weights[key] = torch.tensor(drawn, dtype=torch.float32)
    return weights


def image():
    drawn = np.random.RandomState(99).standard_normal((2, 2, 16, 16))
    return torch.tensor(drawn, dtype=torch.float32, requires_grad=True)


def small_unet():
    sizes = {"channels": (32, 64), "attention_levels": (False, True), "num_head_channels": (32, 64)}
    return DiffusionModelUNet(2, 2, 4, num_res_blocks=1, norm_eps=1e-5, num_class_embeds=2, **sizes)


def small_encoder(spatial_size=16):
    return EncoderUNet(2, 2, 2, spatial_size, (32, 64), 1, (False, True), 32)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_u_net_of_guided_diffusion_gives_what_it_gave_there():
    x, network = image(), small_unet()
    network.load_state_dict(from_guided_diffusion(recorded_weights("unet"), network))
    output = network(x, TIMESTEPS, class_labels=CLASSES)
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    np.testing.assert_allclose(output.detach(), RECORDED["unet_out"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, RECORDED["unet_grad"], rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize(("name", "make"), [("unet", small_unet), ("encoder", small_encoder)])
def test_weights_that_do_not_fit_are_refused(name, make):
    weights = recorded_weights(name)
    network, key = make(), next(k for k in weights if k.endswith("qkv.weight"))
    with pytest.raises(ValueError, match=r"got 1 unknown ones \(extra, ...\)"):
        from_guided_diffusion(weights | {"extra": torch.zeros(1)}, network)
    with pytest.raises(ValueError, match=rf"with {key} of shape .*got \(3, 3\)"):
        from_guided_diffusion(weights | {key: torch.zeros(3, 3)}, network)
    with pytest.raises(ValueError, match=rf"with {key} of shape .*got nothing"):
        from_guided_diffusion({k: v for k, v in weights.items() if k != key}, network)


def test_a_u_net_with_scale_shift_normalisation_is_refused_in_one_sentence():
    weights = {
        key: value.repeat(2, *[1] * (value.ndim - 1)) if ".emb_layers.1." in key else value
        for key, value in recorded_weights("unet").items()
    }
    with pytest.raises(ValueError, match=r"without scale-shift normalisation .* as the released ones of CDM are"):
        from_guided_diffusion(weights, small_unet())


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


def test_weights_of_guided_diffusion_become_those_of_a_bundle(tmp_path):
    """Also where the bundle has no weights yet, as all of them are converted."""
    unet = {"_target_": "DiffusionModelUNet", "spatial_dims": 2, "in_channels": 2, "out_channels": 4, "norm_eps": 1e-5}
    unet |= {"channels": [32, 64], "attention_levels": [False, True], "num_head_channels": [32, 64]}
    unet |= {"num_res_blocks": 1, "num_class_embeds": 2}
    parts = {"_target_": "common.networks.parts.NetworkParts", "main": "diffusion", "diffusion": unet}
    (tmp_path / "inference.json").write_text(
        json.dumps({"network_def": parts, "model_path": str(tmp_path / "model.pt")})
    )
    torch.save(recorded_weights("unet"), tmp_path / "old.pt")
    options = {"config_file": str(tmp_path / "inference.json"), "source": "guided_diffusion"}
    convert(str(tmp_path / "old.pt"), str(tmp_path / "model.pt"), **options)
    network = NetworkParts("diffusion", diffusion=small_unet())
    load_parts(network, tmp_path / "model.pt")
    output = network.diffusion(image(), TIMESTEPS, class_labels=CLASSES)
    np.testing.assert_allclose(output.detach(), RECORDED["unet_out"], rtol=1e-5, atol=1e-5)


def test_an_unknown_source_of_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match="source must be one of monai_generative, guided_diffusion, got 'k'"):
        convert("old.pt", "new.pt", "inference.json", source="k")
