from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import binary_erosion, label
from torch import nn

from common.inferers.synthesis import (
    ConstantSynthesiser,
    DiffusionSynthesiser,
    HandcraftedSynthesiser,
    Synthesiser,
    SynthesisInferer,
    choose_synthesis,
    reconstruction_rows,
    synthesisers_of,
)
from common.networks.parts import NetworkParts
from common.networks.vqgan import VQGAN
from common.schedulers import NoiseSchedule
from common.transforms.tumours import TOUCHING, TumourShapes

WINDOW = (-175, 250)


class Flat(Synthesiser):
    """Says that tumours are of one value and all else as it was; takes note of what it was shown."""

    def __init__(self, value=-0.5):
        self.value, self.seen = value, []

    def __call__(self, image, tumours, around, network, generators, progress):
        self.seen.append((image.clone(), tumours.clone()))
        return torch.where(tumours > 0, self.value, image)


class Noise(nn.Module):
    """A noise predictor of a Gaussian of standard deviation 0.1 around 0, exact in each latent voxel."""

    def __init__(self, schedule, channels):
        super().__init__()
        self.schedule, self.channels = schedule, channels

    def forward(self, x, timesteps):
        x_t = x[:, -self.channels :]
        a = self.schedule.alphas_cumprod.to(x)[timesteps].view(-1, 1, 1, 1, 1)
        return (1 - a).sqrt() * x_t / (0.01 * a + 1 - a)


class Segmenter(nn.Module):
    def forward(self, image):
        return torch.where(image.abs() < 0.5, 1.0, -1.0)


def container():
    torch.manual_seed(0)
    autoencoder = VQGAN(3, (4, 8), ((2, 2, 2),), embedding_dim=3, num_embeddings=32, norm_num_groups=4)
    autoencoder.train()(torch.rand(1, 1, 8, 8, 8) * 2 - 1)
    schedule = NoiseSchedule(4, "cosine", max_beta=0.9999)
    return NetworkParts("autoencoder", autoencoder=autoencoder.eval(), diffusion=Noise(schedule, 3), organ=Segmenter())


def inferer(synthesiser=None, size="small", num_tumours=2, **settings):
    synthesiser = synthesiser or Flat()
    options = {"voxel_mm": (2.0, 2.0, 2.0), "patch_size": (16, 16, 16), "window": WINDOW, "progress": False, **settings}
    names = ("tiny", "small", "medium", "large")
    shapes = TumourShapes(size, num_tumours)
    return SynthesisInferer(synthesisers=dict.fromkeys(names, synthesiser), shapes=shapes, **options)


def scan(shape=(40, 36, 30), voxel_mm=(2.0, 2.0, 2.0), seed=0, with_organ=True):
    generator = torch.Generator().manual_seed(seed)
    image = 40 + 15 * torch.randn(1, 1, *shape, generator=generator)
    organ = torch.zeros_like(image)
    organ[..., 3:-3, 3:-3, 2:-2] = 1
    image = torch.where(organ > 0, image, -100 + image)
    affine = np.diag([*voxel_mm, 1.0])
    channels = torch.cat([image, organ], 1) if with_organ else image
    return MetaTensor(channels, affine=torch.from_numpy(affine))


def parts(result):
    return {name: result[0, i].numpy() for i, name in enumerate(SynthesisInferer.channels)}


def test_as_many_tumours_as_asked_for_lie_in_the_organ_and_change_its_voxels():
    found = parts(inferer(Flat(-0.5))(scan(), container()))
    assert label(found["mask"], TOUCHING)[1] == 2
    assert (found["organ"][found["mask"] > 0] == 1).all()
    assert found["synthetic"][found["mask"] > 0].min() == pytest.approx(-175 + 0.25 * 425)  # -0.5 of the window
    np.testing.assert_allclose(found["change"], np.abs(found["synthetic"] - scan()[0, 0].numpy()))


@pytest.mark.parametrize("voxel_mm", [(2.0, 2.0, 2.0), (1.3, 1.1, 3.0), (0.8, 0.8, 5.0), (4.0, 4.0, 4.0)])
def test_beyond_the_blend_all_bits_are_the_images_on_any_grid(voxel_mm):
    shape = [round(n * 2 / mm) for n, mm in zip((40, 36, 30), voxel_mm, strict=True)]
    image = scan(shape, voxel_mm)
    found = parts(inferer(num_tumours=1)(image, container()))
    untouched = found["change"] == 0
    assert np.array_equal(found["synthetic"][untouched], image[0, 0].numpy()[untouched])
    assert 0.5 < untouched.mean() < 1
    assert found["change"][found["mask"] > 0].mean() > 20


def test_what_is_finer_than_the_networks_voxels_stays():
    image = scan((80, 72, 60), (1.0, 1.0, 1.0))
    found = parts(inferer(size="medium", num_tumours=1)(image, container()))
    core = binary_erosion(found["mask"] > 0, iterations=6)
    assert core.sum() > 100
    assert 0.6 < found["synthetic"][core].std() / image[0, 0].numpy()[core].std() < 1  # 2 mm hold a part of the noise


def test_an_answer_that_is_too_bright_as_a_whole_is_set_right_by_the_organ_around():
    found = []
    for error in (0.0, 0.3):
        network = container()
        network.autoencoder.decode = lambda latent, error=error: torch.full((len(latent), 1, 16, 16, 16), 0.1 + error)
        found.append(inferer(DiffusionSynthesiser(schedule=NoiseSchedule(4, "cosine")))(scan(), network))
    torch.testing.assert_close(found[1], found[0], atol=0.01, rtol=0)
    assert abs(parts(found[0])["synthetic"][parts(found[0])["mask"] > 0].mean() - 40) < 5  # what is around


def test_tumours_that_are_drawn_stay_darker_than_what_is_around():
    found = parts(inferer(HandcraftedSynthesiser(window=WINDOW))(scan(), container()))
    assert found["synthetic"][found["mask"] > 0].mean() < 25


def test_constant_tumours_are_of_their_value_whatever_is_around():
    found = parts(inferer(ConstantSynthesiser(hu=10.0, window=WINDOW))(scan(), container()))
    core = binary_erosion(found["mask"] > 0)
    assert found["synthetic"][core].mean() == pytest.approx(10, abs=6)


def test_details_stay_the_volumes_where_that_is_asked_for():
    image = scan((60, 60, 60))
    cores = []
    for detail in (0.0, 1.5):
        found = parts(inferer(size="medium", num_tumours=1, detail=detail)(image, container()))
        core = binary_erosion(found["mask"] > 0, iterations=4)
        cores.append(found["synthetic"][core])
    assert cores[0].std() < 1
    assert 11 < cores[1].std() < 16  # the noise of the scan
    assert cores[1].mean() == pytest.approx(cores[0].mean(), abs=5)


def test_only_patches_that_a_tumour_touches_are_synthesised_and_the_rest_is_shown():
    flat = Flat()
    found = parts(inferer(flat, "tiny", 1)(scan(), container()))
    ((image, tumours),) = flat.seen
    assert image.shape == (1, 1, 16, 16, 16)
    assert tumours.sum() == found["mask"].sum()


def test_a_tumour_larger_than_a_patch_is_tiled():
    flat = Flat()
    found = parts(inferer(flat, "medium", 1, slice_batch_size=64)(scan((60, 60, 60)), container()))
    assert len(flat.seen[0][0]) > 1
    assert found["change"][found["mask"] > 0].min() > 0


def test_a_tiny_tumour_between_coarse_voxels_is_still_shown_to_the_network():
    flat = Flat()
    fine = scan((90, 90, 60), (0.7, 0.7, 0.7))
    inferer(flat, "tiny", 1, voxel_mm=(6.0, 6.0, 6.0))(fine, container())
    assert flat.seen[0][1].sum() >= 1


def test_one_seed_gives_one_volume_and_the_batch_size_does_not_matter():
    made = partial(inferer, size="tiny", num_tumours=3)
    diffusion = DiffusionSynthesiser(schedule=NoiseSchedule(4, "cosine", max_beta=0.9999))
    first, same, other = (
        made(diffusion, seed=seed, slice_batch_size=size)(scan(), container())
        for seed, size in ((1, 1), (1, 3), (2, 3))
    )
    torch.testing.assert_close(first, same, atol=1e-3, rtol=0)
    assert not torch.allclose(first, other)


def test_two_volumes_with_one_seed_have_tumours_of_their_own():
    smaller = scan((36, 36, 30))
    first, second = (parts(inferer()(image, container()))["mask"].sum() for image in (scan(), smaller))
    assert first != second


def test_an_organ_that_no_file_has_is_found_by_the_network():
    found = parts(inferer(num_tumours=1)(scan(with_organ=False), container()))
    assert found["organ"].any()
    assert (found["organ"][found["mask"] > 0] == 1).all()


def test_a_volume_thinner_than_a_patch_is_padded_and_cut_back():
    found = parts(inferer(size="tiny", num_tumours=1)(scan((40, 36, 8)), container()))
    assert found["synthetic"].shape == (40, 36, 8)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (scan()[:, :, :, :, 0], "expected a volume"),
        (torch.cat([scan(), scan()], 1), "expected a volume"),
        (scan() * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1), "its mask is empty"),
        (scan() * torch.nan, "NaN"),
        (scan(with_organ=False) * 0 + 900, "the network found none"),
    ],
)
def test_what_cannot_be_given_a_tumour_is_refused(image, reason):
    with pytest.raises(ValueError, match=reason):
        inferer()(image, container())


def spread_of_samples(schedule, std=0.1):
    """Return the standard deviation of what ancestral sampling makes of a Gaussian whose noise is exactly known."""
    variance = 1.0
    for step in range(len(schedule) - 1, -1, -1):
        a = schedule.alphas_cumprod[step]
        clean = std**2 * a.sqrt() / (std**2 * a + 1 - a)  # of x_0 given x_t
        gain = schedule.posterior_mean_x_0[step] * clean + schedule.posterior_mean_x_t[step]
        variance = gain**2 * variance + (schedule.posterior_variance[step] if step else 0)
    return float(variance**0.5)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_latent_images_are_sampled_as_theory_says_of_a_gaussian(sampler):
    network, seen = container(), []
    network.autoencoder.decode = lambda latent: seen.append(latent) or torch.zeros(len(latent), 1, 16, 16, 16)
    generators, image = [torch.Generator().manual_seed(i) for i in range(2)], torch.zeros(2, 1, 16, 16, 16)
    if sampler == "ddpm":
        schedule = NoiseSchedule(4, "cosine", max_beta=0.9999)
        expected = spread_of_samples(schedule)  # four steps are few: it is not 0.1
    else:
        network.diffusion.schedule = NoiseSchedule(200, "cosine", max_beta=0.9999)
        schedule, expected = NoiseSchedule(200, "cosine", 50, "trailing", max_beta=0.9999), 0.1
    DiffusionSynthesiser(schedule=schedule, sampler=sampler)(image, image, image, network, generators, iter)
    assert seen[0].shape == (2, 3, 8, 8, 8)
    assert float(seen[0].std()) == pytest.approx(expected, rel=0.05 if sampler == "ddpm" else 0.2)


def test_handcrafted_tumours_are_drawn_by_the_generators_of_the_patches():
    synthesiser, image = HandcraftedSynthesiser(window=WINDOW), torch.zeros(2, 1, 16, 16, 16)
    one = [torch.Generator().manual_seed(i) for i in (1, 2)]
    other = [torch.Generator().manual_seed(i) for i in (2, 1)]
    first, second = (synthesiser(image, image, image, None, generators, iter) for generators in (one, other))
    assert torch.equal(first, second.flip(0))
    assert (first < 0).all()
    assert synthesiser.num_steps == 1


def test_unknown_samplers_are_refused():
    with pytest.raises(ValueError, match="sampler must be one of ddpm, ddim"):
        DiffusionSynthesiser(schedule=NoiseSchedule(4), sampler="plms")


def test_measuring_reconstructions_leaves_the_codes_as_they_are():
    network = container().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    item = {"case": "a", "image": scan()[0]}
    (row,) = reconstruction_rows([item], inferer(), network)
    assert row["mean_absolute_error_hu"] > 0
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)


def on_grid(count=3, size=(32, 32, 24)):
    """Return volumes on the network's grid and their organs, of which the last has no room."""
    generator = torch.Generator().manual_seed(0)
    images = 40 + 15 * torch.randn(count, 1, *size, generator=generator)
    organs = torch.ones(images.shape, dtype=torch.bool)
    organs[-1] = False
    return images, organs


def test_images_on_the_grid_are_given_tumours_together_and_each_as_if_it_were_alone():
    network, (images, organs) = container(), on_grid()
    diffusion = DiffusionSynthesiser(schedule=NoiseSchedule(4, "cosine", max_beta=0.9999))
    tool = inferer(diffusion, size={"tiny": 0.5, "small": 0.5}, num_tumours=None, seed=5)
    made, masks = tool.insert(images, organs, [7, 8, 9], network)
    for index in (0, 1):
        alone, mask = tool.insert(images[index : index + 1], organs[index : index + 1], [7 + index], network)
        torch.testing.assert_close(made[index], alone[0], atol=0.05, rtol=0)
        assert torch.equal(masks[index], mask[0])
        assert masks[index].any()
        assert not torch.equal(made[index], images[index])
    assert not torch.equal(masks[0], masks[1])


def test_an_image_whose_organ_has_no_room_comes_back_as_it_is():
    images, organs = on_grid()
    made, masks = inferer().insert(images, organs, [1, 2, 3], container())
    assert torch.equal(made[2], images[2])
    assert not masks[2].any()
    nothing, none = inferer().insert(images[2:], organs[2:], [3], container())
    assert torch.equal(nothing, images[2:])
    assert not none.any()


def test_each_size_has_a_synthesiser():
    early, late, drawn, constant = Flat(0), Flat(1), Flat(2), Flat(3)
    made = synthesisers_of("diffusion", early, late, drawn, constant)
    assert list(made.values()) == [early, early, late, late]
    assert set(synthesisers_of("handcrafted", early, late, drawn, constant).values()) == {drawn}
    assert set(synthesisers_of("constant", early, late, drawn, constant).values()) == {constant}
    assert synthesisers_of("none", early, late, drawn, constant).keys() == made.keys()
    with pytest.raises(ValueError, match="synthesis must be one of diffusion, handcrafted, constant, none"):
        synthesisers_of("gan", early, late, drawn, constant)


def test_where_there_are_no_weights_tumours_are_drawn(tmp_path):
    path = tmp_path / "model.pt"
    assert choose_synthesis("auto", str(path)) == "handcrafted"
    path.touch()
    assert choose_synthesis("auto", str(path)) == "diffusion"
    assert choose_synthesis("constant", str(path)) == "constant"


def test_networks_are_shown_organs_of_any_brightness_at_one_level():
    network, shown = container(), []
    condition = network.autoencoder.condition
    network.autoencoder.condition = lambda image, *more: shown.append(image.clone()) or condition(image, *more)
    image, around = 0.1 * torch.randn(2, 1, 16, 16, 16), torch.zeros(2, 1, 16, 16, 16)
    image[1] += 0.3
    around[..., 2:14, 2:14, 2:14] = 1
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    synthesiser = DiffusionSynthesiser(schedule=NoiseSchedule(4, "cosine"), organ_level=0.2)
    synthesiser(image, torch.zeros_like(image), around, network, generators, iter)
    means = [float(each[..., 2:14, 2:14, 2:14].mean()) for each in shown[0]]
    assert means == pytest.approx([0.2, 0.2], abs=0.01)
    synthesiser(image, torch.zeros_like(image), torch.zeros_like(around), network, generators, iter)
    torch.testing.assert_close(shown[1], image.clamp(-1, 1))
