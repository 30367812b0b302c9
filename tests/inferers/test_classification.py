import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers.classification import Evidence, LatentInferer
from common.networks.latent_classifier import ENCODERS, LatentClassifier, image_encoder
from common.networks.parts import NetworkParts


def container():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(27, 5))
    return NetworkParts("classifier", classifier=LatentClassifier(encoder, 5, num_classes=3)).eval()


def test_probabilities_distances_and_the_vector_of_each_image():
    inferer, network = LatentInferer(num_classes=3, embedding_dim=5), container()
    image = MetaTensor(torch.randn(2, 1, 3, 3, 3))
    said = inferer(image, network)
    assert said.shape == (2, len(inferer.channels)) == (2, 11)
    probability, away, latent = said.split([3, 3, 5], 1)
    torch.testing.assert_close(probability.sum(1), torch.ones(2))
    logits, vectors, centres = network.classifier(image.as_tensor())
    torch.testing.assert_close(probability, logits.softmax(1))
    torch.testing.assert_close(latent, vectors)
    torch.testing.assert_close(away[1, 2], torch.dist(vectors[1], centres[1, 2]))
    assert not isinstance(said, MetaTensor)


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="the image holds NaN"):
        LatentInferer(num_classes=3, embedding_dim=5)(torch.full((1, 1, 3, 3, 3), torch.nan), container())
    network = container()
    nn.init.constant_(network.classifier.classifier.bias, torch.nan)
    with pytest.raises(ValueError, match="answer holds NaN"):
        LatentInferer(num_classes=3, embedding_dim=5)(torch.zeros(1, 1, 3, 3, 3), network)


def test_the_container_gives_logits_for_checks():
    assert container()(torch.zeros(2, 1, 3, 3, 3)).shape == (2, 3)


def test_evidence_is_where_a_class_is_seen_and_reaches_an_encoder_that_does_not_learn_from_it():
    """One channel sees bright voxels, the other is the same everywhere; bright images are of class 1."""
    encoder = nn.Sequential(nn.Conv3d(1, 2, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    encoder[0].weight.data = torch.tensor([1.0, 0.0])[:, None, None, None, None]
    encoder[0].bias.data = torch.tensor([0.0, 1.0])
    part = LatentClassifier(encoder, 2)
    part.classifier.weight.data = torch.tensor([[-1.0, -1.0], [1.0, 0.5]])
    part.classifier.bias.data.zero_()
    network = NetworkParts("classifier", classifier=part).eval()
    image = torch.zeros(1, 4, 4, 4)
    image[0, 1, 2, 3] = 1
    seen = Evidence(network, layer="0")(MetaTensor(image))
    assert seen.shape == (4, 4, 4)
    assert seen[1, 2, 3] == 1 == seen.max()
    assert seen.sum() == 1
    assert encoder[0].weight.grad is None


@pytest.mark.parametrize("encoder", ENCODERS)
def test_evidence_of_each_encoder_has_a_layer_to_look_at(encoder):
    torch.manual_seed(0)
    made = image_encoder(encoder, 2, embedding_dim=12, hidden_dim=16, num_blocks=(1, 1, 1), width=1 / 8, padding="same")
    network = NetworkParts("classifier", classifier=LatentClassifier(made, 12)).eval()
    seen = Evidence(network)(torch.rand(1, 64, 48))
    assert seen.shape == (64, 48)
    assert seen.max() == 1
    with pytest.raises(ValueError, match="a layer of Sequential"):
        Evidence(container())
