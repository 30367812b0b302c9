import numpy as np
import pytest
from downloads import AFFINE, SHAPE, leave_macos_file, write_chaos
from PIL import Image

from common.data.checks import BadFileError
from common.data.sources.abdomen import find_chaos


def organs():
    """Return labels with a voxel of each organ in slices of their own."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 2, 0], labels[2, 1, 1], labels[3, 3, 2], labels[4, 2, 3] = 63, 126, 189, 252
    return labels


def read(src, structure="kidneys"):
    (scan,) = find_chaos(src, structure)
    return scan.read()


def test_cases_are_called_by_their_numbers(tmp_path):
    for case in (13, 2):
        write_chaos(tmp_path, case, organs())
    assert [(scan.case, scan.patient) for scan in find_chaos(tmp_path, "kidneys")] == [
        ("chaos_13", "chaos_13"),
        ("chaos_2", "chaos_2"),
    ]


def test_the_image_is_what_the_slices_hold(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 500, SHAPE).astype(np.uint16)
    write_chaos(tmp_path, 1, organs(), voxels)
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.channels[0].voxels, voxels)
    np.testing.assert_allclose(volume.affine, AFFINE)


@pytest.mark.parametrize(("structure", "levels"), [("kidneys", (126, 189)), ("liver", (63,)), ("spleen", (252,))])
def test_a_label_is_the_structure_in_the_slice_of_its_picture(tmp_path, structure, levels):
    write_chaos(tmp_path, 1, organs())
    np.testing.assert_array_equal(read(tmp_path, structure).label, np.isin(organs(), levels))


def test_slices_that_run_downwards_keep_their_labels(tmp_path):
    downwards = AFFINE @ np.diag([1.0, 1, -1, 1])
    write_chaos(tmp_path, 1, organs(), affine=downwards)
    np.testing.assert_array_equal(read(tmp_path).label, np.isin(organs(), (126, 189))[:, :, ::-1])


def test_cases_of_the_challenges_test_set_are_left_out(tmp_path):
    write_chaos(tmp_path, 1, organs())
    write_chaos(tmp_path, 2)
    assert [scan.case for scan in find_chaos(tmp_path, "kidneys")] == ["chaos_1"]


def test_other_sequences_and_hidden_files_are_passed_over(tmp_path):
    folder = write_chaos(tmp_path, 1, organs())
    (folder.parent / "T1DUAL" / "DICOM_anon" / "InPhase").mkdir(parents=True)
    leave_macos_file(folder / "DICOM_anon" / "IMG-0004-00001.dcm")
    assert read(tmp_path).label.sum() == 2


def test_a_slice_without_its_picture_is_refused(tmp_path):
    folder = write_chaos(tmp_path, 1, organs())
    next((folder / "Ground").iterdir()).unlink()
    with pytest.raises(BadFileError, match="expected a picture, got none there"):
        read(tmp_path)


def test_a_picture_of_another_size_is_refused(tmp_path):
    folder = write_chaos(tmp_path, 1, organs())
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(next((folder / "Ground").iterdir()))
    with pytest.raises(BadFileError, match=r"expected pixels of its own size, 6 x 5, in its place, got \(9, 9\)"):
        read(tmp_path)


def test_other_grey_levels_are_refused(tmp_path):
    write_chaos(tmp_path, 1, organs() + 1)
    with pytest.raises(BadFileError, match="expected a mask of the values 0, 63, 126, 189, 252, got also 1, 64"):
        read(tmp_path)


def test_a_case_without_the_structure_is_refused(tmp_path):
    write_chaos(tmp_path, 1, np.where(organs() == 63, organs(), 0).astype(np.uint8))
    with pytest.raises(BadFileError, match="expected a mask of the kidneys, got an empty one"):
        read(tmp_path)


def test_a_constant_image_is_refused(tmp_path):
    write_chaos(tmp_path, 1, organs(), np.ones(SHAPE, np.uint16))
    with pytest.raises(BadFileError, match="DICOM_anon: expected"):
        read(tmp_path)


def test_two_series_in_a_folder_are_refused(tmp_path):
    folder = write_chaos(tmp_path, 1, organs())
    other = write_chaos(tmp_path / "other", 2)
    for path in (other / "DICOM_anon").iterdir():
        content = path.read_bytes().replace(b"1.2.3", b"1.2.4")
        (folder / "DICOM_anon" / f"other_{path.name}").write_bytes(content)
    with pytest.raises(BadFileError, match="expected one DICOM series, got 2"):
        find_chaos(tmp_path / "Train_Sets", "kidneys")[0].read()


def test_an_unknown_structure_is_refused(tmp_path):
    with pytest.raises(ValueError, match="structure must be one of liver, kidneys, spleen, got 'gall bladder'"):
        find_chaos(tmp_path, "gall bladder")


def test_a_folder_without_chaos_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="T2SPIR/DICOM_anon, got none there"):
        find_chaos(tmp_path, "kidneys")
