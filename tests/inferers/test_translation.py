from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import nn
from tqdm import tqdm

from common.inferers.comparisons import ReconstructionTranslationInferer
from common.inferers.translation import DdimTranslationInferer, NoiseTranslationInferer
from common.networks.parts import NetworkParts
from common.samplers.guidance import classifier_guidance, segmentation_guidance
from common.schedulers import NoiseSchedule
from common.training.batches import PatchPrepareBatch
from common.transforms.grid import ResampleInPlaned
from common.transforms.intensity import ScaleToUnitd
from common.transforms.organ import AddOrgand
from common.transforms.slices import SampleSlicesd

SCHEDULE = NoiseSchedule(100, num_inference_steps=20, spacing="trailing")


class GaussianNoise(nn.Module):
    """The exact noise predictor for pixels of mean 0.5 and standard deviation 0.3; it remembers its classes."""

    def __init__(self):
        super().__init__()
        self.classes, self.calls = [], 0

    def forward(self, x_t, timesteps, class_labels=None):
        self.calls += 1
        self.classes.append(None if class_labels is None else int(class_labels[0]))
        alpha_bar = NoiseSchedule(100).alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        variance = alpha_bar * 0.09 + 1 - alpha_bar
        return ((1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * 0.5) / variance).to(x_t)


class BrightIsDiseased(nn.Module):
    """Calls images diseased whose mean is above one half."""

    def forward(self, x_t, timesteps):
        brightness = 40 * (x_t.flatten(1).mean(1, keepdim=True) - 0.5)
        return torch.cat([-brightness, brightness], 1)


class Segmenter(nn.Module):
    def forward(self, x_t, timesteps):
        return 10 * (x_t[:, :1] - 0.5)


@pytest.fixture
def network():
    parts = {"diffusion": GaussianNoise(), "classifier": BrightIsDiseased(), "segmenter": Segmenter()}
    return NetworkParts("diffusion", **parts, copy=nn.Identity()).eval()


def brain(size=32, num_slices=3, channels=2, scale=200.0, pixel_mm=2.0):
    """Return a head in the middle of black air, its voxels between a third and all of ``scale``."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.zeros(channels, size, size, num_slices)
    inside = (slice(None), *(slice(size // 4, 3 * size // 4),) * 2)
    shape = volume[inside].shape
    volume[inside] = scale * (1 + 2 * torch.rand(shape, generator=generator)) / 3
    affine = torch.diag(torch.tensor([pixel_mm, pixel_mm, 5.0, 1.0], dtype=torch.float64))
    return MetaTensor(volume[None], affine=affine)


OPTIONS = {
    "pixel_mm": 2.0,
    "patch_size": (24, 24),
    "num_channels": 2,
    "threshold": 0.1,
    "progress": False,
    "percentile": 100.0,
}


def ddim(**options):
    defaults = {
        "schedule": SCHEDULE,
        "noise_level": 50,
        "guidance": {"classifier": partial(classifier_guidance, target=0)},
        "guidance_scale": 0.0,
    }
    return DdimTranslationInferer(**{**OPTIONS, **defaults, **options})


def channels(result, count=2):
    names = ("anomaly", "translated", "mask", "organ", "probability")
    return dict(zip(names, result[0].split([1, count, 1, 1, 1]), strict=True))


def test_without_guidance_an_image_comes_back_in_its_own_intensities(network):
    image = brain()
    few, all_steps = (channels(ddim(schedule=s)(image, network)) for s in (SCHEDULE, NoiseSchedule(100)))
    assert few["anomaly"].shape == (1, 32, 32, 3)
    assert all_steps["anomaly"].max() < 0.3 * few["anomaly"].max() < 0.15
    torch.testing.assert_close(all_steps["translated"], image[0].as_tensor(), atol=10, rtol=0)


def test_the_map_is_the_sum_of_the_changes_and_zero_outside_the_head(network):
    image = brain()
    result = channels(ddim(guidance_scale=20.0)(image, network))
    low, high = 0, image[0].as_tensor().amax((1, 2, 3))
    change = (result["translated"] - image[0].as_tensor()) / (high - low).view(-1, 1, 1, 1)
    torch.testing.assert_close(change.abs().sum(0, keepdim=True), result["anomaly"], atol=1e-5, rtol=0)
    head = result["organ"] > 0
    assert head.sum() == 16 * 16 * 3
    assert (result["anomaly"][~head] == 0).all()
    assert (result["anomaly"][head] > 0).all()
    assert torch.equal(result["mask"] > 0, (result["anomaly"] >= 0.1) & head)


def test_guidance_leads_towards_the_class(network):
    image = brain(scale=1.0)
    image[image > 0] += 1
    darker = channels(ddim(guidance_scale=20.0, normalize=[0.0, 2.0])(image, network))["translated"]
    brighter = {"classifier": partial(classifier_guidance, target=1)}
    other = channels(ddim(guidance_scale=20.0, normalize=[0.0, 2.0], guidance=brighter)(image, network))["translated"]
    head = image[0].as_tensor() > 0
    assert darker[head].mean() < image[0].as_tensor()[head].mean() < other[head].mean()


def test_several_levels_and_scales_share_one_encoding_and_equal_single_runs(network):
    image, diffusion = brain(num_slices=1), network.diffusion
    inferer = ddim(noise_level=[25, 50], guidance_scale=[0.0, 10.0])
    diffusion.calls = 0
    volume = image[0].as_tensor()
    versions = inferer.examine_versions(volume, (2.0, 2.0), network)
    assert diffusion.calls == 10 + 2 * (5 + 10)
    for version, (level, scale) in zip(versions, [(25, 0.0), (25, 10.0), (50, 0.0), (50, 10.0)], strict=True):
        single = ddim(noise_level=level, guidance_scale=scale)(image, network)[0]
        torch.testing.assert_close(version, single)


def test_several_tasks_share_one_encoding_and_equal_single_runs(network):
    image, diffusion = brain(num_slices=1), network.diffusion
    tasks = [{"classifier": partial(classifier_guidance, target=target)} for target in (0, 1)]
    diffusion.calls = 0
    versions = ddim(guidance=tasks, guidance_scale=10.0).examine_versions(image[0].as_tensor(), (2.0, 2.0), network)
    assert diffusion.calls == 10 + 2 * 10
    for version, task in zip(versions, tasks, strict=True):
        torch.testing.assert_close(version, ddim(guidance=task, guidance_scale=10.0)(image, network)[0])


def test_the_progress_bar_ends_at_its_total(network, monkeypatch):
    bars = []

    class Bar(tqdm):
        def close(self):
            bars.append((self.n, self.total))
            super().close()

    monkeypatch.setattr("common.inferers.translation.tqdm", Bar)
    ddim(noise_level=[25, 50], guidance_scale=[0.0, 10.0], progress=True, slice_batch_size=2)(brain(), network)
    assert bars[0] == (80, 80)


def test_the_classes_of_both_ways_are_told(network):
    network.diffusion.classes = []
    ddim(encode_class=1, decode_class=0)(brain(num_slices=1), network)
    assert network.diffusion.classes == [1] * 10 + [0] * 10
    network.diffusion.classes = []
    ddim(encode_class=None, decode_class=None)(brain(num_slices=1), network)
    assert set(network.diffusion.classes) == {None}


def test_the_probability_of_disease_is_told_for_each_slice(network):
    image = brain(num_slices=2, scale=1.0)
    image[..., 1] = 1.0
    found = channels(ddim(normalize="none")(image, network))["probability"]
    assert found[..., 0].max() < 0.01
    assert found[..., 1].max() > 0.99


def test_only_slices_of_the_range_are_translated(network):
    result = channels(ddim(guidance_scale=20.0, slice_range=(1, 1))(brain(), network))
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
        inferer = ReconstructionTranslationInferer("copy", **OPTIONS, only_organ=only_organ)
        result = channels(inferer(given, network))
        assert torch.equal(result["organ"], organ[0])
        assert result["anomaly"].max() == 0
    hook.remove()
    assert (seen[0] > 0).sum() > (seen[1] > 0).sum() == 2 * 3 * 80


def test_the_whole_image_can_be_searched(network):
    result = channels(ddim(organ="image", patch_size=(36, 36))(brain(), network))
    assert result["organ"].all()


@pytest.mark.parametrize("shape", [(39, 32), (16, 20), (24, 24)])
def test_without_a_pixel_size_a_film_is_one_patch_and_the_map_lies_on_its_own_grid(network, shape):
    film = MetaTensor(255 * torch.rand(1, 2, *shape), affine=torch.eye(4, dtype=torch.float64))
    seen = []
    hook = network.copy.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    options = OPTIONS | {"pixel_mm": None, "organ": "image", "normalize": "range"}
    result = channels(ReconstructionTranslationInferer("copy", **options)(film, network))
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
    options = OPTIONS | {"pixel_mm": None, "organ": "image", "normalize": "range", "num_channels": 1}
    ReconstructionTranslationInferer("copy", **options, classifier=None)(film[None], network)
    hook.remove()
    preparing = Compose(
        [
            AddOrgand(everywhere=True),
            ScaleToUnitd("image", "range"),
            ResampleInPlaned(["image", "organ"], None, ["linear", "nearest"], patch_size=(24, 24)),
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
    with pytest.raises(ValueError, match="nothing to search in"):
        ddim()(0 * brain(), network)


def test_noise_levels_outside_the_schedule_are_refused(network):
    with pytest.raises(ValueError, match=r"noise_level must lie in \[1, 100\]"):
        ddim(noise_level=101)(brain(), network)


def test_what_is_wanted_guides_the_segmenter(network):
    image = brain(num_slices=1, scale=1.0)
    wanted = torch.zeros(1, 1, 32, 32, 1)
    wanted[..., 12:16, 12:16, :] = 1
    given = MetaTensor(torch.cat([image.as_tensor(), wanted], 1), affine=image.affine)
    guidance = {"segmenter": partial(segmentation_guidance, reduction="sum")}
    inferer = ddim(guidance=guidance, guidance_scale=0.5, with_wanted=True, normalize="none", classifier=None)
    result = channels(inferer(given, network))
    change = (result["translated"] - image[0].as_tensor())[0]
    inside, head = wanted[0, 0] > 0, result["organ"][0] > 0
    assert change[inside].mean() > 0.05
    assert change[head & ~inside].mean() < -0.05
    assert (result["probability"] == 0).all()


def test_a_slice_is_translated_like_the_same_slice_of_a_volume(network):
    volume = brain(num_slices=1)
    flat = MetaTensor(volume[..., 0].as_tensor(), affine=volume.affine)
    inferer = ddim(guidance_scale=5.0)
    torch.testing.assert_close(inferer(flat, network), inferer(volume, network)[..., 0])


def test_detail_that_the_networks_grid_cannot_show_stays_in_the_image(network):
    image = brain(size=64, pixel_mm=1.0)
    inferer = ReconstructionTranslationInferer("copy", **OPTIONS)
    result = channels(inferer(image, network))
    assert torch.equal(result["translated"], image[0].as_tensor())


def test_the_mask_can_be_a_share_of_the_highest_value_in_the_slice(network):
    result = channels(ddim(guidance_scale=20.0, relative_threshold=0.5)(brain(), network))
    highest = result["anomaly"].amax((0, 1, 2))
    assert len(highest.unique()) > 1
    assert torch.equal(result["mask"] > 0, (result["anomaly"] >= 0.5 * highest) & (result["organ"] > 0))


def test_a_slice_that_does_not_change_has_no_mask_at_any_share(network):
    inferer = ReconstructionTranslationInferer("copy", relative_threshold=0.5, **OPTIONS)
    assert not channels(inferer(brain(), network))["mask"].any()


def test_the_right_hand_part_of_an_organ_is_searched_alone(network):
    image = brain()
    found = channels(ddim(right_share=0.25)(image, network))["organ"] > 0
    whole = channels(ddim()(image, network))["organ"] > 0
    assert whole.any((0, 2, 3)).nonzero().flatten().tolist() == list(range(8, 24))
    assert found.any((0, 2, 3)).nonzero().flatten().tolist() == list(range(20, 24))
    assert torch.equal(found[:, 20:], whole[:, 20:])


def test_random_noise_in_place_of_the_encoding_forgets_the_image_and_depends_on_the_seed(network):
    options = {
        "schedule": SCHEDULE,
        "noise_level": 80,
        "guidance": {"classifier": partial(classifier_guidance, target=0)},
        "guidance_scale": 0.0,
    }
    image = brain()
    first, again, other = (
        channels(NoiseTranslationInferer(**OPTIONS, **options, seed=s)(image, network))["anomaly"] for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    encoded = channels(ddim(noise_level=80)(image, network))["anomaly"]
    assert first.mean() > 3 * encoded.mean()
