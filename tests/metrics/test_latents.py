import numpy as np
import pytest

from common.metrics.latents import class_silhouette, map_of, site_probe

RNG = np.random.default_rng(0)


def test_sites_are_told_where_vectors_have_them_and_not_where_they_do_not():
    sites = np.repeat(["a", "b", "c"], 40).tolist()
    patients = list(range(120))
    plain = RNG.normal(size=(120, 4))
    told, chance = site_probe(plain + 10 * np.eye(3, 4)[np.repeat([0, 1, 2], 40)], sites, patients)
    assert (told, chance) == (1, pytest.approx(1 / 3))
    assert site_probe(plain, sites, patients)[0] < 0.5


def test_a_patient_is_not_told_by_another_image_of_it():
    """Vectors are those of the patient alone, and say nothing of the site."""
    patients = np.repeat(np.arange(40), 5)
    vectors = RNG.normal(size=(40, 20))[patients]
    sites = np.where(patients % 2, "a", "b").tolist()
    assert site_probe(vectors, sites, patients.tolist())[0] < 0.75


def test_sites_of_few_patients_are_left_out():
    sites = ["a"] * 10 + ["b"] * 4
    assert np.isnan(site_probe(RNG.normal(size=(14, 2)), sites, list(range(14)))).all()


def test_the_silhouette_tells_how_far_classes_are_apart():
    labels = [0] * 10 + [1] * 10
    near = RNG.normal(size=(20, 3))
    far = near + 20 * np.array(labels)[:, None]
    assert class_silhouette(far, labels) > 0.8 > 0.3 > class_silhouette(near, labels)
    assert np.isnan(class_silhouette(near, [0] * 20))


def test_vectors_become_points_the_same_ones_with_one_seed():
    vectors = RNG.normal(size=(12, 5))
    points = map_of(vectors)
    assert points.shape == (12, 2)
    np.testing.assert_array_equal(points, map_of(vectors))
    assert map_of(vectors[:3]).shape == (0, 2)
