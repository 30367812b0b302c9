import json

import pytest
import torch
from monai.bundle import verify_net_in_out
from monai.networks.nets import DiffusionModelUNet, VarAutoEncoder
from torch import nn

from common.checkpoints import read_weights
from common.networks.parts import NetworkParts, with_part

FITTED_WITH = {"noise_level": 300, "guidance_scale": 0.95, "median_radius": [1, 1]}


class TellsTimesteps(nn.Module):
    def forward(self, image, timesteps):
        return image + timesteps[:, None]


class TakesAny(nn.Module):
    """What TorchScript does not know."""

    def forward(self, *images):
        return images[0]


class Doubles(nn.Module):
    def forward(self, image, timesteps):
        return 2 * image


def container(**options):
    torch.manual_seed(0)
    return NetworkParts("diffusion", **{"organ": nn.Linear(3, 3), "diffusion": TellsTimesteps(), **options})


def test_forward_runs_the_main_part_at_timestep_0():
    image = torch.rand(4, 3)
    assert torch.equal(container()(image), image)


def test_forward_runs_a_diffusion_network():
    unet = DiffusionModelUNet(2, 1, 1, 1, (8,), (False,), norm_num_groups=4, num_head_channels=8)
    assert container(diffusion=unet)(torch.zeros(2, 1, 8, 8)).shape == (2, 1, 8, 8)


def test_forward_tells_a_class_conditional_network_class_0():
    unet = DiffusionModelUNet(2, 1, 1, 1, (8,), (False,), norm_num_groups=4, num_head_channels=8, num_class_embeds=2)
    nn.init.normal_(unet.out[-1].conv.weight)
    image, zeros = torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)
    assert torch.equal(container(diffusion=unet)(image), unet(image, zeros, class_labels=zeros))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_network_that_knows_no_timesteps_may_be_the_main_part(spatial_dims, tmp_path):
    unet = {"_target_": "BasicUNet", "spatial_dims": spatial_dims, "in_channels": 2, "features": [4, 4, 4, 4, 4, 4]}
    size = [32] * spatial_dims
    network = {"_target_": "common.networks.parts.NetworkParts", "main": "unet", "unet": unet}
    image = {"num_channels": 2, "spatial_shape": size, "dtype": "float32", "value_range": []}
    form = {"inputs": {"image": image}, "outputs": {"pred": {**image, "channel_def": {}}}}
    (tmp_path / "inference.json").write_text(json.dumps({"network_def": network}))
    (tmp_path / "metadata.json").write_text(json.dumps({"network_data_format": form}))
    files = {"config_file": str(tmp_path / "inference.json"), "meta_file": str(tmp_path / "metadata.json")}
    verify_net_in_out(net_id="network_def", **files)


def test_of_an_autoencoder_forward_gives_the_image():
    torch.manual_seed(0)
    vae = VarAutoEncoder(2, (1, 8, 8), 1, 3, (4,), (2,)).eval()
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(container(diffusion=vae)(image), vae(image)[0])


def test_a_main_part_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"main must be one of \['diffusion', 'organ'\], got 'unet'"):
        NetworkParts("unet", organ=nn.Identity(), diffusion=nn.Identity())


def test_a_part_can_be_left_out():
    network = container(organ=None)
    assert set(network.state_dict()) == {"threshold", "threshold_settings"}
    assert torch.equal(network(torch.ones(4, 3)), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"main must be one of \['organ'\], got 'diffusion'"):
        container(diffusion=None)


def test_parts_keep_their_names_in_the_weights():
    names = set(container().state_dict())
    assert names == {"organ.weight", "organ.bias", "threshold", "threshold_settings"}


def test_there_is_no_threshold_until_one_is_fitted():
    assert container().threshold.isnan()


def test_the_threshold_comes_with_the_weights():
    fitted, other = container(), container()
    fitted.threshold.fill_(12.5)
    other.load_state_dict(fitted.state_dict())
    assert other.threshold == 12.5


def test_what_the_threshold_was_fitted_with_comes_with_the_weights():
    fitted, other = container(), container()
    fitted.set_threshold(12.5, FITTED_WITH)
    other.load_state_dict(fitted.state_dict())
    assert other.thresholds == [(12.5, FITTED_WITH)]


def test_thresholds_for_other_settings_are_kept_beside_the_first_one():
    fitted, other = container(), container()
    usual, few, many, new = ({**FITTED_WITH, "num_inference_steps": n} for n in (50, 5, 1000, 7))
    for threshold, settings in ((12.5, usual), (9.0, few), (13.0, many), (8.5, few)):
        fitted.set_threshold(threshold, settings, beside=True)
    other.load_state_dict(fitted.state_dict())
    assert other.thresholds == [(12.5, usual), (8.5, few), (13.0, many)]
    assert other.threshold == 12.5
    assert other.threshold_for(few) == (8.5, few)
    assert other.threshold_for(new) == (12.5, usual)
    other.set_threshold(11.0, usual, beside=True)
    assert other.thresholds == [(11.0, usual), (8.5, few), (13.0, many)]
    other.set_threshold(3.0, few)
    assert other.thresholds == [(3.0, few)]


def test_what_one_side_does_not_have_is_off():
    network, usual = container(), FITTED_WITH
    network.set_threshold(1.0, {**usual, "heun": True})
    network.set_threshold(2.0, usual, beside=True)
    assert network.thresholds[1] == (2.0, {**usual, "heun": False})
    assert network.threshold_for(usual)[0] == 2.0
    assert network.threshold_for({**usual, "heun": True})[0] == 1.0
    assert network.threshold_for({**usual, "heun": False, "exact_inversion": False})[0] == 2.0
    network.set_threshold(3.0, {**usual, "exact_inversion": True}, beside=True)
    assert [threshold for threshold, _ in network.thresholds] == [1.0, 2.0, 3.0]


def test_more_thresholds_than_weights_can_keep_are_refused():
    network, long = container(), {f"a setting of some length {n}": n for n in range(15)}
    network.set_threshold(1.0, FITTED_WITH)
    with pytest.raises(ValueError, match="2 thresholds are more than weights can keep"):
        network.set_threshold(2.0, long, beside=True)
    assert network.thresholds == [(1.0, FITTED_WITH)]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("wrap", [nn.Identity(), nn.Sequential()], ids=["bare", "wrapped"])
def test_weights_of_old_versions_do_not_say_what_their_threshold_was_fitted_with(wrap, strict):
    old, network = container(), container()
    network.set_threshold(12.5, FITTED_WITH)
    del old.threshold_settings
    theirs, ours = (nn.Sequential(each) if isinstance(wrap, nn.Sequential) else each for each in (old, network))
    ours.load_state_dict(theirs.state_dict(), strict=strict)
    assert [settings for _, settings in network.thresholds] == [{}]


def test_the_threshold_is_not_trained():
    assert "threshold" not in dict(container().named_parameters())


def test_the_weights_are_tensors_only(tmp_path):
    torch.save(container().state_dict(), tmp_path / "model.pt")
    assert torch.equal(read_weights(tmp_path / "model.pt")["organ.weight"], container().organ.weight)


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_another_bundle_are_refused(strict):
    other = NetworkParts("classifier", classifier=nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="these are not weights of this NetworkParts"):
        container().load_state_dict(other.state_dict(), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_weights_that_are_no_numbers_are_refused(strict):
    weights = container().state_dict()
    weights["organ.bias"] = torch.full((3,), float("nan"))
    with pytest.raises(RuntimeError, match=r"organ.bias holds NaN"):
        container().load_state_dict(weights, strict=strict)


def test_weights_without_a_threshold_are_refused():
    weights = container().state_dict()
    del weights["threshold"]
    with pytest.raises(RuntimeError, match=r"1 expected keys are missing \['threshold'\]"):
        container().load_state_dict(weights, strict=False)


@pytest.mark.parametrize("wrap", [nn.DataParallel, nn.Sequential], ids=lambda wrap: wrap.__name__)
def test_weights_of_another_bundle_are_refused_within_a_wrapper(wrap):
    other = wrap(NetworkParts("classifier", classifier=nn.Linear(3, 3)))
    with pytest.raises(RuntimeError, match="these are not weights of this NetworkParts"):
        wrap(container()).load_state_dict(other.state_dict(), strict=False)


def test_torchscript_is_made_of_the_main_part_alone():
    network, image = NetworkParts("organ", organ=nn.Linear(3, 3), diffusion=TakesAny()), torch.rand(4, 3)
    assert torch.equal(torch.jit.script(network)(image), network(image))


def test_a_container_with_another_part_runs_that_part():
    image = torch.rand(4, 3)
    assert torch.equal(with_part(container(), "diffusion", Doubles())(image), 2 * image)


def test_putting_a_part_in_leaves_the_given_container_as_it_is():
    network = container()
    parts = dict(network.named_children())
    with_part(network, "organ", nn.Linear(5, 5))
    assert dict(network.named_children()) == parts


def test_the_other_parts_are_shared_not_copied():
    network = container()
    assert with_part(network, "diffusion", nn.Identity()).organ is network.organ


def test_the_threshold_is_shared():
    network = container()
    other = with_part(network, "diffusion", nn.Identity())
    network.set_threshold(7.0, FITTED_WITH)
    assert other.thresholds == [(7, FITTED_WITH)]


def test_a_container_with_another_part_refuses_other_weights_too():
    with pytest.raises(RuntimeError, match="these are not weights"):
        with_part(container(), "organ", nn.Identity()).load_state_dict(container().state_dict(), strict=False)
