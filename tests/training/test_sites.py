import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from common.networks.latent_classifier import LatentClassifier
from common.training.sites import (
    METHODS,
    Patience,
    SiteTrainer,
    ValidationLoss,
    method_of,
    parameter_groups,
    refuse_shared_patients,
    site_loss,
    sites_of,
)


def item(case, site, label, **more):
    return {"case": case, "site": site, "image_label": label, "patient": case, **more}


ITEMS = [item("a", "S1", 0), item("b", "S1", 1), item("c", "HCP", 0), item("d", "S2", 1), item("e", "S2", 1)]


def network(detach=True, centres="learned"):
    torch.manual_seed(0)
    return LatentClassifier(nn.Sequential(nn.Flatten(), nn.Linear(8, 4)), 4, detach=detach, centres=centres)


def test_sites_are_counted_by_class():
    sites = sites_of(ITEMS, ["S1"])
    assert sites.names == ["HCP", "S1", "S2"]
    assert sites.counts == [[1, 1, 0], [0, 1, 2]]
    assert sites.targets == [True, True, False, False, False]
    assert (sites.labels, sites.num_classes) == ([0, 1, 0, 1, 1], 2)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([item("a", "S1", 0), {"case": "b", "image_label": 1}], "b: expected a site and an image_label"),
        ([item("a", "S1", 2)], "of 0 to 1, got 'S1' and 2"),
        ([item("a", "S1", 0), item("b", "s 1", 1)], "expected one name for a site, got 'S1' and 's 1'"),
        ([item("a", "S1", 0), item("b", "S2", 1)], "got none of class 1 among 1; sites: S1, S2"),
    ],
)
def test_what_no_training_can_learn_from_is_refused(items, reason):
    with pytest.raises(ValueError, match=reason):
        sites_of(items, ["S1"])


def test_a_patient_in_two_splits_is_refused():
    refuse_shared_patients(training=ITEMS[:2], validation=ITEMS[2:])
    with pytest.raises(ValueError, match="got b in training and validation"):
        refuse_shared_patients(training=ITEMS[:2], validation=ITEMS[1:])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_teaches_encoder_and_classifier(name):
    method, sites = method_of(name), sites_of(ITEMS, ["S1"])
    made = network(method.detach, method.centres)
    loss = site_loss(name, sites, 4)
    said = made(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)))
    loss(said, torch.tensor([[0, 1], [1, 2], [1, 0], [0, 0], [0, 1], [1, 1]])).backward()
    assert made.encoder[1].weight.grad.any()
    assert made.classifier.weight.grad.any()
    assert all(parameter.grad is not None for parameter in loss.parameters())
    learned = made.centres.grad is not None and bool(made.centres.grad.any())
    assert learned == (name in ("learn_to_ignore", "no_margin"))


def test_other_methods_are_refused():
    with pytest.raises(ValueError, match="method must be one of learn_to_ignore, fixed, no_margin"):
        method_of("can")
    with pytest.raises(ValueError, match="method must be one of learn_to_ignore, fixed, no_margin"):
        site_loss("can", sites_of(ITEMS, ["S1"]), 4)


def test_the_loss_takes_what_is_set_of_it():
    loss = site_loss("fixed", sites_of(ITEMS, ["S1"]), 4, radius=0.2, margin=1.5, centre_weight=10, latent_weight=2)
    assert (loss.radius, loss.margin, loss.centre_weight, loss.latent_weight) == (0.2, 1.5, 10, 2)
    bare = site_loss("no_margin", sites_of(ITEMS, ["S1"]), 4, radius=0.2)
    assert (bare.radius, bare.margin) == (0, 2)


def test_encoder_classifier_and_centres_learn_at_rates_of_their_own():
    made, loss = network(), nn.Linear(4, 3)
    encoder, classifier, centres = parameter_groups(made, loss, 1e-3, 1e-2, 2e-3, 5e-5)
    assert len(encoder["params"]) == 4
    assert [group["lr"] for group in (encoder, classifier, centres)] == [1e-3, 1e-2, 2e-3]
    assert [group["weight_decay"] for group in (encoder, classifier, centres)] == [5e-5, 0, 5e-5]
    torch.optim.Adam([encoder, classifier, centres])
    assert len(parameter_groups(network(centres="fixed"), nn.Identity(), 1, 1, 1, 0)) == 2
    assert parameter_groups(made, loss, 1, 1, 1, 0.5, 0.25)[1]["weight_decay"] == 0.25


def test_validation_images_are_judged_by_classifier_or_centres():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    centres = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).expand(2, -1, -1)
    latent, target = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.tensor([[0, 0], [1, 0]])
    expected = nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(ValidationLoss()((logits, latent, centres), target), expected)
    near = ValidationLoss("centres")((logits, latent, centres), target)
    assert float(near) == pytest.approx((2**0.5 - 0.1) ** 2 / 2, abs=1e-5)
    away = torch.tensor([[2**0.5, 2**0.5], [2.0, 0.0]])
    torch.testing.assert_close(
        ValidationLoss("nearest")((logits, latent, centres), target),
        nn.functional.cross_entropy(-away, torch.tensor([0, 1])),
    )
    with pytest.raises(ValueError, match="by must be one of classifier, nearest, centres"):
        ValidationLoss("both")


def ended(scores, epochs, warm_up=0, interval=1, first=None):
    """Return after which epoch a training of these validation losses ends, and its patience."""
    validator, engine = Engine(lambda *_: None), Engine(lambda *_: None)
    validator.state.key_metric_name = "loss"
    patience = Patience(validator, epochs, warm_up)
    engine.also_kept = {}

    def validate(engine):
        validator.state.metrics["loss"] = scores[engine.state.epoch - 1]
        validator.run([0])

    engine.add_event_handler(Events.EPOCH_COMPLETED(every=interval), validate)
    patience.attach(engine)
    if first is not None:
        patience.load_state_dict(first)
    engine.run([0], max_epochs=len(scores))
    assert engine.also_kept == {"patience": patience}
    return engine.state.epoch, patience.state_dict()


def test_a_training_that_gets_no_better_ends():
    assert ended([5, 4, 4, 4, 4, 1], 3)[0] == 5
    assert ended([5, 4, 4, 4, 4, 1], None)[0] == 6
    assert ended([5, 4, 4, 3, 4, 4], 3)[0] == 6


def test_epochs_without_validation_are_waited_for_too():
    assert ended([9, 4, 9, 4, 9, 4, 9, 4], 3, interval=2)[0] == 6


def test_it_is_given_time_to_begin_and_remembers_when_it_is_resumed():
    assert ended([1, 2, 2, 2, 2, 2, 2], 2, warm_up=4)[0] == 6
    assert ended([4, 4, 4], 3, first={"best": 3.0, "best_epoch": -2})[0] == 1


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_trainer_keeps_what_learns_with_its_network(keep):
    def trainer(loss, **options):
        made = network()
        optimizer = torch.optim.Adam(made.parameters())
        return SiteTrainer(torch.device("cpu"), 1, [], made, optimizer, loss, **options)

    sites = sites_of(ITEMS, ["S1"])
    heads = trainer(site_loss("dann", sites, 4), keep=keep)
    assert set(heads.also_kept) == {"loss"}
    assert heads.latest_is_best == (keep == "last")
    assert trainer(site_loss("learn_to_ignore", sites, 4)).also_kept == {}
    with pytest.raises(ValueError, match="keep must be best or last"):
        trainer(nn.MSELoss(), keep="all")
