import pytest
import torch

from common.samplers.noise import randn_like, with_condition

IMAGE = torch.zeros(3, 2, 5, 4)


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (2, 1, 4, 3, 2)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("generators", [None, *seeded(0), seeded(0, 1, 2)], ids=["none", "one", "one an image"])
def test_noise_has_the_shape_of_the_image(shape, generators):
    image = torch.zeros(shape)
    generators = generators[: len(image)] if isinstance(generators, list) else generators
    assert randn_like(image, generators).shape == shape


@pytest.mark.parametrize("generators", [None, *seeded(0), seeded(0, 1, 2)], ids=["none", "one", "one an image"])
def test_noise_has_the_dtype_of_the_image(generators):
    assert randn_like(IMAGE.double(), generators).dtype == torch.float64


def test_noise_is_standard_normal():
    noise = randn_like(torch.zeros(1, 1, 200, 200), *seeded(0))
    # Five standard errors of 40000 draws.
    assert noise.mean() == pytest.approx(0, abs=0.025)
    assert noise.std() == pytest.approx(1, abs=0.018)


def test_the_same_seed_gives_the_same_noise():
    assert torch.equal(randn_like(IMAGE, *seeded(7)), randn_like(IMAGE, *seeded(7)))


def test_without_a_generator_the_global_seed_counts():
    torch.manual_seed(5)
    first = randn_like(IMAGE, None)
    torch.manual_seed(5)
    assert torch.equal(randn_like(IMAGE, None), first)


def test_the_noise_of_an_image_does_not_depend_on_the_others_of_its_batch():
    batch = randn_like(IMAGE, seeded(1, 2, 3))
    assert torch.equal(randn_like(IMAGE[:1], seeded(2))[0], batch[1])


def test_images_of_one_batch_have_different_noise():
    batch = randn_like(IMAGE, seeded(1, 2, 3))
    assert not torch.equal(batch[0], batch[1])


def test_a_condition_comes_before_the_noisy_image():
    seen = []
    model = with_condition(lambda x, timesteps: seen.append(x) or x, torch.zeros(2, 3, 4, 4))
    model(torch.ones(2, 1, 4, 4), torch.zeros(2))
    assert seen[0].amax((0, 2, 3)).tolist() == [0, 0, 0, 1]
    assert with_condition(model, None) is model
