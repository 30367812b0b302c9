import json

import numpy as np
import pytest
import torch
from generative.networks import nets as generative
from guided_networks import CLASSES, RECORDED, TIMESTEPS, image, recorded_weights, small_encoder, small_unet
from monai.networks import nets
from torch import nn

from common.checkpoints import load_parts, read_weights
from common.converters import convert, from_guided_diffusion, from_monai_generative
from common.networks.parts import NetworkParts

SIZES = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "num_res_blocks": 1,
    "attention_levels": (False, True),
    "norm_num_groups": 4,
}
CROSS_ATTENTION = {"with_conditioning": True, "cross_attention_dim": 3}
VARIANTS = {
    "self-attention": {},
    "cross-attention": CROSS_ATTENTION,
    "self-attention in 3-D": {"spatial_dims": 3},
    "cross-attention in 3-D": {"spatial_dims": 3, **CROSS_ATTENTION},
    "two layers of cross-attention": {"transformer_num_layers": 2, **CROSS_ATTENTION},
    "attention at each level": {"attention_levels": (True, True)},
    "residual up- and downsampling": {"resblock_updown": True},
    "classes": {"num_class_embeds": 2},
}
"""Of ``DiffusionModelUNet``."""


def trained(name, channels=(8, 16), **options):
    """Return a network of monai-generative, none of whose weights is zero as it is before training."""
    torch.manual_seed(0)
    module = getattr(generative, name)(num_channels=channels, **SIZES | options).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def trained_unet(**options):
    return trained("DiffusionModelUNet", num_head_channels=4, **options)


def unet(channels=(8, 16), **options):
    return nets.DiffusionModelUNet(channels=channels, num_head_channels=4, **SIZES | options).eval()


@torch.no_grad()
def predicted(module, variant):
    """Return what a ``DiffusionModelUNet`` says of two noisy images."""
    generator = torch.Generator().manual_seed(1)
    inputs = {"x": torch.randn(2, 1, *[8] * variant.get("spatial_dims", 2), generator=generator)}
    if "cross_attention_dim" in variant:
        inputs["context"] = torch.randn(2, 5, 3, generator=generator)
    if "num_class_embeds" in variant:
        inputs["class_labels"] = torch.tensor([0, 1])
    return module(timesteps=torch.tensor([3, 700]), **inputs)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_unet_of_monai_generative_predicts_the_same_here(variant):
    theirs, ours = trained_unet(**variant), unet(**variant)
    ours.load_state_dict(from_monai_generative(theirs.state_dict(), ours))
    torch.testing.assert_close(predicted(ours, variant), predicted(theirs, variant), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_an_autoencoder_of_monai_generative_gives_the_same_here(spatial_dims):
    options = {"spatial_dims": spatial_dims, "latent_channels": 2}
    theirs = trained("AutoencoderKL", **options)
    ours = nets.AutoencoderKL(channels=(8, 16), **SIZES | options).eval()
    ours.load_state_dict(from_monai_generative(theirs.state_dict(), ours))
    image = torch.randn(1, 1, *[8] * spatial_dims)
    torch.testing.assert_close(ours.reconstruct(image), theirs.reconstruct(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (
            lambda: trained_unet(channels=(8, 24)).state_dict(),
            r"expected weights of monai-generative with \S+ of shape \(16,.*\), got \(24,.*\)\.",
        ),
        (
            lambda: trained_unet(**CROSS_ATTENTION).state_dict(),
            r"with \S+\.to_q\.weight of shape \(16, 16\), got nothing\.",
        ),
        (lambda: unet().state_dict(), r"with \S+\.to_q\.weight of shape \(16, 16\), got nothing\."),
        (
            lambda: trained_unet(num_class_embeds=2).state_dict(),
            r"DiffusionModelUNet of this size, got 1 unknown ones \(class_embedding\.weight, \.\.\.\)\.",
        ),
        (lambda: {}, r"with \S+ of shape \(8, .*\), got nothing\."),
    ],
    ids=["other size", "other attention", "MONAI's already", "classes", "empty"],
)
def test_weights_of_another_network_are_not_converted(weights, reason):
    with pytest.raises(ValueError, match=reason):
        from_monai_generative(weights(), unet())


def test_converting_leaves_weights_and_network_as_they_are():
    weights, module = trained_unet().state_dict(), unet()
    before = {name: value.clone() for name, value in (*weights.items(), *module.state_dict().items())}
    from_monai_generative(weights, module)
    assert all(torch.equal(v, before[name]) for name, v in {**weights, **module.state_dict()}.items())


def write_bundle(folder):
    """Write a config and the weights of a container with two parts; return the container and the config."""
    container = NetworkParts(main="diffusion", organ=nn.Linear(2, 2), diffusion=unet(channels=(4, 4)))
    torch.save(container.state_dict(), folder / "model.pt")
    config = {
        "model_path": str(folder / "model.pt"),
        "channels": [8, 16],
        "network_def": {
            "_target_": "common.networks.parts.NetworkParts",
            "main": "diffusion",
            "organ": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2},
            "diffusion": {"_target_": "DiffusionModelUNet", "channels": "@channels", "num_head_channels": 4, **SIZES},
        },
    }
    (folder / "inference.json").write_text(json.dumps(config))
    return container, folder / "inference.json"


def test_a_network_of_monai_generative_becomes_a_part_of_a_bundle(tmp_path):
    theirs, (container, config_file) = trained_unet(), write_bundle(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "old.pt")
    convert(tmp_path / "old.pt", tmp_path / "new.pt", config_file)
    loaded = NetworkParts(main="diffusion", organ=nn.Linear(2, 2), diffusion=unet())
    load_parts(loaded, tmp_path / "new.pt")
    torch.testing.assert_close(predicted(loaded.diffusion, {}), predicted(theirs, {}), rtol=0, atol=1e-5)
    assert torch.equal(loaded.organ.weight, container.organ.weight)


def test_a_bundle_may_be_given_the_sizes_of_the_network(tmp_path):
    _, config_file = write_bundle(tmp_path)
    torch.save(trained_unet(channels=(8, 24)).state_dict(), tmp_path / "old.pt")
    convert(tmp_path / "old.pt", tmp_path / "new.pt", config_file, channels=[8, 24])
    assert read_weights(tmp_path / "new.pt")["diffusion.down_blocks.1.resnets.0.conv1.conv.bias"].shape == (24,)


def test_weights_that_do_not_become_a_part_are_named_and_nothing_is_written(tmp_path):
    _, config_file = write_bundle(tmp_path)
    torch.save(trained_unet(channels=(8, 24)).state_dict(), tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"old.pt: expected weights of monai-generative with"):
        convert(tmp_path / "old.pt", tmp_path / "new.pt", config_file)
    assert not (tmp_path / "new.pt").exists()


def test_the_u_net_of_guided_diffusion_gives_what_it_gave_there():
    x, network = image(), small_unet()
    network.load_state_dict(from_guided_diffusion(recorded_weights("unet"), network))
    output = network(x, TIMESTEPS, class_labels=CLASSES)
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    np.testing.assert_allclose(output.detach(), RECORDED["unet_out"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, RECORDED["unet_grad"], rtol=1e-5, atol=1e-5)


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
