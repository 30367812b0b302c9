import numpy as np
import pytest
from downloads import write_kaggle_3m

from common.data.checks import BadFileError
from common.data.sources.glioma import find_kaggle_3m

CASE = "TCGA_CS_4941_19960909"
ALL = ("t1", "t1ce", "flair")


def find(src, sequences=ALL, masks="brains", with_skull=False):
    return find_kaggle_3m(src, sequences, str(src.parent / masks) if masks else None, with_skull)


def test_slices_are_stacked_by_number_within_the_brain(tmp_path):
    (scan,) = find(write_kaggle_3m(tmp_path, CASE))
    assert (scan.case, scan.patient, scan.site) == (CASE, "TCGA_CS_4941", "CS")
    volume = scan.read()
    assert [channel.ending for channel in volume.channels] == ["_t1", "_t1ce", "_flair"]
    flair = volume.channels[2].voxels
    assert flair.shape == (10, 12, 11)
    assert flair[5, 5].tolist() == [10.0 * number for number in range(1, 12)]
    assert not flair[0].any()
    assert volume.organ.sum() == 6 * 7 * 11
    assert volume.label[..., 3].sum() == 4 * 2  # the third row of the outline lies beyond the brain
    assert volume.label.sum() == 8
    assert volume.image_label == 1
    assert np.allclose(volume.affine, np.diag([-0.9375, -0.9375, 5, 1]))


def test_patients_without_a_sequence_are_left_out_unless_it_is_not_wanted(tmp_path, caplog):
    caplog.set_level("INFO")
    src = write_kaggle_3m(tmp_path, CASE, absent=(0,))
    write_kaggle_3m(tmp_path, "TCGA_DU_5849_19950405")
    assert [scan.site for scan in find(src)] == ["DU"]
    assert f"{CASE} is left out: it has no t1." in caplog.text
    assert [scan.site for scan in find(src, "flair")] == ["CS", "DU"]


def test_the_skull_may_be_left_on_where_that_is_said(tmp_path):
    src = write_kaggle_3m(tmp_path, CASE, brain=False)
    (scan,) = find(src, masks=None, with_skull=True)
    assert scan.read().channels[0].voxels.all()
    for masks, with_skull in ((None, False), ("brains", True)):
        with pytest.raises(ValueError, match=r"brain_masks must be a folder .* as these images have a skull"):
            find(src, masks=masks, with_skull=with_skull)


def test_what_does_not_fit_is_refused(tmp_path):
    src = write_kaggle_3m(tmp_path, CASE, brain=False)
    with pytest.raises(BadFileError, match=r"brains/TCGA_CS_4941_19960909.nii.gz"):
        find(src)[0].read()
    with pytest.raises(ValueError, match="sequences must be some of t1, flair, t1ce, got t2"):
        find(src, ("t2",))
    with pytest.raises(FileNotFoundError, match=r"expected TCGA_\*/"):
        find(tmp_path / "brains")
    next(src.rglob("*_3_mask.tif")).write_bytes(b"no picture")
    with pytest.raises(BadFileError, match="expected a picture"):
        find(src, masks=None, with_skull=True)[0].read()


def test_a_patient_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    src = write_kaggle_3m(tmp_path, CASE, brain=False)
    write_kaggle_3m(tmp_path, "TCGA_DU_5849_19950405", brain=False)
    write_kaggle_3m(tmp_path, "TCGA_HT_7473_19970826", brain=False)
    (src / CASE / f"{CASE}_6.tif").write_bytes(b"no picture")
    for path in src.glob("TCGA_DU_*/*[0-9].tif"):
        path.unlink()
    damaged, masks_alone, good = find(src, masks=None, with_skull=True)
    assert good.read().channels[0].voxels.any()
    with pytest.raises(BadFileError, match=rf"{CASE}_6.tif: expected a picture"):
        damaged.read()
    with pytest.raises(BadFileError, match="got masks alone"):
        masks_alone.read()
