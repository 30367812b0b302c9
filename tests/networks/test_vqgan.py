import json
from pathlib import Path

import pytest
import torch

from common.networks.vqgan import VQGAN

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tumour_synthesis.json").read_text())


def small(**options):
    torch.manual_seed(0)
    settings = {"channels": (4, 8), "strides": ((2, 2, 1),), "norm_num_groups": 4}
    return VQGAN(3, **{**settings, **options}, embedding_dim=3, num_embeddings=32)


def image(seed=0):
    return torch.rand(2, 1, 8, 8, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_the_papers_network_has_as_many_parameters_as_the_authors():
    network, theirs = VQGAN(), GOLDEN["parameters"]
    to_latent, from_latent = network.encoder[-1], network.decoder[0]
    assert count(to_latent, from_latent) == theirs["pre_post"]
    assert count(network.encoder) - count(to_latent) == theirs["encoder"]
    assert count(network.decoder) - count(from_latent) == theirs["decoder"]


@pytest.mark.parametrize(
    ("strides", "size"), [(((2, 2, 1),), (4, 4, 4)), (((2, 2, 2), (2, 2, 1)), (2, 2, 2)), (((2, 1, 2),), (4, 8, 2))]
)
def test_latent_images_are_smaller_by_the_strides(strides, size):
    network = small(channels=(4, 8, 8)[: len(strides) + 1], strides=strides)
    latent = network.encode(image())
    assert latent.shape == (2, 3, *size)
    assert network.decode(latent).shape == image().shape
    assert tuple(8 // f if i < 2 else 4 // f for i, f in enumerate(network.factor)) == size


def test_an_image_of_two_axes_is_encoded_too():
    network = VQGAN(2, (4, 8), ((2, 2),), embedding_dim=3, num_embeddings=8, norm_num_groups=4)
    assert network.decode(network.encode(torch.zeros(1, 1, 8, 8))).shape == (1, 1, 8, 8)


def test_codes_lie_in_minus_one_to_one_once_scaled():
    network = small().train()
    network(image())
    network.eval()
    low, high = network.quantiser.codes.aminmax()
    scaled = (network.quantiser.codes - low) / (high - low) * 2 - 1
    assert scaled.aminmax() == (-1, 1)
    decoded, _ = network(image(1))
    torch.testing.assert_close(network.decode(network.encode(image(1))), decoded, atol=1e-4, rtol=0)


def test_a_condition_does_not_show_what_is_in_the_tumour():
    network = small().eval()
    tumour = torch.zeros_like(image())
    tumour[..., 2:5, 2:5, 1:3] = 1
    other = torch.where(tumour > 0, 0.7, image())
    torch.testing.assert_close(network.condition(image(), tumour), network.condition(other, tumour))
    assert network.condition(image(), tumour).shape == (2, 4, 4, 4, 4)


def test_the_share_of_a_latent_voxel_that_is_tumour_is_told_even_of_one_voxel():
    tumour = torch.zeros_like(image())
    tumour[..., 3, 3, 1] = 1
    network = small().eval()
    assert network.condition(image(), tumour)[:, -1].amax() == 2 / 4 - 1
    assert network.condition(image(), tumour, "nearest")[:, -1].amax() == -1  # it has vanished
    with pytest.raises(ValueError, match="area or nearest"):
        network.condition(image(), tumour, "linear")


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one more than strides"):
        VQGAN(3, (4, 8), ())
    with pytest.raises(ValueError, match="1 or 2 along each of 3 axes"):
        VQGAN(3, (4, 8), ((2, 3, 2),))
