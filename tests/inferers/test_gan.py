import pytest
import torch

from common.inferers.gan import GanInferer, GanTranslator
from common.inferers.grid import Grid
from common.inferers.translation import Batch
from common.networks.class_translation import BranchedGenerator, CriticClassifier
from common.networks.parts import NetworkParts


def network():
    torch.manual_seed(0)
    parts = NetworkParts(
        "generator", generator=BranchedGenerator(width=8), classifier=CriticClassifier((64, 64), width=2)
    )
    for _ in range(3):  # statistics that are not those of a beginning
        parts.generator.train()(torch.randn(4, 1, 64, 64), 0)
    return parts.eval()


@pytest.mark.parametrize("eval_mode", ["running", "per_image"])
def test_answers_do_not_depend_on_the_batch_and_leave_the_statistics(eval_mode):
    parts, image = network(), torch.rand(3, 1, 64, 64)
    before = {name: value.clone() for name, value in parts.generator.state_dict().items()}
    translate = GanTranslator(eval_mode=eval_mode)

    def answer(x):
        return translate(Batch(x, x > -1), parts, [], iter)

    together, alone = answer(image), torch.cat([answer(x) for x in image.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in parts.generator.state_dict().items())
    assert together.min() >= 0
    assert together.max() <= 1


def test_each_image_can_be_normalised_by_itself():
    parts, image = network(), torch.rand(1, 1, 64, 64)
    expected = (parts.generator.train()(2 * image - 1, 0) + 1) / 2  # one image is a batch
    parts.eval()
    found = GanTranslator(eval_mode="per_image")(Batch(image, image > -1), parts, [], iter)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_classifier_tells_the_disease():
    parts, image = network(), torch.rand(2, 1, 64, 64)
    inferer = GanInferer(grid=Grid(pixel_mm=None, patch_size=(64, 64)), translator=GanTranslator(), threshold=0.1)
    expected = parts.classifier(2 * image - 1).softmax(1)[:, 1]
    torch.testing.assert_close(inferer.disease_probability(image, parts), expected)
    without = GanInferer(
        grid=Grid(pixel_mm=None, patch_size=(64, 64)), translator=GanTranslator(), threshold=0.1, classifier=None
    )
    assert without.disease_probability(image, parts).tolist() == [0, 0]


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="g_eval_mode must be one of running, per_image, got 'train'"):
        GanTranslator(eval_mode="train")
