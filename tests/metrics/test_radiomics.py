import numpy as np
import pytest

from common.metrics.radiomics import SHAPES, separability, tumour_features


def ball(radius=4, size=20):
    axes = np.ogrid[tuple(slice(n) for n in (size,) * 3)]
    return sum((x - size // 2) ** 2 for x in axes) <= radius**2


def image(std=10.0, seed=0):
    return 50 + std * np.random.default_rng(seed).standard_normal((20, 20, 20))


def test_a_ball_has_its_volume_and_is_round_and_a_rod_is_not():
    round_one = tumour_features(image(), ball(), (1, 1, 2))
    assert round_one["volume_mm3"] == ball().sum() * 2
    assert round_one["solidity"] > 0.8
    assert tumour_features(image(), ball(), (1, 1, 1))["elongation"] == pytest.approx(1, abs=0.05)
    rod = np.zeros((20, 20, 20), dtype=bool)
    rod[2:18, 9:12, 9:12] = True
    assert tumour_features(image(), rod, (1, 1, 1))["elongation"] < 0.3


def test_grey_values_and_texture_are_those_of_the_tumour():
    rough, smooth = (tumour_features(image(std), ball(), (1, 1, 1)) for std in (30, 3))
    assert rough["std"] > 5 * smooth["std"]
    assert rough["co-occurrence contrast"] > 2 * smooth["co-occurrence contrast"]
    assert smooth["mean"] == pytest.approx(50, abs=1)
    darker = np.where(ball(), image(), -500)
    assert tumour_features(darker, ball(), (1, 1, 1)) == tumour_features(image(), ball(), (1, 1, 1))


@pytest.mark.parametrize("voxels", [((5, 5, 5),), ((5, 5, 5), (5, 6, 5)), ((5, 5, 5), (6, 6, 6), (5, 5, 6))])
def test_a_tumour_of_few_voxels_has_finite_features(voxels):
    tumour = np.zeros((20, 20, 20), dtype=bool)
    for voxel in voxels:
        tumour[voxel] = True
    assert np.isfinite(list(tumour_features(image(), tumour, (1, 1, 1)).values())).all()


def drawn(shift, count=40):
    random = np.random.default_rng(0)
    kinds = [i % 2 for i in range(count)]
    features = [{"mean": random.normal() + shift * kind, "extent": random.normal()} for kind in kinds]
    return features, kinds, [i // 4 for i in range(count)]


def test_kinds_that_differ_are_told_apart_and_others_are_not():
    assert separability(*drawn(4.0)) > 0.95
    assert 0.2 < separability(*drawn(0.0)) < 0.8
    assert separability(*drawn(4.0), names=["extent"]) < 0.8


def test_a_patients_tumours_are_never_in_training_and_test():
    """What is constant within a patient, and only there, helps nobody."""
    random = np.random.default_rng(1)
    patients = [i // 4 for i in range(80)]
    own = random.normal(size=20)
    kinds = [patient % 2 for patient in patients]
    features = [{"mean": own[patient]} for patient in patients]
    assert 0.1 < separability(features, kinds, patients) < 0.9


def test_one_patient_of_a_kind_is_too_few():
    assert np.isnan(separability([{"mean": 0.0}, {"mean": 1.0}], [0, 1], ["a", "b"]))


def test_features_of_shape_are_named():
    assert set(SHAPES) < tumour_features(image(), ball(), (1, 1, 1)).keys()
