import numpy as np
import pytest
import torch
from conftest import GOLDEN
from torch import nn

from common.samplers.ddim import ddim_step, predict_noise
from common.samplers.guidance import (
    classifier_guidance,
    direction_guidance,
    gradient,
    regression_guidance,
    segmentation_guidance,
    total_guidance,
)
from common.schedulers import NoiseSchedule

RECORDED = np.load(GOLDEN / "ddim.npz")
TIMESTEPS = torch.tensor([7, 7])


@pytest.fixture
def x_t():
    return torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def mean_of(x_t, timesteps):
    """Stand for a regressor."""
    return x_t.mean((1, 2, 3))[:, None]


def themselves(x_t, timesteps):
    """Stand for a segmenter."""
    return 3 * x_t


def guided(x_t, guide, level=300):
    """Return the clean image that a step with a guide goes to, against one without."""
    schedule = NoiseSchedule(1000).like(x_t)
    moved = []
    for guides in ((), (guide,)):
        epsilon = predict_noise(lambda x, t: torch.zeros_like(x), x_t, level, schedule, guides)
        moved.append(ddim_step(x_t, epsilon, level, 0, schedule))
    return moved


@pytest.mark.parametrize("step", [0, 50, 499, 999])
def test_the_gradient_of_a_classifier_equals_guided_diffusion(tiny_classifier, step):
    x_t = torch.tensor(RECORDED[f"t{step}_xt"])
    found = classifier_guidance(tiny_classifier, 0, 1.0)(x_t, torch.tensor([step, step]))
    np.testing.assert_allclose(found, RECORDED[f"t{step}_guided_grad"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("target", [0, 1])
def test_a_guided_step_raises_the_probability_of_its_class(tiny_unet, tiny_classifier, target):
    start, moved = guided(tiny_unet.image, classifier_guidance(tiny_classifier, target, 5.0))
    before, after = (tiny_classifier(x, TIMESTEPS).log_softmax(1)[:, target] for x in (start, moved))
    assert (after > before).all()


def test_each_image_can_have_a_class_of_its_own_and_there_may_be_more_than_two(x_t):
    weights = torch.randn(3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def classifier(x, timesteps):
        return x.flatten(1) @ weights.T

    targets = torch.tensor([2, 0])
    together = classifier_guidance(classifier, targets, 2.0)(x_t, TIMESTEPS)
    for i, target in enumerate(targets.tolist()):
        alone = classifier_guidance(classifier, target, 2.0)(x_t[i : i + 1], TIMESTEPS[:1])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("target", [-5.0, 5.0])
def test_a_regression_guide_leads_towards_its_value_from_both_sides(x_t, target):
    start, moved = guided(x_t, regression_guidance(mean_of, target, 1.0))
    before, after = ((mean_of(x, TIMESTEPS) - target).abs() for x in (start, moved))
    assert (after < before).all()


def test_a_regression_guide_is_scaled_by_the_distance(x_t):
    found = regression_guidance(mean_of, torch.tensor([1.0, -2.0]), 3.0)(x_t, TIMESTEPS)
    distance = torch.tensor([1.0, -2.0]) - mean_of(x_t, TIMESTEPS)[:, 0]
    expected = 3.0 * distance / 16
    torch.testing.assert_close(found, expected.view(2, 1, 1, 1).expand_as(found))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_direction_guide_has_a_fixed_sign(x_t, sign):
    start, moved = guided(x_t, direction_guidance(mean_of, sign, 1.0))
    assert (sign * (mean_of(moved, TIMESTEPS) - mean_of(start, TIMESTEPS)) > 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_segmentation_guide_lowers_the_cross_entropy(x_t, reduction, classes):
    target = torch.randint(0, max(classes, 2), x_t.shape, generator=torch.Generator().manual_seed(2))

    def segmenter(x, timesteps):
        return 3 * x if classes == 1 else torch.cat([-x, x, 2 * x], 1)

    def entropy(x):
        if classes == 1:
            return nn.functional.binary_cross_entropy_with_logits(segmenter(x, TIMESTEPS), target.to(x))
        return nn.functional.cross_entropy(segmenter(x, TIMESTEPS), target[:, 0])

    start, moved = guided(x_t, segmentation_guidance(segmenter, target, 0.01, reduction))
    assert entropy(moved) < entropy(start)


def test_the_sum_over_pixels_pulls_as_often_as_there_are_pixels(x_t):
    target = torch.ones_like(x_t)
    mean, total = (segmentation_guidance(themselves, target, 1.0, r)(x_t, TIMESTEPS) for r in ("mean", "sum"))
    torch.testing.assert_close(total, 16 * mean)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', got 'max'"):
        segmentation_guidance(themselves, target, 1.0, "max")


def test_guides_add_up(x_t):
    guides = [regression_guidance(mean_of, 1.0, 2.0), segmentation_guidance(themselves, torch.ones_like(x_t), 1.0)]
    expected = sum(guide(x_t, TIMESTEPS) for guide in guides)
    torch.testing.assert_close(total_guidance(guides, x_t, TIMESTEPS), expected)


def test_gradients_are_taken_in_float32_within_no_grad_and_autocast():
    seen = []

    def objective(x, timesteps):
        seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return x.square().flatten(1).sum(1)

    x_t = torch.ones(2, 1, 2, 2, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = gradient(objective, x_t, TIMESTEPS)
    assert seen == [(torch.float32, False)]
    assert found.dtype == torch.bfloat16
    assert (found == 2).all()


def test_a_classifier_may_say_more_than_logits(x_t):
    def classifier(x, timesteps):
        return torch.cat([-mean_of(x, timesteps), mean_of(x, timesteps)], 1)

    plain = classifier_guidance(classifier, target=1, scale=2.0)
    wordy = classifier_guidance(lambda x, t: (classifier(x, t), x, x), target=1, scale=2.0)
    torch.testing.assert_close(plain(x_t, TIMESTEPS), wordy(x_t, TIMESTEPS), rtol=0, atol=0)
    assert plain(x_t, TIMESTEPS).any()
