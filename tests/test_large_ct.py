"""A CT as large as those of scanners, made of a small one."""

import nibabel as nib
import numpy as np
import pytest

from ci.large_ct import AIR, large_ct


@pytest.mark.parametrize("mask", [False, True])
def test_slices_go_up_and_down_again_and_have_air_around_them(tmp_path, mask):
    voxels = np.zeros((10, 12, 3), np.int16)
    voxels[2:8, 2:8] = np.array([1, 2, 3]) * (1 if mask else 50)
    nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 3, 5, 1])), tmp_path / "small.nii.gz")
    large_ct(str(tmp_path / "small.nii.gz"), str(tmp_path / "made" / "large.nii.gz"), 1.5, 32, 7, mask)
    image = nib.load(tmp_path / "made" / "large.nii.gz")
    made = np.asarray(image.dataobj)
    assert made.shape == (32, 32, 7)
    assert np.allclose(image.header.get_zooms(), (1.5, 1.5, 5))
    assert made[0, 0, 0] == (0 if mask else AIR)
    highest = made.max((0, 1)) / (1 if mask else 50)
    assert highest.round().tolist() == [1, 2, 3, 3, 2, 1, 1]
