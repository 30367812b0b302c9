import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from common.metrics.combat import combat

RNG = np.random.default_rng(0)
SITES = {"T": (40, 40), "A": (0, 60), "B": (60, 0)}
SHIFT = {"T": 0.0, "A": 3.0, "B": -2.0}
SPREAD = {"T": 1.0, "A": 2.0, "B": 0.5}
CLASS = RNG.normal(size=12)


def drawn(cells):
    """Return vectors that are moved and stretched by their site, and by their class."""
    vectors, sites, labels = [], [], []
    for site, counts in cells.items():
        for label, count in enumerate(counts):
            noise = RNG.normal(size=(count, 12))
            vectors.append(SPREAD[site] * noise + SHIFT[site] + label * CLASS)
            sites += [site] * count
            labels += [label] * count
    return np.concatenate(vectors), sites, np.array(labels)


def test_sites_are_brought_together_and_classes_stay_apart():
    vectors, sites, labels = drawn(SITES)
    adjusted = combat(vectors, sites, labels).adjust(vectors, sites)
    place = np.array(sites)
    healthy = [adjusted[(place == site) & (labels == 0)] for site in "TB"]
    assert np.abs(healthy[0].mean(0) - healthy[1].mean(0)).mean() < 0.5
    assert healthy[1].std() / healthy[0].std() == pytest.approx(1, abs=0.15)
    found = adjusted[labels == 1].mean(0) - adjusted[labels == 0].mean(0)
    assert np.corrcoef(found, CLASS)[0, 1] > 0.8


def test_a_classifier_of_adjusted_vectors_holds_where_a_plain_one_has_learned_the_sites():
    vectors, sites, labels = drawn(SITES)
    new, at, truth = drawn({"A": (60, 0), "B": (0, 60)})
    model = combat(vectors, sites, labels)
    plain = LogisticRegression(max_iter=1000).fit(vectors, labels).score(new, truth)
    fair = LogisticRegression(max_iter=1000).fit(model.adjust(vectors, sites), labels)
    assert fair.score(model.adjust(new, at), truth) > plain + 0.2


def test_vectors_of_a_new_site_stay_as_they_are():
    model = combat(*drawn(SITES))
    vectors = RNG.normal(size=(3, 12))
    np.testing.assert_array_equal(model.adjust(vectors, ["new"] * 3), vectors)


def test_sites_that_cannot_be_told_from_classes_are_refused():
    with pytest.raises(ValueError, match="sites and classes cannot be told apart"):
        combat(*drawn({"A": (0, 10), "B": (10, 0)}))
    with pytest.raises(ValueError, match="two sites or more"):
        combat(*drawn({"T": (5, 5)}))
