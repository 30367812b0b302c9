import nibabel as nib
import numpy as np
import pytest
from downloads import SHAPE, write_kits

from common.data.checks import BadFileError
from common.data.sources.kidney import find_kits


def labels(src):
    return np.asarray(nib.load(src / "dataset" / "case_00000" / "segmentation.nii.gz").dataobj)


def test_cases_are_called_as_their_folders_and_those_without_labels_are_left_out(tmp_path):
    for number in range(3):
        write_kits(tmp_path, number)
    (tmp_path / "dataset" / "case_00001" / "segmentation.nii.gz").unlink()
    assert [scan.case for scan in find_kits(tmp_path)] == ["case_00000", "case_00002"]


def test_cysts_are_kidney_and_no_tumours(tmp_path):
    (scan,) = find_kits(write_kits(tmp_path))
    volume = scan.read()
    np.testing.assert_array_equal(volume.organ, labels(tmp_path) > 0)
    np.testing.assert_array_equal(volume.label, labels(tmp_path) == 2)


@pytest.mark.parametrize(("value", "reason"), [(0, "got an empty one"), (4, "values 0, 1, 2, 3")])
def test_other_labels_are_refused(value, reason, tmp_path):
    (scan,) = find_kits(write_kits(tmp_path, labels=np.full(SHAPE, value, np.uint8)))
    with pytest.raises(BadFileError, match=reason):
        scan.read()


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"imaging.nii.gz and"):
        find_kits(tmp_path)
