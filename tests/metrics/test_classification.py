from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from common.metrics.classification import class_statistics, examine_class, groups_of, reliability, summarise_classes

RNG = np.random.default_rng(0)


def records(labels, probability, sites=None):
    sites = sites or [""] * len(labels)
    return [
        examine_class(f"{i}", f"{i}", label, p, site)
        for i, (label, p, site) in enumerate(zip(labels, probability, sites, strict=True))
    ]


def drawn(num_classes, count=60):
    """Return labels, and probabilities that know something of them."""
    labels = [*range(num_classes), *RNG.integers(0, num_classes, count - num_classes).tolist()]
    scores = RNG.random((count, num_classes)) + 0.5 * np.eye(num_classes)[labels]
    return labels, scores / scores.sum(1, keepdims=True)


def values(made, **options):
    return {row["metric"]: row["value"] for row in summarise_classes(made, **options)}


def test_a_case_has_its_class_and_what_is_said_of_it_in_a_row():
    record = examine_class("a", "x", 1, np.array([0.25, 0.75]))
    assert record.row == {
        "case": "a",
        "patient": "x",
        "image_label": 1,
        "probability_0": 0.25,
        "probability_1": 0.75,
        "prediction": 1,
    }
    assert record.slice_rows == []


def test_the_site_of_a_case_is_a_column_where_it_is_known():
    record = examine_class("a", "a", 0, np.array([0.5, 0.25, 0.25]), site="ADNI")
    assert list(record.row)[:4] == ["case", "patient", "site", "image_label"]
    assert (record.row["site"], record.row["prediction"]) == ("ADNI", 0)


@pytest.mark.parametrize("image_label", [-1, 2])
def test_a_class_that_has_no_probability_is_refused(image_label):
    with pytest.raises(ValueError, match=f"image_label must be one of 0 to 1, got {image_label}"):
        examine_class("a", "a", image_label, np.array([0.5, 0.5]))


def test_two_classes_by_hand():
    found = values(records([0, 0, 1, 1], np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])))
    assert found == pytest.approx({"accuracy": 0.5, "kappa": 0, "AUROC": 0.75, "calibration error": 0.45})


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_the_numbers_are_those_of_scikit_learn(num_classes):
    labels, probability = drawn(num_classes)
    scores = probability[:, 1] if num_classes == 2 else probability
    found = values(records(labels, probability))
    assert found["accuracy"] == pytest.approx((probability.argmax(1) == labels).mean())
    assert found["kappa"] == pytest.approx(cohen_kappa_score(labels, probability.argmax(1)))
    assert found["AUROC"] == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_case_that_is_drawn_twice_counts_twice(num_classes):
    labels, probability = drawn(num_classes)
    times = RNG.integers(0, 3, len(labels))
    times[:num_classes] = 1
    again = records(np.repeat(labels, times).tolist(), np.repeat(probability, times, axis=0))
    for name, statistic in class_statistics(records(labels, probability)).items():
        assert statistic(times.astype(float)) == pytest.approx(class_statistics(again)[name](np.ones(len(again))))


def test_numbers_have_intervals_over_patients():
    for row in summarise_classes(records(*drawn(2)), num_resamples=50):
        assert row["low"] < row["value"] < row["high"]


def test_where_all_cases_are_of_one_class_there_is_no_auroc():
    found = values(records([1, 1], [[0.9, 0.1], [0.2, 0.8]]))
    assert (found["accuracy"], found["kappa"]) == (0.5, 0)
    assert np.isnan(found["AUROC"])


def test_where_all_are_called_so_there_is_no_kappa_either():
    found = values(records([1, 1], [[0.1, 0.9], [0.2, 0.8]]))
    assert found["accuracy"] == 1
    assert np.isnan([found["kappa"], found["AUROC"]]).all()


def test_a_class_without_a_case_leaves_no_auroc():
    assert np.isnan(values(records([0, 1], np.full((2, 3), 1 / 3)))["AUROC"])


def test_the_target_and_all_others_have_numbers_of_their_own():
    labels, probability = drawn(2)
    made = records(labels, probability, ["a", "b", "c"] * 20)
    found, target = values(made, target_sites=["a", "b"]), [r for r in made if r.site != "c"]
    assert found["target: AUROC"] == values(target)["AUROC"]
    assert found["source: AUROC"] == found["site c: AUROC"]
    assert {name: len(own) for name, own in groups_of(made, ["a"]).items()} == {"target": 20, "source": 40}
    assert groups_of(made) == {}


def test_metrics_that_a_site_has_not_are_left_out():
    found = values(records([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], ["a", "a", "b"]))
    assert "site b: accuracy" in found
    assert "site b: AUROC" not in found


def test_calibration_is_how_far_certainty_is_from_being_right():
    """Of ten cases that are called with 0.8, six are so; two more, called with 0.65, are both wrong."""
    labels = [1] * 6 + [0] * 4 + [0] * 2
    made = records(labels, np.array([[0.2, 0.8]] * 10 + [[0.35, 0.65]] * 2))
    assert values(made)["calibration error"] == pytest.approx((10 * 0.2 + 2 * 0.65) / 12)
    assert reliability(made) == [
        {"probability": pytest.approx(0.65), "true": 0.0, "cases": 2},
        {"probability": pytest.approx(0.8), "true": 0.6, "cases": 10},
    ]


def test_where_centres_are_known_the_nearest_one_is_an_answer_too():
    made = [replace(r, distance=np.array([0.1, 1.0])) for r in records([0, 0, 1], [[0.4, 0.6]] * 3)]
    assert values(made)["accuracy by the nearest centre"] == pytest.approx(2 / 3)


def test_each_site_has_numbers_of_its_own_after_those_of_all():
    labels, probability = drawn(2)
    sites = ["b"] * 40 + ["a"] * 15 + [""] * 5
    found, alone = values(records(labels, probability, sites)), values(records(labels[:40], probability[:40]))
    assert list(found) == [*alone, *(f"site {site}: {name}" for site in "ab" for name in alone)]
    assert found["accuracy"] == values(records(labels, probability))["accuracy"]
    assert {name: found[f"site b: {name}"] for name in alone} == alone
