from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from skimage.filters import threshold_otsu
from torch import nn
from translated import BrightIsDiseased, taken, translating

from common.inferers.condition import ConditionDifferenceTranslator, ScaledDifference
from common.inferers.grid import Grid
from common.inferers.translation import TranslationInferer
from common.inferers.variants import one_at_a_time
from common.networks.parts import NetworkParts
from common.schedulers import NoiseSchedule

SCHEDULE = NoiseSchedule(100)
OPTIONS = {
    "schedule": SCHEDULE,
    "noise_level": 40,
    "threshold": 0.5,
    "num_channels": 1,
    "normalize": "none",
    "margin": 0,
}
LESION = (slice(10, 14), slice(10, 14))


class LesionWhereDiseased(nn.Module):
    """The exact noise predictor for pixels of deviation 0.1 around 0.5, of a lesion in diseased images around 0.9."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x_t, timesteps, class_labels):
        self.batches.append(x_t.shape)
        mean = torch.full_like(x_t, 0.5)
        mean[(..., *LESION)] += 0.4 * class_labels[:, 1, None, None, None]
        alpha_bar = SCHEDULE.alphas_cumprod[timesteps].view(-1, 1, 1, 1).to(x_t)
        return (1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * mean) / (alpha_bar * 0.01 + 1 - alpha_bar)


@pytest.fixture
def network():
    return NetworkParts("diffusion", diffusion=LesionWhereDiseased(), classifier=BrightIsDiseased()).eval()


@pytest.fixture
def image():
    """Two slices with the lesion, in the middle of a head that fills the patch."""
    volume = 0.5 + 0.1 * torch.randn(1, 1, 24, 24, 2, generator=torch.Generator().manual_seed(0))
    volume[0, 0][LESION] += 0.4
    return MetaTensor(volume.clamp(min=0.01), affine=torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0])))


def inferer(**options):
    """Return an inferer; options are those of its map, its translator, its grid, or its own."""
    score = {key: options.pop(key) for key in ("map_mode", "map_range") if key in options}
    return translating(ConditionDifferenceTranslator, **{**OPTIONS, "score": ScaledDifference(**score), **options})


@pytest.mark.parametrize("guidance_scale", [0.0, 10.0])
def test_the_map_shows_where_the_condition_matters(network, image, guidance_scale):
    anomaly, changed, mask, head, probability = inferer(guidance_scale=guidance_scale)(image, network)[0]
    inside = torch.zeros(24, 24, 2, dtype=torch.bool)
    inside[LESION] = True
    assert anomaly[inside].min() > 0.7
    assert anomaly[~inside].max() < 0.4
    assert torch.equal(mask > 0, inside)
    assert (changed - image[0, 0].as_tensor())[inside].min() > 0
    assert head.all()
    assert len(probability.unique()) == 2


def test_both_conditions_go_through_the_network_in_one_batch(network, image):
    inferer(num_difference_steps=3)(image, network)
    assert network.diffusion.batches == [(4, 1, 24, 24)] * 3


def test_a_slice_does_not_depend_on_the_others(network, image):
    whole, alone = inferer()(image, network), inferer(slice_batch_size=1)(image, network)
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-5)


def test_maps_are_scaled_in_each_slice_or_in_the_volume(network, image):
    image[..., 1] = image[..., 1] * 0.999  # another slice, another range
    each, all_ = (inferer(map_range=which)(image, network)[0, 0] for which in ("slice", "volume"))
    assert [float(x) for x in each.amax((0, 1))] == pytest.approx([1, 1])
    assert sorted(float(x) for x in all_.amax((0, 1)))[0] < 1
    assert all_.max() == pytest.approx(1)
    assert each.min() == all_.min() == 0


class NoiseWhereDiseased(nn.Module):
    """What the class changes here depends on the noise alone."""

    def forward(self, x_t, timesteps, class_labels):
        return class_labels[:, 1, None, None, None] * x_t.abs()


def test_the_mean_of_several_draws_has_less_of_the_noise(network, image):
    network.diffusion = NoiseWhereDiseased()
    image[:] = 0.5
    one, mean = (inferer(num_samples=count)(image, network)[0, 1] for count in (1, 16))
    assert mean.std() < one.std() / 3


def test_draws_and_conditions_share_batches(network, image):
    inferer(num_samples=2, num_difference_steps=1)(image, network)
    assert network.diffusion.batches == [(8, 1, 24, 24)]


def test_the_division_and_tau_do_not_change_a_scaled_map(network, image):
    maps = [inferer(divide=divide)(image, network)[0, 0] for divide in (True, False)]
    torch.testing.assert_close(*maps, rtol=0, atol=1e-4)


def test_absolute_maps_show_what_gets_darker_too(network, image):
    difference = inferer()(image, network)[0, 1] - image[0, 0].as_tensor()
    absolute = inferer(map_mode="absolute", map_range="volume")(image, network)[0, 0]
    expected = difference.abs()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    torch.testing.assert_close(absolute, expected, rtol=0, atol=1e-4)


def test_positive_maps_begin_at_0_where_the_class_makes_nothing_brighter(network, image):
    signed = inferer()(image, network)[0]
    change = (signed[1] - image[0, 0].as_tensor()).clamp(min=0)
    positive = inferer(map_mode="positive")(image, network)[0, 0]
    highest = change.amax((0, 1), keepdim=True)
    torch.testing.assert_close(positive, change / highest, rtol=0, atol=1e-4)


def test_several_settings_give_versions_from_the_same_noise(network, image):
    makes = partial(ConditionDifferenceTranslator, schedule=SCHEDULE, noise_level=40, tau=0.95)
    levels, shares = one_at_a_time(makes, {"noise_level": [40, 60], "tau": [0.9]})
    versions = [
        *levels.examine(inferer(), image[0].as_tensor(), (2.0, 2.0), network),
        *shares.examine(inferer(), image[0].as_tensor(), (2.0, 2.0), network),
    ]
    for version, options in zip(versions, [{}, {"noise_level": 60}, {"tau": 0.9}], strict=True):
        torch.testing.assert_close(version, inferer(**options)(image, network)[0], rtol=0, atol=1e-5)


def test_amp_leaves_it_in_float32(network, image):
    assert torch.equal(inferer(amp=True)(image, network), inferer()(image, network))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map_mode": "squared"}, "map_mode must be one of signed, absolute, positive, got 'squared'"),
        ({"map_range": "batch"}, "map_range must be one of slice, volume, got 'batch'"),
    ],
)
def test_unknown_maps_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        inferer(**options)


def test_guidance_does_not_need_the_classifier_that_tells_the_probability_of_disease(network, image):
    guided = {**OPTIONS, "guidance_scale": 10.0, "patch_size": (24, 24), "pixel_mm": 2.0}
    silent = TranslationInferer(
        grid=Grid(**taken(Grid, guided)),
        translator=ConditionDifferenceTranslator(**taken(ConditionDifferenceTranslator, guided)),
        score=ScaledDifference(),
        threshold=0.5,
        classifier=None,
        progress=False,
    )
    found = silent(image, network)
    assert torch.equal(found[:, :-1], inferer(guidance_scale=10.0)(image, network)[:, :-1])
    assert not found[:, -1].any()


def test_a_map_is_scaled_within_the_organ_alone():
    change = torch.tensor([-9.0, 1.0, 2.0, 3.0]).view(1, 1, 1, 4)
    assert ScaledDifference()(change, change > 0).flatten().tolist() == [0, 0, 0.5, 1]


def test_a_slice_whose_map_is_constant_has_no_mask_of_its_own(network, image):
    image[0, 0, ..., 0] = 0
    image[0, 0, ::9, ::9, 0] = 1  # so few pixels that the network's grid shows none of them
    coarse = inferer(otsu=True, pixel_mm=8.0)
    anomaly, _, mask, head, _ = coarse(image, network)[0]
    assert head[..., 0].any()
    assert anomaly[..., 0].max() == 0
    assert not mask[..., 0].any()


def test_masks_may_begin_at_the_own_threshold_of_each_slice(network, image):
    anomaly, _, mask, head, _ = inferer(otsu=True, threshold=2.0)(image, network)[0]
    for a, m, h in zip(anomaly.unbind(-1), mask.unbind(-1), head.unbind(-1), strict=True):
        assert torch.equal(m > 0, a >= threshold_otsu(a[h > 0].numpy()))
    assert mask.any()
