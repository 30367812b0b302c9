import json
import re

import pytest
import torch
from generative.networks import nets as generative
from monai.networks import nets
from torch import nn

from common.checkpoints import (
    convert,
    from_monai_generative,
    load_parts,
    read_weights,
    refuse_other_weights,
    save_atomically,
)
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


class Interrupts:
    """Cannot be written: the run is stopped at this point of the file."""

    def __reduce__(self):
        raise KeyboardInterrupt


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def network(size=4):
    return nn.ModuleDict({"organ": nn.Linear(2, 2), "diffusion": nn.Linear(size, size)})


def guarded():
    module = nn.Linear(2, 2)
    module.register_load_state_dict_post_hook(refuse_other_weights)
    return module


def saved(path, module=None, **changes):
    """Write the weights of a network, some of them changed or (None) left out, and return the path."""
    weights = {**(module or network()).state_dict(), **{name.replace("__", "."): v for name, v in changes.items()}}
    torch.save({name: value for name, value in weights.items() if value is not None}, path)
    return path


def test_what_is_saved_can_be_read(tmp_path):
    save_atomically({"a": torch.arange(3)}, tmp_path / "model.pt")
    assert torch.equal(read_weights(tmp_path / "model.pt")["a"], torch.arange(3))


def test_the_folder_is_made(tmp_path):
    save_atomically({}, tmp_path / "new" / "er" / "model.pt")
    assert (tmp_path / "new" / "er" / "model.pt").is_file()


def test_a_save_leaves_nothing_but_its_file(tmp_path):
    save_atomically({}, tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path):
    save_atomically({"a": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"a": torch.zeros(1), "b": Interrupts()}, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt")["a"] == 1


def test_an_interrupted_first_save_leaves_no_file_of_that_name(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"a": torch.zeros(1), "b": Interrupts()}, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_what_an_interrupted_save_left_is_overwritten(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"a": torch.zeros(1), "b": Interrupts()}, tmp_path / "model.pt")
    save_atomically({"a": torch.ones(1)}, tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_weights_of_the_same_network_are_taken():
    module, other = guarded(), guarded()
    module.load_state_dict(other.state_dict())
    assert torch.equal(module.weight, other.weight)


@pytest.mark.parametrize("strict", [True, False])
def test_missing_weights_are_refused(strict):
    module = guarded()
    with pytest.raises(RuntimeError, match=r"these are not weights of this Linear: 1 expected keys are missing"):
        module.load_state_dict({"weight": module.weight}, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_unknown_weights_are_refused(strict):
    module = guarded()
    with pytest.raises(RuntimeError, match=r"0 expected .* and 1 are unknown \['classifier.weight'\]"):
        module.load_state_dict({**module.state_dict(), "classifier.weight": torch.zeros(1)}, strict=strict)


@pytest.mark.parametrize("changed", [{"1.bias": None}, {"1.scale": torch.zeros(1)}], ids=["missing", "unknown"])
def test_a_network_within_another_refuses_too(changed):
    outer = nn.Sequential(nn.Identity(), guarded())
    weights = {name: value for name, value in {**outer.state_dict(), **changed}.items() if value is not None}
    with pytest.raises(RuntimeError, match="these are not weights of this Linear"):
        outer.load_state_dict(weights, strict=False)


def test_all_parts_are_loaded(tmp_path):
    published, loaded = network(), network()
    load_parts(loaded, saved(tmp_path / "model.pt", published))
    assert all(torch.equal(value, published.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"diffusion__weight": torch.zeros(3, 3)},
            r"expected diffusion.weight of shape \(4, 4\), got \(3, 3\); these are weights of another size or bundle",
        ),
        ({"organ__bias": None}, r"expected organ.bias of shape \(2,\), got nothing"),
        (
            {"classifier__weight": torch.zeros(1)},
            r"expected weights of this bundle, got 1 unknown ones \(classifier.weight",
        ),
    ],
    ids=["other size", "missing", "unknown"],
)
def test_weights_that_do_not_fit_are_refused_with_file_and_reason(tmp_path, changes, reason):
    path = saved(tmp_path / "model.pt", **changes)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: {reason}"):
        load_parts(network(), path)


def test_weights_that_are_refused_change_nothing(tmp_path):
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"diffusion.bias"):
        load_parts(module, saved(tmp_path / "model.pt", diffusion__bias=None))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_part_that_is_left_out_stays_as_it_is(tmp_path):
    module = network()
    before = module["diffusion"].weight.clone()
    load_parts(module, saved(tmp_path / "model.pt"), leave_out=["diffusion"])
    assert torch.equal(module["diffusion"].weight, before)


def test_beside_a_part_that_is_left_out_the_others_are_loaded(tmp_path):
    published, module = network(size=7), network()
    load_parts(module, saved(tmp_path / "model.pt", published), leave_out=["diffusion"])
    assert torch.equal(module["organ"].weight, published["organ"].weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"diffusion__weight": torch.zeros(3, 3)},
        {"diffusion__weight": None, "diffusion__bias": None},
        {"diffusion__scale": torch.zeros(1)},
    ],
    ids=["other size", "missing", "unknown"],
)
def test_a_part_that_is_left_out_may_be_anything_in_the_file(tmp_path, changes):
    module = network()
    path = saved(tmp_path / "model.pt", **changes)
    load_parts(module, path, leave_out=["diffusion"])
    assert torch.equal(module["organ"].weight, read_weights(path)["organ.weight"])


def test_weights_that_are_not_there_are_said_to_be_trained_first(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*model.pt: train the bundle, or set model_path"):
        read_weights(tmp_path / "model.pt")


def write_cut_off(path):
    path.write_bytes(saved(path).read_bytes()[:300])


def write_other_objects(path):
    torch.save({"a": torch.zeros(1), "b": Runs(path.with_name("ran"))}, path)


UNREADABLE = {
    "cut off": write_cut_off,
    "empty": lambda path: path.write_bytes(b""),
    "a web page": lambda path: path.write_text("<html>404</html>"),
    "other objects": write_other_objects,
}


@pytest.mark.parametrize("write", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_holds_no_weights_is_named(tmp_path, write):
    write(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: expected a file of weights \(tensors only\)"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["a web page", "other objects"])
def test_the_reason_is_one_sentence_without_torchs_advice(tmp_path, name):
    UNREADABLE[name](tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt") as refused:
        read_weights(tmp_path / "model.pt")
    assert not re.search(r"\n|\x1b|weights_only|trust", str(refused.value))


def test_the_reason_is_given_for_an_empty_file_too(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot be read: \w+"):
        read_weights(tmp_path / "model.pt")


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    write_other_objects(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt"):
        read_weights(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"model": {"a": torch.zeros(1)}}], ids=["list", "nested"])
def test_a_file_of_tensors_that_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: expected a raw state dict of tensors"):
        read_weights(tmp_path / "model.pt")


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
    config = {
        "model_path": saved(folder / "model.pt", container).as_posix(),
        "channels": [8, 16],
        "network_def": {
            "_target_": "common.networks.parts.NetworkParts",
            "main": "diffusion",
            "organ": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2},
            "diffusion": {
                "_target_": "DiffusionModelUNet",
                "channels": "@channels",
                "num_head_channels": 4,
                **SIZES,
            },
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
