import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from translated import brain, brain_network, ddim, maps, translating

from common.inferers.baselines.reconstruction import Reconstruction
from common.inferers.translation import Translator, magnitude
from common.training.batches import PatchPrepareBatch
from common.transforms.grid import ToNetworkGridd
from common.transforms.intensity import ScaleToUnitd
from common.transforms.organ import AddOrgand
from common.transforms.slices import SampleSlicesd


@pytest.fixture
def network():
    return brain_network()


def copying(**options):
    return translating(Reconstruction, part="copy", **options)


def test_the_map_is_the_sum_of_the_changes_and_zero_outside_the_head(network):
    image = brain()
    result = maps(ddim(guidance_scale=20.0)(image, network))
    low, high = 0, image[0].as_tensor().amax((1, 2, 3))
    change = (result["translated"] - image[0].as_tensor()) / (high - low).view(-1, 1, 1, 1)
    torch.testing.assert_close(change.abs().sum(0, keepdim=True), result["anomaly"], atol=1e-5, rtol=0)
    head = result["organ"] > 0
    assert head.sum() == 16 * 16 * 3
    assert (result["anomaly"][~head] == 0).all()
    assert (result["anomaly"][head] > 0).all()
    assert torch.equal(result["mask"] > 0, (result["anomaly"] >= 0.1) & head)


def test_the_probability_of_disease_is_told_for_each_slice(network):
    image = brain(num_slices=2, scale=1.0)
    image[..., 1] = 1.0
    found = maps(ddim(normalize="none")(image, network))["probability"]
    assert found[..., 0].max() < 0.01
    assert found[..., 1].max() > 0.99


def test_only_slices_of_the_range_are_translated(network):
    result = maps(ddim(guidance_scale=20.0, slice_range=(1, 1))(brain(), network))
    assert [(result[name][..., k] != 0).any().item() for name in ("anomaly", "organ") for k in range(3)] == [
        False,
        True,
        False,
    ] * 2


def test_a_drawn_organ_is_searched_and_its_surroundings_may_be_removed(network):
    image = brain()
    organ = torch.zeros(1, 1, 32, 32, 3)
    organ[..., 10:20, 12:20, :] = 1
    given = MetaTensor(torch.cat([image.as_tensor(), organ], 1), affine=image.affine)
    seen = []
    hook = network.copy.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for only_organ in (False, True):
        inferer = copying(only_organ=only_organ)
        result = maps(inferer(given, network))
        assert torch.equal(result["organ"], organ[0])
        assert result["anomaly"].max() == 0
    hook.remove()
    assert (seen[0] > 0).sum() > (seen[1] > 0).sum() == 2 * 3 * 80


def test_the_whole_image_can_be_searched(network):
    result = maps(ddim(organ="image", patch_size=(36, 36))(brain(), network))
    assert result["organ"].all()


@pytest.mark.parametrize("shape", [(39, 32), (16, 20), (24, 24)])
def test_without_a_pixel_size_a_film_is_one_patch_and_the_map_lies_on_its_own_grid(network, shape):
    film = MetaTensor(255 * torch.rand(1, 2, *shape), affine=torch.eye(4, dtype=torch.float64))
    seen = []
    hook = network.copy.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    options = {"pixel_mm": None, "organ": "image", "normalize": "range"}
    result = maps(copying(**options)(film, network))
    hook.remove()
    (patches,) = seen
    assert patches.shape == (1, 2, 24, 24)
    shown = (patches[0, 0] > 0).nonzero()
    assert (shown.amax(0) - shown.amin(0) + 1).max() == 24
    assert result["organ"].all()
    assert torch.equal(result["translated"], film[0].as_tensor())


def test_what_a_film_is_trained_on_is_what_the_network_is_asked(network):
    film = MetaTensor(255 * torch.rand(1, 39, 32), affine=torch.eye(4, dtype=torch.float64))
    seen = []
    hook = network.copy.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    options = {"pixel_mm": None, "organ": "image", "normalize": "range", "num_channels": 1}
    copying(**options, classifier=None)(film[None], network)
    hook.remove()
    preparing = Compose(
        [
            AddOrgand(everywhere=True),
            ScaleToUnitd("image", "range"),
            ToNetworkGridd(None, patch_size=(24, 24)),
            SampleSlicesd(1, (32, 32), background=0.0),
        ]
    )
    batch = {key: value[None] for key, value in preparing({"image": film})[0].items()}
    patch, _ = PatchPrepareBatch((24, 24), background=0.0)(batch)
    torch.testing.assert_close(seen[0], patch)


def test_another_word_for_the_organ_and_other_channels_are_refused(network):
    with pytest.raises(ValueError, match="organ must be one of foreground, network, image, got 'head'"):
        ddim(organ="head")
    with pytest.raises(ValueError, match="expected an image of 4 channels, perhaps an organ mask; got 2 channels"):
        ddim(num_channels=4)(brain(), network)
    with pytest.raises(ValueError, match="no organ to search in"):
        ddim()(0 * brain(), network)


def test_a_slice_is_translated_like_the_same_slice_of_a_volume(network):
    volume = brain(num_slices=1)
    flat = MetaTensor(volume[..., 0].as_tensor(), affine=volume.affine)
    inferer = ddim(guidance_scale=5.0)
    torch.testing.assert_close(inferer(flat, network), inferer(volume, network)[..., 0])


def test_detail_that_the_networks_grid_cannot_show_stays_in_the_image(network):
    image = brain(size=64, pixel_mm=1.0)
    inferer = copying()
    result = maps(inferer(image, network))
    assert torch.equal(result["translated"], image[0].as_tensor())


def test_the_mask_can_be_a_share_of_the_highest_value_in_the_slice(network):
    result = maps(ddim(guidance_scale=20.0, relative_threshold=0.5)(brain(), network))
    highest = result["anomaly"].amax((0, 1, 2))
    assert len(highest.unique()) > 1
    assert torch.equal(result["mask"] > 0, (result["anomaly"] >= 0.5 * highest) & (result["organ"] > 0))


FITTED_WITH = {
    "num_inference_steps": 20,
    "noise_level": 50,
    "guidance_scale": 5.0,
    "num_samples": 1,
    "median_radius": 0,
}


def test_a_run_with_other_settings_than_the_thresholds_says_so(network, caplog):
    network.set_threshold(0.1, {**FITTED_WITH, "num_inference_steps": 100, "guidance_scale": 30.0})
    ddim(guidance_scale=5.0)(brain(), network)
    assert [record.message for record in caplog.records] == [
        "the threshold was fitted with num_inference_steps 100 and guidance_scale 30.0; this run has "
        "num_inference_steps 20 and guidance_scale 5.0: the mask may be too small or too large."
    ]


def test_of_several_thresholds_that_of_the_settings_is_taken_and_nothing_is_said(network, caplog):
    network.set_threshold(0.1, {**FITTED_WITH, "num_inference_steps": 100})
    network.set_threshold(0.3, FITTED_WITH, beside=True)
    inferer = ddim(guidance_scale=5.0)
    result = maps(inferer(brain(), network))
    assert inferer.mask_threshold(network) == 0.3
    assert torch.equal(result["mask"] > 0, (result["anomaly"] >= 0.3) & (result["organ"] > 0))
    assert not caplog.records


@pytest.mark.parametrize("fitted_with", [FITTED_WITH, {}], ids=["the same", "not told"])
def test_a_run_with_the_settings_of_the_threshold_says_nothing_of_it(network, caplog, fitted_with):
    network.set_threshold(0.1, fitted_with)
    ddim(guidance_scale=5.0)(brain(), network)
    assert not caplog.records


@pytest.mark.parametrize("own", [{"otsu": True}, {"relative_threshold": 0.5}], ids=["otsu", "relative"])
def test_where_each_slice_has_its_own_threshold_nothing_is_said_of_the_weights(network, caplog, own):
    network.set_threshold(0.1, {"noise_level": 300})
    inferer = ddim(**own)
    inferer(brain(), network)
    assert not caplog.records
    assert not inferer.threshold_warning(network)


@pytest.mark.parametrize("odd", [{"heun": True}, {"clip_mode": "authors"}, {"encode_class": 1}], ids=str)
def test_a_run_in_another_way_than_the_thresholds_says_so(network, odd):
    network.set_threshold(0.1, FITTED_WITH)
    ((name, value),) = odd.items()
    warning = ddim(guidance_scale=5.0, **odd).threshold_warning(network)
    assert f"fitted with no {name}; this run has {name} {value}:" in warning


def test_what_another_method_does_not_have_is_said(network):
    network.set_threshold(0.1, {"noise_level": 300})
    assert "this run has no noise_level" in copying().threshold_warning(network)


def test_a_slice_that_does_not_change_has_no_mask_at_any_share(network):
    inferer = copying(relative_threshold=0.5)
    assert not maps(inferer(brain(), network))["mask"].any()


def test_the_right_hand_part_of_an_organ_is_searched_alone(network):
    image = brain()
    found = maps(ddim(right_share=0.25)(image, network))["organ"] > 0
    whole = maps(ddim()(image, network))["organ"] > 0
    assert whole.any((0, 2, 3)).nonzero().flatten().tolist() == list(range(8, 24))
    assert found.any((0, 2, 3)).nonzero().flatten().tolist() == list(range(20, 24))
    assert torch.equal(found[:, 20:], whole[:, 20:])


def test_a_translator_is_told_a_target_only_where_one_is_asked_for(network):
    asked = []

    class Watching(Translator):
        def __call__(self, batch, network, generators, progress):
            asked.append(batch.target)
            return batch.image

    image = brain(num_slices=1)
    target = torch.zeros(1, 1, 32, 32, 1)
    target[..., 12:16, 12:16, :] = 7
    given = MetaTensor(torch.cat([image.as_tensor(), target], 1), affine=image.affine)
    translating(Watching, with_target=True)(given, network)
    translating(Watching)(image, network)
    assert asked[0].sum() == 4 * 4
    assert asked[1] is None


def test_a_change_is_the_larger_the_more_channels_change_whichever_way():
    change = torch.tensor([[0.5, -0.25], [0.0, 1.0]]).view(2, 2, 1, 1)
    assert magnitude(change, change > 0).flatten().tolist() == [0.75, 1.0]
