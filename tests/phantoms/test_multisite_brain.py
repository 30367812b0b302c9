import numpy as np
import pytest
from scipy.ndimage import label

from common.phantoms.multisite_brain import SITES, cases_of, multisite_brain


def test_the_same_arguments_give_the_same_case_and_others_another():
    first, again, other = (multisite_brain(seed, "S1", True) for seed in (0, 0, 1))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.image, multisite_brain(0, "S2", True).image)


@pytest.mark.parametrize("site", SITES)
def test_lesions_are_dark_spots_that_healthy_cases_do_not_have(site):
    found = []
    for seed in range(5):
        healthy, diseased = (multisite_brain(seed, site, diseased) for diseased in (False, True))
        assert not healthy.lesions.any()
        inside = diseased.lesions > 0
        assert 1 <= label(inside, np.ones((3, 3, 3)))[1] <= 10
        found.append((diseased.image[inside].mean() - healthy.image[inside].mean()) / 1000)
    assert np.mean(found) < -0.05


def test_outside_the_brain_all_is_0_and_nothing_is_inside():
    brain = multisite_brain(0, "S1", True)
    assert brain.image.min() == 0
    assert 0.2 < (brain.image > 0).mean() < 0.6
    assert brain.image[brain.lesions > 0].min() > 0


def test_sites_differ_in_how_bright_noisy_and_old_they_are():
    def rough(site):
        image = multisite_brain(3, site, False).image[12:28, 8:14, 20]
        return np.diff(image, axis=0).std() / image.mean()

    assert rough("S2") > 1.5 * rough("HCP")

    def dark(site):
        return np.mean([(multisite_brain(seed, site, False).image[10:30, 10:30, 20] < 300).mean() for seed in range(8)])

    assert dark("ADNI") > 1.2 * dark("HCP")


def test_there_are_as_many_cases_as_in_the_paper():
    splits = cases_of()
    assert [len(cases) for cases in splits.values()] == [843, 58, 90]
    assert len({(site, seed) for cases in splits.values() for site, _, seed in cases}) == 991
    kinds = {site: {diseased for cell, diseased, _ in splits["training"] if cell == site} for site in SITES}
    assert [site for site, found in kinds.items() if len(found) > 1] == ["S1"]


def test_other_numbers_may_be_asked_for():
    splits = cases_of({"training": {"S1": [2, 1], "HCP": [3, 0]}, "testing": {"S1": [1, 1]}})
    assert [len(cases) for cases in splits.values()] == [6, 0, 2]
    assert [case[:2] for case in splits["training"]] == [("S1", False)] * 2 + [("S1", True)] + [("HCP", False)] * 3
    paper = cases_of()
    assert set(splits["testing"]) <= set(paper["testing"])
    for cells in ({"train": {}}, {"training": {"S9": [1, 1]}}):
        with pytest.raises(ValueError, match="cells must name splits"):
            cases_of(cells)


def test_cohorts_share_no_patient():
    first, second = (
        {(site, seed) for cases in cases_of(cohort=cohort).values() for site, _, seed in cases} for cohort in (0, 1)
    )
    assert not first & second


def test_other_sites_are_refused():
    with pytest.raises(ValueError, match=r"site must be one of S1, S2, .*, got 'S9'"):
        multisite_brain(0, "S9", False)
