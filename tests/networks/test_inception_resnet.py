import pytest
import torch

from common.networks.inception_resnet import InceptionResNetV1


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(spatial_dims=3, **options):
    return InceptionResNetV1(spatial_dims, embedding_dim=16, hidden_dim=32, width=1 / 8, **options)


def test_at_the_papers_size_it_has_as_many_parameters_and_its_maps_are_as_large():
    with torch.device("meta"):
        network = InceptionResNetV1()
        stem = network.stem(torch.zeros(1, 1, 124, 120, 172))
        high = network.high(stem)
        middle = network.middle(high)
    assert count(network) == 36_431_328
    assert count(network.stem) == 1_830_752
    assert [tuple(x.shape[1:]) for x in (stem, high, middle)] == [(256, 13, 12, 19), (896, 6, 5, 9), (1792, 2, 2, 4)]


def test_padding_changes_no_parameter():
    with torch.device("meta"):
        assert count(InceptionResNetV1(padding="same")) == count(InceptionResNetV1())


@pytest.mark.parametrize(("spatial_dims", "size"), [(3, 40), (3, 33), (2, 33), (2, 96)])
def test_padded_it_takes_small_images_of_2_and_3_dimensions(spatial_dims, size):
    network = small(spatial_dims, padding="same")
    assert network(torch.zeros(2, 1, *[size] * spatial_dims)).shape == (2, 16)


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    torch.manual_seed(0)
    network, images = small(padding="same", dropout=0.0), torch.randn(3, 1, 33, 33, 33)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)


def test_other_paddings_are_refused():
    with pytest.raises(ValueError, match="padding must be one of valid, same, got 'full'"):
        InceptionResNetV1(padding="full")
