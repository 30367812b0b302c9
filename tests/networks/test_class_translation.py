import pytest
import torch

from common.networks.class_translation import BranchedGenerator, CriticClassifier, RealnessHeads, ResidualGenerator


def count(*networks):
    return sum(p.numel() for network in networks for p in network.parameters())


def test_networks_have_the_papers_parameters_and_shapes():
    with torch.device("meta"):
        generator, classifier, heads = BranchedGenerator(), CriticClassifier(), RealnessHeads()
        image = torch.empty(2, 1, 256, 256)
    assert (count(generator), count(classifier, heads)) == (8_528_262, 18_170_180)
    features = classifier.encode(image)
    assert features.shape == (2, 512, 8, 8)
    assert heads(features, 1).shape == (2, 1, 8, 8)
    assert classifier(image).shape == (2, 2)
    assert generator(image, 1).shape == image.shape


@pytest.mark.parametrize("make", [BranchedGenerator, ResidualGenerator])
def test_generators_are_told_the_class(make):
    generator, image = make(width=8).eval(), torch.randn(2, 1, 16, 24)
    assert generator(image, 0).shape == image.shape
    assert generator(image).equal(generator(image, 0))
    assert not generator(image, 0).allclose(generator(image, 1))
    assert generator(image, 1).abs().max() <= 1


def test_what_is_told_of_a_class_reaches_the_other_through_what_they_share():
    generator = BranchedGenerator(width=8)
    generator(torch.randn(2, 1, 16, 16), 1).sum().backward()
    assert all(p.grad is None for p in generator.branches[0].parameters())
    assert all(p.grad is not None for p in [*generator.branches[1].parameters(), *generator.down.parameters()])


@pytest.mark.parametrize("make", [BranchedGenerator, ResidualGenerator])
def test_images_of_a_batch_may_go_to_several_classes(make):
    generator, image = make(width=8).eval(), torch.randn(4, 1, 16, 16)
    found = generator(image, torch.tensor([1, 0, 0, 1]))
    for k, own in ((0, slice(1, 3)), (1, slice(0, 4, 3))):
        torch.testing.assert_close(found[own], generator(image[own], k))
    torch.testing.assert_close(generator(image, torch.ones(4, dtype=torch.long)), generator(image, 1))


def test_an_additive_map_of_nothing_leaves_the_image():
    generator, image = ResidualGenerator(width=8, additive=True), torch.randn(1, 1, 16, 16)
    torch.nn.init.zeros_(generator.layers[-1].weight)
    torch.testing.assert_close(generator(image, 1), image.tanh())


def test_sizes_that_networks_cannot_take_are_refused():
    with pytest.raises(ValueError, match=r"multiples of 8, got \(20, 24\)"):
        BranchedGenerator(width=8)(torch.zeros(1, 1, 20, 24))
    with pytest.raises(ValueError, match="64 pixels along each axis at least, got \\[48, 64\\]"):
        CriticClassifier((48, 64))
    with pytest.raises(ValueError, match=r"expected images of \(64, 96\) pixels, got \(64, 64\)"):
        CriticClassifier((64, 96), width=2)(torch.zeros(1, 1, 64, 64))
