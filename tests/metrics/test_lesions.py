import numpy as np
import pytest

from common.metrics.lesions import equivalent_diameter, examine_lesions, peak_to_point_mm


@pytest.fixture
def scan():
    """Three lesions: one found whole, one by a corner, one not; and a false finding beside a weak false peak."""
    truth, anomaly = np.zeros((30, 30, 8), dtype=bool), np.zeros((30, 30, 8))
    truth[2:6, 2:6, 1:3] = True
    truth[12:22, 2:12, 4:6] = True
    truth[25:27, 25:27, 6:8] = True
    anomaly[2:6, 2:6, 1:3] = 40
    anomaly[12, 2, 4] = 30
    anomaly[20:22, 20:22, 1] = 50
    anomaly[5, 20, 3] = 3
    return anomaly, anomaly > 10, truth


def test_overlaps_say_how_much_of_each_lesion_is_found(scan):
    record = examine_lesions(*scan, (1, 1, 1))
    assert record.overlaps.tolist() == [1.0, 1 / 200, 0.0]


def test_components_without_a_lesion_are_false(scan):
    assert examine_lesions(*scan, (1, 1, 1)).false_positives == 1


def test_a_component_that_touches_a_lesion_anywhere_is_not_false(scan):
    anomaly, mask, truth = scan
    mask[5:22, 5, 1:5] = True
    assert examine_lesions(anomaly, mask, truth, (1, 1, 1)).false_positives == 1


def test_peaks_are_told_apart(scan):
    record = examine_lesions(*scan, (1, 1, 1))
    assert record.lesion_peaks.tolist() == [40, 30, 0]
    assert set(record.false_peaks) == {50, 3}


def test_diameters_are_in_mm(scan):
    record = examine_lesions(*scan, (2, 2, 4))
    assert record.diameters_mm[0] == pytest.approx((6 * 32 * 16 / np.pi) ** (1 / 3))


def test_voxels_that_touch_by_a_corner_are_one_lesion():
    truth = np.zeros((4, 4, 4), dtype=bool)
    truth[1, 1, 1] = truth[2, 2, 2] = True
    assert len(examine_lesions(np.zeros((4, 4, 4)), truth & False, truth, (1, 1, 1)).overlaps) == 1


def test_a_slice_works_like_a_volume():
    truth = np.zeros((8, 8), dtype=bool)
    truth[2:4, 2:4] = True
    record = examine_lesions(truth * 5.0, truth, truth, (1, 1))
    assert record.overlaps.tolist() == [1.0]
    assert record.diameters_mm == pytest.approx(equivalent_diameter(np.array([4.0]), 2))


def test_without_lesions_everything_found_is_false():
    mask = np.zeros((8, 8, 2), dtype=bool)
    mask[1, 1, 0] = mask[5, 5, 1] = True
    record = examine_lesions(mask * 1.0, mask, mask & False, (1, 1, 1))
    assert record.false_positives == 2
    assert len(record.overlaps) == 0


def test_a_peak_is_as_far_from_a_point_as_the_patient_says():
    anomaly = np.zeros((5, 6, 4))
    anomaly[1, 2, 3] = 2
    affine = np.array([[-2, 0, 0, 10], [0, 3, 0, -5], [0, 0, 4, 100], [0, 0, 0, 1.0]])
    assert peak_to_point_mm(anomaly, [8, 1, 112], affine) == 0
    assert peak_to_point_mm(anomaly, [11, 5, 112], affine) == 5
    assert peak_to_point_mm(anomaly[..., 3], [8, 1, 100], affine) == 0
    assert np.isnan(peak_to_point_mm(0 * anomaly, [8, 1, 112], affine))
