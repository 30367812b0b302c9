import nibabel as nib
import numpy as np
import pytest
from downloads import SHAPE, save, write_msd_pancreas

from common.data.checks import BadFileError
from common.data.sources.pancreas import find_msd_pancreas


def labels(src):
    return np.asarray(nib.load(src / "labelsTr" / "pancreas_001.nii.gz").dataobj)


def test_the_files_macos_leaves_are_no_cases(tmp_path):
    scans = find_msd_pancreas(write_msd_pancreas(tmp_path, (1, 4)))
    assert [scan.case for scan in scans] == ["pancreas_001", "pancreas_004"]


def test_the_organ_is_the_pancreas_with_its_tumour(tmp_path):
    (scan,) = find_msd_pancreas(write_msd_pancreas(tmp_path))
    np.testing.assert_array_equal(scan.read().organ, labels(tmp_path) > 0)


def test_the_label_is_the_tumour(tmp_path):
    (scan,) = find_msd_pancreas(write_msd_pancreas(tmp_path))
    np.testing.assert_array_equal(scan.read().label, labels(tmp_path) == 2)


def test_a_case_without_a_pancreas_is_refused(tmp_path):
    (scan,) = find_msd_pancreas(write_msd_pancreas(tmp_path))
    save(np.zeros(SHAPE, np.uint8), tmp_path / "labelsTr" / "pancreas_001.nii.gz")
    with pytest.raises(BadFileError, match=r"pancreas_001.nii.gz: expected a mask of the pancreas, got an empty one"):
        scan.read()
