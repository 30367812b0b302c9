import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from common.inferers.noisy import NoisyInferer
from common.losses.hybrid_vlb import HybridVLBLoss
from common.losses.reconstruction import HoleLoss
from common.networks.vqgan import VQGAN
from common.schedulers import NoiseSchedule
from common.training.batches import (
    CoarseNoisePrepareBatch,
    HolePrepareBatch,
    LatentPrepareBatch,
    NoisyPrepareBatch,
    PatchPrepareBatch,
    RecycledPrepareBatch,
    TranslationPrepareBatch,
)
from common.transforms.slices import UNKNOWN


def organ_at(x, y, extent=(6, 4), size=(24, 20)):
    """Return the mask of an organ, shape (1, X, Y)."""
    organ = torch.zeros(1, *size)
    organ[:, x : x + extent[0], y : y + extent[1]] = 1
    return organ


def batch_of(*organs):
    """Return slices that are 1 in the organ and -1 around it."""
    organ = torch.stack(organs)
    return {"image": 2 * organ - 1, "organ": organ}


class BrightIsOrgan(nn.Module):
    """A segmenter with everything that must not change when it is only asked: dropout, running statistics, weights."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm2d(1), nn.Dropout(0.9)
        self.seen = []

    def forward(self, image):
        self.seen.append(len(image))
        return self.dropout(self.norm(image))


@given(st.integers(0, 18), st.integers(0, 16))
def test_the_organ_is_in_the_middle_of_its_patch(x, y):
    patch, _ = PatchPrepareBatch((10, 8))(batch_of(organ_at(x, y)))
    assert torch.equal(patch[0], 2 * organ_at(2, 2, size=(10, 8)) - 1)


def test_input_and_target_are_the_same_patch():
    image, target = PatchPrepareBatch((10, 8))(batch_of(organ_at(3, 5), organ_at(9, 1)))
    assert image.shape == (2, 1, 10, 8)
    assert torch.equal(image, target)


def test_an_organ_larger_than_the_patch_is_cut_on_all_sides():
    patch, _ = PatchPrepareBatch((4, 2))(batch_of(organ_at(3, 5)))
    assert (patch == 1).all()


def test_beyond_the_image_a_patch_is_as_dark_as_air():
    batch = {"image": torch.zeros(1, 1, 4, 4), "organ": torch.ones(1, 1, 4, 4)}
    patch, _ = PatchPrepareBatch((8, 8))(batch)
    assert (patch[..., 2:6, 2:6] == 0).all()
    assert (patch == -1).sum() == 64 - 16


def test_a_slice_without_organ_is_cut_in_its_middle():
    batch = {"image": organ_at(9, 8)[None], "organ": torch.zeros(1, 1, 24, 20)}
    patch, _ = PatchPrepareBatch((10, 8))(batch)
    assert torch.equal(patch[0], organ_at(2, 2, size=(10, 8)))


def test_a_slice_in_which_the_network_finds_nothing_is_cut_in_its_middle():
    batch = {"image": organ_at(9, 8)[None] - 1, "organ": torch.full((1, 1, 24, 20), UNKNOWN)}
    patch, _ = PatchPrepareBatch((10, 8), BrightIsOrgan())(batch)
    assert torch.equal(patch[0], organ_at(2, 2, size=(10, 8)) - 1)


def test_where_nobody_has_drawn_the_organ_the_network_finds_it():
    batch = batch_of(organ_at(3, 5), organ_at(15, 2), organ_at(1, 14))
    expected, _ = PatchPrepareBatch((10, 8))(batch)
    batch["organ"][1] = UNKNOWN
    patches, _ = PatchPrepareBatch((10, 8), BrightIsOrgan())(batch)
    assert torch.equal(patches, expected)


def test_the_network_sees_only_slices_without_a_mask():
    network, batch = BrightIsOrgan(), batch_of(organ_at(3, 5), organ_at(15, 2), organ_at(1, 14))
    batch["organ"][1] = UNKNOWN
    PatchPrepareBatch((10, 8), network)(batch)
    assert network.seen == [1]


def test_asking_the_network_leaves_it_as_it_is():
    network = BrightIsOrgan().train()
    batch = {**batch_of(organ_at(3, 5)), "organ": torch.full((1, 1, 24, 20), UNKNOWN)}
    patches, _ = PatchPrepareBatch((10, 8), network)(batch)
    assert network.training
    assert network.norm.num_batches_tracked == 0
    assert not patches.requires_grad


def test_the_masks_of_a_batch_are_not_overwritten():
    batch = batch_of(organ_at(3, 5), organ_at(15, 2))
    batch["organ"][1] = UNKNOWN
    PatchPrepareBatch((10, 8), BrightIsOrgan())(batch)
    assert (batch["organ"][1] == UNKNOWN).all()


def test_without_a_network_a_slice_without_mask_is_refused():
    with pytest.raises(ValueError, match="expected an organ mask for each case"):
        PatchPrepareBatch((10, 8))({"image": torch.zeros(1, 1, 24, 20), "organ": torch.full((1, 1, 24, 20), UNKNOWN)})


def test_jitter_shifts_the_patch_by_as_much_in_both_directions():
    torch.manual_seed(0)
    patches, _ = PatchPrepareBatch((16, 12), jitter=2)(batch_of(*[organ_at(9, 8)] * 200))
    places = (patches[:, 0] == 1).nonzero()
    first = {axis: {int(places[places[:, 0] == i, axis].min()) for i in range(200)} for axis in (1, 2)}
    assert first == {1: {3, 4, 5, 6, 7}, 2: {2, 3, 4, 5, 6}}


def test_without_jitter_nothing_is_drawn():
    before = torch.get_rng_state()
    PatchPrepareBatch((10, 8))(batch_of(organ_at(3, 5)))
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_standard_normal_and_every_timestep_is_drawn():
    torch.manual_seed(0)
    prepare = NoisyPrepareBatch(4, patch_size=(10, 8))
    _, target, _, _ = prepare(batch_of(*[organ_at(3, 5)] * 100))
    assert target["noise"].std().item() == pytest.approx(1, abs=0.05)
    assert target["noise"].mean().item() == pytest.approx(0, abs=0.05)
    assert set(target["timesteps"].tolist()) == {0, 1, 2, 3}


def test_the_loss_sees_the_noise_that_the_network_sees():
    image, target, args, kwargs = NoisyPrepareBatch(1000, patch_size=(10, 8))(batch_of(organ_at(3, 5)))
    assert torch.equal(target["image"], image)
    assert args == ()
    assert {name: target[name] is drawn for name, drawn in kwargs.items()} == {"noise": True, "timesteps": True}


def test_two_batches_differ_and_a_seed_repeats_them():
    prepare = NoisyPrepareBatch(1000, patch_size=(10, 8))
    noises = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        noises.append(prepare(batch_of(organ_at(3, 5)))[1]["noise"])
    assert torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[0], noises[2])


def test_fixed_draws_are_the_same_in_every_epoch_and_disturb_no_others():
    prepare = NoisyPrepareBatch(1000, patch_size=(10, 8), fixed=True)
    torch.manual_seed(1)
    first = prepare(batch_of(organ_at(3, 5), organ_at(4, 4)))[1]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = prepare(batch_of(organ_at(3, 5), organ_at(4, 4)))[1]
    assert torch.equal(first["noise"], second["noise"])
    assert torch.equal(first["timesteps"], second["timesteps"])
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(1, 12), st.sampled_from([1, 4, 1000]))
def test_fixed_timesteps_are_spread_over_the_schedule(count, num_train_timesteps):
    prepare = NoisyPrepareBatch(num_train_timesteps, patch_size=(2, 2), fixed=True)
    timesteps = prepare(batch_of(*[organ_at(3, 5)] * count))[1]["timesteps"]
    assert timesteps.dtype == torch.int64
    assert timesteps.min() >= 0
    assert timesteps.max() < num_train_timesteps
    assert timesteps.double().mean().item() == pytest.approx((num_train_timesteps - 1) / 2, abs=0.5)


@pytest.mark.parametrize("out_channels", [1, 2])
def test_a_batch_fits_the_inferer_and_the_loss(out_channels):
    network = DiffusionModelUNet(2, 1, out_channels, 1, (4,), (False,), norm_num_groups=2, num_head_channels=4)
    schedule = NoiseSchedule(100)
    inputs, target, args, kwargs = NoisyPrepareBatch(100, patch_size=(8, 8))(batch_of(organ_at(3, 5), organ_at(9, 9)))
    HybridVLBLoss(schedule)(DiffusionInferer(schedule)(inputs, network, *args, **kwargs), target).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("fixed", [False, True])
def test_of_few_timesteps_no_others_are_drawn(fixed):
    prepare = NoisyPrepareBatch(1000, timesteps=[3, 500, 999], fixed=fixed, patch_size=(10, 8))
    timesteps = prepare(batch_of(*[organ_at(3, 5)] * 60))[1]["timesteps"]
    assert set(timesteps.tolist()) == {3, 500, 999}


MEAN, STD = 0.5, 0.05


class OfGaussianPixels(nn.Module):
    """The exact noise predictor of independent Gaussian pixels, that also counts its calls while it is trained."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.in_training, self.scale = schedule, 0, nn.Parameter(torch.ones(()))

    def forward(self, x_t, timesteps):
        self.in_training += self.training
        alpha = self.schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1).to(x_t)
        error = x_t - alpha.sqrt() * MEAN
        return self.scale * (1 - alpha).sqrt() * error / (alpha * STD**2 + 1 - alpha)


def test_a_recycled_mask_is_what_the_network_expects_of_a_later_timestep():
    torch.manual_seed(0)
    schedule = NoiseSchedule(1000)
    network = OfGaussianPixels(schedule)
    options = {"num_train_timesteps": 1000, "timesteps": [40, 160], "patch_size": (24, 20)}
    prepare = RecycledPrepareBatch(network, NoisyInferer(schedule), **options)
    batch = batch_of(*[organ_at(9, 8)] * 400)  # in the middle, so that all of the patch is image
    batch["image"] = MEAN + STD * torch.randn(400, 1, 24, 20)
    found, target, args, given = prepare(batch)

    # Of Gaussian pixels the expectation has this share of their variance, and is off by what is uncorrelated with it.
    alpha = float(schedule.alphas_cumprod[160])
    share = alpha * STD**2 / (alpha * STD**2 + 1 - alpha)
    assert float(found.var() / STD**2) == pytest.approx(share, rel=0.03)
    covariance = ((found - found.mean()) * (target["image"] - found)).mean()
    assert abs(float(covariance)) < 1e-3 * STD**2
    assert set(given["timesteps"].tolist()) == {40, 160}

    # The network is to find the noise that would have made the same of the true mask.
    seen = schedule.add_noise(found, given["noise"], given["timesteps"])
    true = schedule.add_noise(target["image"], target["noise"], given["timesteps"])
    torch.testing.assert_close(seen, true)
    assert torch.equal(target["timesteps"], given["timesteps"])
    assert args == ()
    assert network.training
    assert network.in_training == 0
    assert not found.requires_grad


def test_a_later_timestep_is_any_behind():
    prepare = RecycledPrepareBatch(nn.Identity(), None, num_train_timesteps=5, patch_size=(2, 2))
    torch.manual_seed(0)
    for timestep, behind in ((0, {1, 2, 3, 4}), (2, {3, 4}), (4, {4})):
        assert set(prepare.later_than(torch.full((200,), timestep)).tolist()) == behind


def coarse_noise(noise_size, count=1, patch_size=(16, 12), noise_std=0.4):
    """Return what is added to patches."""
    torch.manual_seed(0)
    prepare = CoarseNoisePrepareBatch(noise_size, noise_std, patch_size=patch_size)
    noisy, clean = prepare(batch_of(*[organ_at(3, 5)] * count))
    return noisy - clean


def test_a_denoiser_is_shown_the_clean_patch_as_target():
    clean, _ = PatchPrepareBatch((10, 8))(batch_of(organ_at(3, 5)))
    noisy, target = CoarseNoisePrepareBatch(patch_size=(10, 8))(batch_of(organ_at(3, 5)))
    assert torch.equal(target, clean)
    assert not torch.equal(noisy, clean)


def test_coarse_noise_has_its_standard_deviation_at_the_nodes():
    noise = coarse_noise((16, 12), count=60)
    assert noise.std().item() == pytest.approx(0.4, abs=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)


def test_noise_of_one_node_shifts_a_patch_as_a_whole_and_each_patch_by_its_own():
    shifts = coarse_noise((1, 1), count=8)
    torch.testing.assert_close(shifts, shifts[..., :1, :1].expand_as(shifts))
    assert len(shifts[:, 0, 0, 0].unique()) == 8


def test_noise_of_few_nodes_is_coarse():
    noise = coarse_noise((4, 3), count=40)
    steps = (noise[..., 1:, :] - noise[..., :-1, :]).std()
    assert steps < 0.4 * noise.std()


def labelled_batch():
    """Return a healthy slice and one whose organ of 24 pixels has a lesion of 6."""
    batch = batch_of(organ_at(3, 5), organ_at(9, 9))
    lesions = torch.stack([torch.zeros(1, 24, 20), organ_at(9, 9, (3, 2))])
    classes = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand_as(lesions)
    return {**batch, "label": 2 * lesions, "slice_class": classes}


def test_a_class_conditional_network_is_told_which_slices_are_diseased():
    _, _, _, kwargs = NoisyPrepareBatch(4, patch_size=(10, 8), with_classes=True)(labelled_batch())
    assert kwargs["class_labels"].tolist() == [0, 1]
    assert kwargs["class_labels"].dtype == torch.int64


def test_noisy_slices_can_be_learnt_to_be_classified_measured_and_segmented():
    def target_of(name):
        return NoisyPrepareBatch(4, target=name, patch_size=(10, 8))(labelled_batch())[1]

    assert target_of("class").tolist() == [0, 1]
    torch.testing.assert_close(target_of("ratio"), torch.tensor([[0.0], [0.25]]))
    assert target_of("label").flatten(1).sum(1).tolist() == [0, 6]
    assert target_of("label").shape == (2, 1, 10, 8)


def test_class_and_site_are_the_target_of_noisy_slices():
    target = torch.tensor([[0, 2], [1, 0]])
    prepare = NoisyPrepareBatch(4, target="class and site", patch_size=(10, 8), fixed=True)
    image, said, args, given = prepare({**batch_of(organ_at(3, 5), organ_at(9, 9)), "label": target})
    assert (image.shape, args, set(given)) == ((2, 1, 10, 8), (), {"noise", "timesteps"})
    assert said is target


def test_masks_can_be_learnt_under_the_condition_of_their_images():
    image, target, _, kwargs = NoisyPrepareBatch(4, conditioned=True, patch_size=(10, 8))(labelled_batch())
    seen = PatchPrepareBatch((10, 8)).patches(labelled_batch(), None, False)
    assert torch.equal(image, (seen["label"] > 0).float())
    assert torch.equal(target["image"], image)
    assert kwargs["noise"].shape == image.shape
    assert torch.equal(kwargs["condition"], seen["image"])


def test_translations_learn_from_images_and_their_classes():
    classes = torch.zeros(2, 1, 24, 20)
    classes[1] = 1
    batch = {**batch_of(organ_at(3, 5), organ_at(9, 1)), "slice_class": classes}
    image, target, args, given = TranslationPrepareBatch((10, 8), background=0.0)(batch)
    assert (image.shape, args) == ((2, 1, 10, 8), ())
    assert (image.min(), image.max()) == (-3, 1)  # twice what lies in [-1, 1] here, less one
    assert torch.equal(target["image"], image)
    assert target["class"].tolist() == given["classes"].tolist() == [0, 1]


def test_another_target_is_refused():
    with pytest.raises(ValueError, match="target must be one of noise, class, ratio, label, class and site, got 'age'"):
        NoisyPrepareBatch(4, target="age", patch_size=(10, 8))


def test_beyond_a_slice_only_its_image_is_background():
    batch = {**labelled_batch(), "image": torch.ones(2, 1, 24, 20)}
    patches = PatchPrepareBatch((40, 40), background=-0.5).patches(batch, None, False)
    assert (patches["image"][:, :, 0] == -0.5).all()
    assert (patches["slice_class"][:, :, 0] == 0).all()


def test_the_surroundings_of_the_organ_can_be_removed():
    batch = {**batch_of(organ_at(3, 5), organ_at(9, 1)), "image": torch.full((2, 1, 24, 20), 0.5)}
    patches = PatchPrepareBatch((10, 8), background=0.0, only_organ=True).patches(batch, None, False)
    assert torch.equal(patches["image"], 0.5 * patches["organ"])
    assert patches["organ"].sum() == 48


def test_of_an_organ_that_the_network_finds_the_right_part_is_taken_and_masks_are_left_alone():
    drawn = batch_of(organ_at(3, 5))
    unknown = {"image": drawn["image"], "organ": torch.full_like(drawn["organ"], UNKNOWN)}
    prepare = PatchPrepareBatch((10, 8), organ_network=BrightIsOrgan().eval(), right_share=0.5)
    assert prepare.patches(drawn, None, False)["organ"].sum() == 24
    assert prepare.patches(unknown, None, False)["organ"].sum() == 12
    assert torch.equal(prepare.find_organ(drawn["image"])[0], organ_at(6, 5, (3, 4)))


def latent_batch():
    torch.manual_seed(0)
    label = torch.zeros(4, 1, 8, 8, 8)
    label[:, :, 2:5, 2:5, 2:5] = 1
    return {"image": torch.rand(4, 1, 8, 8, 8) * 2 - 1, "label": label}


def autoencoder():
    torch.manual_seed(0)
    made = VQGAN(3, (4, 8), ((2, 2, 2),), embedding_dim=3, num_embeddings=16, norm_num_groups=4)
    made(torch.rand(1, 1, 8, 8, 8))
    return made


def test_latent_images_are_noised_and_told_where_tumours_are():
    made, batch = autoencoder(), latent_batch()
    latent, target, _, given = LatentPrepareBatch(made, 4)(batch)
    assert latent.shape == target["noise"].shape == (4, 3, 4, 4, 4)
    assert torch.equal(given["condition"], made.eval().condition(batch["image"], batch["label"]))
    assert given["timesteps"].max() < 4


def test_the_autoencoder_is_left_as_it_is():
    made = autoencoder().train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    latent, *_ = LatentPrepareBatch(made, 4)(latent_batch())
    assert made.training
    assert not latent.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_latent_noise_for_validation_is_fixed_and_timesteps_are_spread():
    prepare = LatentPrepareBatch(autoencoder(), 4, fixed=True)
    first, second = (prepare(latent_batch())[3] for _ in range(2))
    assert torch.equal(first["noise"], second["noise"])
    assert first["timesteps"].tolist() == [0, 1, 2, 3]


def test_what_was_in_random_holes_is_the_target():
    batch = batch_of(organ_at(3, 5), organ_at(9, 9))
    prepare = HolePrepareBatch(max_holes=2, half_axes=(1.0, 2.0), patch_size=(10, 8), fixed=True)
    (shown, target), (again, _) = prepare(batch), prepare(batch)
    torch.testing.assert_close(shown, again, rtol=0, atol=0)
    hole, organ = shown[:, 1:2] > 0, shown[:, 2:] > 0
    assert hole.flatten(1).any(1).all()
    assert not (hole & ~organ).any()
    torch.testing.assert_close(target[:, 1:] > 0, hole)
    torch.testing.assert_close(target[:, :1][~hole], shown[:, :1][~hole])
    assert (HoleLoss()(target[:, :1], target), HoleLoss()(target[:, :1] + 2, target)) == (0, 4)
    assert HoleLoss()(target[:, :1] + 2 * ~hole, target) == 0
