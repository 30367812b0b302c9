import math

import pytest
import torch
from torch import nn

from common.networks.latent_classifier import ENCODERS, LatentClassifier, image_encoder, simplex


def classifier(**options):
    torch.manual_seed(0)
    return LatentClassifier(nn.Sequential(nn.Flatten(), nn.Linear(8, 6)), embedding_dim=6, **options)


def test_at_the_papers_size_it_has_as_many_parameters():
    with torch.device("meta"):
        network = LatentClassifier(image_encoder("inception_resnet"))
    assert sum(p.numel() for p in network.parameters()) == 36_431_842


def test_vectors_and_centres_have_length_1():
    logits, latent, centres = classifier(num_classes=3)(torch.randn(5, 8))
    assert logits.shape == (5, 3)
    assert centres.shape == (5, 3, 6)
    torch.testing.assert_close(latent.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(centres.norm(dim=2), torch.ones(5, 3))


@pytest.mark.parametrize("detach", [True, False])
def test_the_encoder_learns_from_the_classifier_where_that_is_asked_for(detach):
    network = classifier(detach=detach)
    network(torch.randn(5, 8))[0].square().sum().backward()
    gradient = network.encoder[1].weight.grad
    assert (gradient is None or not gradient.any()) == detach
    assert network.classifier.weight.grad.any()


def test_what_guides_a_sampler_has_gradients_all_the_way_and_hears_of_the_noise():
    class Noisy(nn.Module):
        def forward(self, image, timesteps):
            return image.flatten(1) * timesteps[:, None]

    network = LatentClassifier(Noisy(), embedding_dim=8).eval()
    image = torch.randn(2, 8, requires_grad=True)
    logits, latent, _ = network(image, torch.tensor([1, -1]))
    logits[:, 0].sum().backward()
    assert image.grad.any()
    torch.testing.assert_close(latent[1], -image[1] / image[1].norm())


def test_an_image_of_no_vector_is_no_error():
    network = classifier()
    nn.init.zeros_(network.encoder[1].weight)
    nn.init.zeros_(network.encoder[1].bias)
    assert network(torch.randn(2, 8))[1].isfinite().all()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_points_of_a_simplex_are_all_as_far_from_one_another_as_can_be(count):
    points = simplex(count, 8)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(count))
    apart = torch.cdist(points, points)[~torch.eye(count, dtype=torch.bool)]
    torch.testing.assert_close(apart, torch.full_like(apart, math.sqrt(2 * count / (count - 1))), atol=1e-5, rtol=0)


def test_fixed_centres_are_no_parameters():
    network = classifier(centres="fixed")
    assert "centres" not in dict(network.named_parameters())
    torch.testing.assert_close(network.centres[0], torch.full((6,), 6**-0.5))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_all_encoders_give_vectors_and_mix_no_images(encoder, spatial_dims):
    torch.manual_seed(0)
    options = {"embedding_dim": 12, "hidden_dim": 16, "width": 1 / 8, "dropout": 0.0, "padding": "same"}
    network = image_encoder(encoder, spatial_dims, **options)
    images = torch.randn(2, 1, *[64] * spatial_dims)
    both = network(images)
    assert both.shape == (2, 12)
    torch.testing.assert_close(network(images[:1]), both[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: classifier(centres="moving"), "centres must be one of learned, fixed"),
        (lambda: classifier(num_classes=1), "num_classes must be >= 2"),
        (lambda: image_encoder("vit"), "encoder must be one of inception_resnet"),
        (lambda: simplex(5, 3), "5 points need 4 dimensions"),
    ],
)
def test_what_makes_no_sense_is_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()
