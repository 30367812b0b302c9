import math

import pytest
import torch
import torch.nn.functional as F

from common.losses.learn_to_ignore import (
    AdversarialSiteLoss,
    ContrastiveLoss,
    LearnToIgnoreLoss,
    SiteClassLoss,
    distance,
)


def parts(batch=12, classes=2, dims=6, seed=0):
    """Return what an encoder, a classifier and centres would give, each a leaf whose gradient tells who learns."""
    generator = torch.Generator().manual_seed(seed)
    latent = F.normalize(torch.randn(batch, dims, generator=generator)).requires_grad_()
    logits = torch.randn(batch, classes, generator=generator).requires_grad_()
    centres = F.normalize(torch.randn(classes, dims, generator=generator)).requires_grad_()
    labels = torch.randint(0, classes, (batch,), generator=generator)
    labels[-classes:] = torch.arange(classes)
    return logits, latent, centres, torch.stack([labels, torch.arange(batch) % 3], 1)


def said(logits, latent, centres):
    return logits, latent, centres.expand(len(latent), -1, -1)


def gradients(loss, *leaves):
    return [0.0 if g is None else float(g.abs().sum()) for g in torch.autograd.grad(loss, leaves, allow_unused=True)]


def test_gradients_reach_what_the_paper_says_and_nothing_else():
    logits, latent, centres, target = parts()
    rows = {}
    for name, weights in {"cen": (1.0, 0.0), "lat": (0.0, 1.0)}.items():
        loss = LearnToIgnoreLoss(centre_weight=weights[0], latent_weight=weights[1])
        of_latent, of_centres = torch.autograd.grad(
            loss(said(logits, latent, centres), target), (latent, centres), allow_unused=True
        )
        rows[name] = (of_latent, of_centres)
    assert not rows["cen"][0][:-2].any()  # the last two images are the target's
    assert rows["cen"][0][-2:].any()
    assert rows["cen"][1].any()
    assert rows["lat"][0][:-2].any()
    assert not rows["lat"][0][-2:].any()
    assert rows["lat"][1] is None or not rows["lat"][1].any()
    (of_logits,) = torch.autograd.grad(LearnToIgnoreLoss()(said(logits, latent, centres), target), (logits,))
    assert of_logits[:-2].any()
    assert not of_logits[-2:].any()


def test_the_loss_is_that_of_the_equations():
    logits, latent, centres, target = parts()
    labels, r, d = target[:, 0], 0.1, 1.9
    known = F.cross_entropy(logits[:-2], labels[:-2])
    near = torch.stack([(torch.dist(latent[i], centres[labels[i]]) - r).clamp(min=0) ** 2 for i in range(10)]).mean()
    cen = 0.0
    for t in range(2):
        cen = cen + (torch.dist(latent[10 + t], centres[t]) - r).clamp(min=0) ** 2
        cen = cen + 0.5 * (d - torch.dist(centres[0], centres[1])).clamp(min=0) ** 2
    expected = known + near + 100 * cen / 2
    torch.testing.assert_close(LearnToIgnoreLoss()(said(logits, latent, centres), target), expected)


def test_images_at_their_centres_and_centres_far_apart_cost_nothing():
    centres = torch.stack([torch.full((4,), 0.5), torch.full((4,), -0.5)])
    labels = torch.tensor([0, 1, 1, 0, 1])
    loss = LearnToIgnoreLoss()
    assert loss.of_centres(centres, centres) == 0
    assert loss.beyond(centres[labels], centres[labels]).sum() == 0


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_margin_is_within_reach_for_any_number_of_classes(classes):
    assert LearnToIgnoreLoss(classes).margin == pytest.approx(0.95 * math.sqrt(2 * classes / (classes - 1)))
    with pytest.raises(ValueError, match="twice the radius"):
        LearnToIgnoreLoss(classes, margin=0.2)
    with pytest.raises(ValueError, match="how far"):
        LearnToIgnoreLoss(classes, margin=2.1)


def test_without_a_margin_gradients_are_numbers_where_images_lie_on_their_centres():
    latent = torch.zeros(2, 3, requires_grad=True)
    distance(latent, torch.zeros(2, 3)).sum().backward()
    assert latent.grad.isfinite().all()


def test_rare_cells_count_for_more_and_all_in_all_for_as_much():
    logits, latent, centres, _ = parts(batch=8)
    target = torch.tensor([[0, 0]] * 6 + [[1, 0], [1, 1]])
    loss = SiteClassLoss([[6, 0], [1, 1]])
    torch.testing.assert_close(loss.weights, torch.tensor([[8 / 18, 0.0], [8 / 3, 8 / 3]]))
    plain = F.cross_entropy(logits, target[:, 0], reduction="none")
    expected = (plain * loss.weights[target[:, 0], target[:, 1]]).mean()
    torch.testing.assert_close(loss(said(logits, latent, centres), target), expected)
    torch.testing.assert_close(SiteClassLoss()(said(logits, latent, centres), target), plain.mean())


def test_contrast_is_that_of_its_equation():
    logits, latent, centres, target = parts(batch=6)
    labels, total = target[:, 0], []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        scores = torch.stack([latent[i] @ latent[j] / 0.1 for j in others]).exp()
        alike = [n for n, j in enumerate(others) if labels[j] == labels[i]]
        if alike:
            total.append(-torch.stack([(scores[n] / scores.sum()).log() for n in alike]).mean())
    expected = torch.stack(total).mean() + F.cross_entropy(logits, labels)
    torch.testing.assert_close(ContrastiveLoss()(said(logits, latent, centres), target), expected)


def test_contrast_without_pairs_is_no_error():
    logits, latent, centres, _ = parts(batch=2)
    target = torch.tensor([[0, 0], [1, 0]])
    loss = ContrastiveLoss()(said(logits, latent, centres), target)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target[:, 0]))
    loss.backward()
    assert latent.grad.isfinite().all()


def test_a_reversed_gradient_is_the_opposite_of_what_the_head_learns():
    _, latent, _, target = parts()
    logits, centres = torch.zeros(12, 2), torch.zeros(2, 6)
    found = {}
    for weight in (1.0, 0.5):
        torch.manual_seed(0)
        loss = AdversarialSiteLoss(3, 6, weight=weight)
        found[weight] = torch.autograd.grad(loss(said(logits, latent, centres), target), (latent,))[0]
    plain = torch.autograd.grad(F.cross_entropy(loss.head(latent), target[:, 1]), (latent,))[0]
    torch.testing.assert_close(found[1.0], -plain)
    torch.testing.assert_close(found[0.5], -0.5 * plain)


def test_confusion_teaches_the_head_sites_and_the_encoder_to_hide_them():
    logits, latent, centres, target = parts()
    torch.manual_seed(0)
    loss = AdversarialSiteLoss(3, 6, "confusion")
    weight = loss.head[0].weight
    of_head, of_latent = torch.autograd.grad(loss(said(logits, latent, centres), target), (weight, latent))
    plain = torch.autograd.grad(F.cross_entropy(loss.head(latent.detach()), target[:, 1]), (weight,))[0]
    torch.testing.assert_close(of_head, plain)
    told = -loss.head(latent).log_softmax(1).mean()
    torch.testing.assert_close(of_latent, torch.autograd.grad(told, (latent,))[0])


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="kind must be reversal or confusion, got 'none'"):
        AdversarialSiteLoss(3, 6, "none")
