import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ci.dicom_series import write_series
from common.data.checks import BadFileError
from common.data.sources import liver
from common.data.sources.liver import find_dicom, find_ircad, find_lits, find_msd_liver, find_nifti

CT = np.random.default_rng(0).integers(-1000, 400, (5, 4, 3)).astype(np.int16)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, -3, 0, 70], [0, 0, 5, -300], [0, 0, 0, 1]])
LIVER, LESION = np.zeros((5, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)
LIVER[1:4, 1:3, 1:], LESION[2, 1, 1] = 1, 1


def save(voxels, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def touch(*paths):
    """Make empty files: a scan that is found is not read yet."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(scans):
    return [scan.case for scan in scans]


def read(scans):
    (scan,) = scans
    return scan.read()


def test_finding_reads_nothing(tmp_path):
    touch(tmp_path / "volume-0.nii", tmp_path / "segmentation-0.nii")
    (scan,) = find_lits(tmp_path)
    with pytest.raises(BadFileError, match=r"volume-0.nii"):
        scan.read()


def test_lits_is_in_the_order_of_its_numbers(tmp_path):
    touch(*[tmp_path / f"volume-{n}.nii" for n in (10, 2, 0, 100)])
    assert names(find_lits(tmp_path)) == ["volume-0", "volume-2", "volume-10", "volume-100"]


@pytest.mark.parametrize(
    "name",
    ["volume-1 copy.nii", "volume-.nii", "volume-1.png", "._volume-1.nii", "test-volume-1.nii", "volume-1.nii.zip"],
)
def test_other_files_beside_lits_are_passed_over(tmp_path, name):
    touch(tmp_path / "volume-0.nii", tmp_path / name)
    assert names(find_lits(tmp_path)) == ["volume-0"]


def test_lits_may_have_its_segmentations_in_a_folder_of_their_own(tmp_path):
    save(CT, tmp_path / "volumes" / "volume-3.nii.gz")
    save(LIVER + LESION, tmp_path / "masks" / "segmentation-3.nii")
    np.testing.assert_array_equal(read(find_lits(tmp_path)).label, LESION > 0)


def test_a_segmentation_without_its_volume_is_a_case_that_cannot_be_read(tmp_path):
    touch(tmp_path / "segmentation-4.nii")
    with pytest.raises(BadFileError, match=r"volume-4.nii: expected a NIfTI file, got none there"):
        read(find_lits(tmp_path))


def test_the_twenty_scans_of_ircad_are_left_out_of_lits_only_if_asked(tmp_path):
    touch(*[tmp_path / f"volume-{n}.nii" for n in range(131)])
    assert len(find_lits(tmp_path)) == 131
    assert len(find_lits(tmp_path, exclude_ircad=True)) == 111


def test_nothing_but_scans_of_ircad_is_nothing(tmp_path):
    touch(tmp_path / "volume-28.nii")
    with pytest.raises(FileNotFoundError, match=r"expected volume-<n>.nii and segmentation-<n>.nii, got none there"):
        find_lits(tmp_path, exclude_ircad=True)


def test_a_volume_has_hu_a_place_and_boolean_masks(tmp_path):
    save(CT, tmp_path / "volume-0.nii")
    save((LIVER + LESION).astype(np.float64), tmp_path / "segmentation-0.nii")
    volume = read(find_lits(tmp_path))
    np.testing.assert_array_equal(volume.channels[0].voxels, CT)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert [array.dtype for array in (volume.channels[0].voxels, volume.organ, volume.label)] == [
        np.float32,
        bool,
        bool,
    ]


@pytest.mark.parametrize("find", [find_lits, find_msd_liver])
def test_the_organ_contains_the_lesions(tmp_path, find):
    folders = ("", "") if find is find_lits else ("imagesTr/", "labelsTr/")
    files = ("volume-0", "segmentation-0") if find is find_lits else ("liver_0", "liver_0")
    save(CT, tmp_path / f"{folders[0]}{files[0]}.nii.gz")
    save(LIVER + LESION, tmp_path / f"{folders[1]}{files[1]}.nii.gz")
    volume = read(find(tmp_path))
    np.testing.assert_array_equal(volume.organ, LIVER > 0)
    assert (volume.label <= volume.organ).all()


def test_a_case_of_msd_without_label_is_named(tmp_path):
    save(CT, tmp_path / "imagesTr" / "liver_7.nii.gz")
    with pytest.raises(BadFileError, match=r"labelsTr/liver_7.nii.gz: expected a NIfTI file, got none there"):
        read(find_msd_liver(tmp_path))


def test_a_case_of_msd_without_image_is_named(tmp_path):
    save(LIVER, tmp_path / "labelsTr" / "liver_7.nii.gz")
    with pytest.raises(BadFileError, match=r"imagesTr/liver_7.nii.gz: expected a NIfTI file, got none there"):
        read(find_msd_liver(tmp_path))


def test_images_of_msd_without_labels_are_no_cases(tmp_path):
    touch(tmp_path / "imagesTs" / "liver_9.nii.gz")
    with pytest.raises(FileNotFoundError, match="expected imagesTr"):
        find_msd_liver(tmp_path)


@pytest.mark.parametrize(
    ("beside", "organ", "label"),
    [
        ((), None, None),
        (("_liver",), LIVER, None),
        (("_organ",), LIVER, None),
        (("_label",), None, LESION),
        (("_organ", "_label"), LIVER, LESION),
    ],
    ids=["nothing", "liver", "organ", "lesions", "both"],
)
def test_what_nobody_has_drawn_is_none(tmp_path, beside, organ, label):
    save(CT, tmp_path / "a.nii.gz")
    for suffix in beside:
        save(LESION if suffix == "_label" else LIVER, tmp_path / f"a{suffix}.nii.gz")
    volume = read(find_nifti(tmp_path))
    np.testing.assert_array_equal(volume.organ, organ)
    np.testing.assert_array_equal(volume.label, label)


def test_a_case_without_lesions_has_an_empty_mask_of_them(tmp_path):
    save(CT, tmp_path / "a.nii")
    save(0 * LESION, tmp_path / "a_label.nii")
    assert not read(find_nifti(tmp_path)).label.any()


def test_an_organ_mask_that_is_empty_is_refused(tmp_path):
    save(CT, tmp_path / "a.nii")
    save(0 * LIVER, tmp_path / "a_organ.nii")
    with pytest.raises(BadFileError, match=r"a_organ.nii: expected a mask of the liver, got an empty one"):
        read(find_nifti(tmp_path))


def test_lesions_do_not_stand_in_for_an_empty_organ_mask(tmp_path):
    save(CT, tmp_path / "a.nii")
    save(0 * LIVER, tmp_path / "a_liver.nii")
    save(LESION, tmp_path / "a_label.nii")
    with pytest.raises(BadFileError, match=r"a_liver.nii: expected a mask of the liver, got an empty one"):
        read(find_nifti(tmp_path))


def test_labels_of_several_lesions_are_refused_with_some_of_their_values(tmp_path):
    save(CT, tmp_path / "a.nii")
    save(np.arange(60, dtype=np.uint8).reshape(5, 4, 3), tmp_path / "a_label.nii")
    with pytest.raises(BadFileError, match=r"expected a mask of the values 0, 1, got also 2, 3, 4, 5, 6\.$"):
        read(find_nifti(tmp_path))


def test_names_of_nifti_files_may_hold_dots_and_the_words_of_masks(tmp_path):
    touch(*[tmp_path / name for name in ("a.b.nii", "a.b_label.nii", "liver.nii.gz", "my_liver_ct.nii")])
    assert names(find_nifti(tmp_path)) == ["a.b", "liver", "my_liver_ct"]


def test_folders_within_a_folder_of_nifti_files_are_passed_over(tmp_path):
    touch(tmp_path / "a.nii", tmp_path / "more" / "b.nii", tmp_path / "folder.nii" / "c.txt")
    assert names(find_nifti(tmp_path)) == ["a"]


def test_a_case_packed_and_unpacked_is_refused(tmp_path):
    touch(tmp_path / "a.nii", tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="expected one file called a, got"):
        find_nifti(tmp_path)


def test_a_single_slice_is_a_case(tmp_path):
    save(CT[:, :, 0], tmp_path / "a.nii")
    save(LIVER[:, :, 1], tmp_path / "a_liver.nii")
    volume = read(find_nifti(tmp_path))
    assert volume.channels[0].voxels.shape == volume.organ.shape == (5, 4)


def write_ircad(folder):
    write_series(folder / "PATIENT_DICOM", CT, AFFINE)
    write_series(folder / "MASKS_DICOM" / "liver", LIVER * np.uint8(255), AFFINE)
    return folder


def test_tumours_that_stick_out_of_an_ircad_liver_belong_to_it(tmp_path):
    outside = np.zeros_like(LIVER)
    outside[0, 0, 0] = 255
    write_series(write_ircad(tmp_path / "3Dircadb1.1") / "MASKS_DICOM" / "livertumor", outside, AFFINE)
    volume = read(find_ircad(tmp_path))
    np.testing.assert_array_equal(volume.organ, (LIVER > 0) | (outside > 0))


def test_cysts_of_an_ircad_liver_are_no_lesions(tmp_path):
    write_series(write_ircad(tmp_path / "3Dircadb1.1") / "MASKS_DICOM" / "liverkyst", LESION, AFFINE)
    assert not read(find_ircad(tmp_path)).label.any()


def test_a_grey_ircad_mask_is_refused(tmp_path):
    write_series(write_ircad(tmp_path / "a") / "MASKS_DICOM" / "livertumor01", LESION * np.uint8(7), AFFINE)
    with pytest.raises(BadFileError, match="livertumor01: expected a mask of the values 0, 1, 255, got also 7"):
        read(find_ircad(tmp_path))


def test_a_shifted_ircad_mask_is_refused(tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] += 2
    write_series(write_ircad(tmp_path / "a") / "MASKS_DICOM" / "livertumor01", LESION * np.uint8(255), shifted)
    with pytest.raises(BadFileError, match="livertumor01: expected the grid of"):
        read(find_ircad(tmp_path))


def test_a_folder_that_is_itself_an_ircad_patient_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(write_ircad(tmp_path / "3Dircadb1.5"))
    assert names(find_ircad(Path("."))) == ["3Dircadb1.5"]


def test_ircad_masks_are_read_in_the_place_of_the_image(tmp_path):
    volume = read(find_ircad(write_ircad(tmp_path / "a")))
    np.testing.assert_array_equal(volume.channels[0].voxels, CT)
    np.testing.assert_array_equal(volume.organ, LIVER > 0)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


def write_zip(folder, name, password=False):
    """Write a zip file of images with one file of 1000 bytes, which claims a password or not."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "PATIENT_DICOM.zip", "w") as archive:
        archive.writestr(name, bytes(1000))
        archive.infolist()[0].flag_bits |= password
    return folder


def test_a_zip_file_that_would_fill_the_disk_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(liver, "MAX_UNPACKED", 999)
    with pytest.raises(BadFileError, match=r"PATIENT_DICOM.zip: expected at most 999 bytes unpacked, got 1000"):
        read(find_ircad(write_zip(tmp_path / "a", "PATIENT_DICOM/image_0")))


@pytest.mark.parametrize("name", ["../image_0", "/image_0", "PATIENT_DICOM/../../image_0", "..\\image_0"])
def test_a_zip_file_with_names_that_lead_out_of_it_is_refused(tmp_path, name):
    with pytest.raises(BadFileError, match=r"PATIENT_DICOM.zip: expected files below its own folder, got .*image_0"):
        read(find_ircad(write_zip(tmp_path / "a", name)))


def test_a_zip_file_with_a_password_is_refused(tmp_path):
    with pytest.raises(BadFileError, match=r"PATIENT_DICOM.zip: expected a zip file without a password, got"):
        read(find_ircad(write_zip(tmp_path / "a", "PATIENT_DICOM/image_0", password=True)))


def test_a_folder_that_is_itself_a_series_has_its_name(tmp_path, monkeypatch):
    write_series(tmp_path / "Thorax", CT, AFFINE)
    monkeypatch.chdir(tmp_path / "Thorax")
    assert names(find_dicom(Path("."))) == ["Thorax"]


def test_a_series_without_patient_is_a_patient_of_its_own(tmp_path):
    write_series(tmp_path / "a", CT, AFFINE)
    write_series(tmp_path / "b", CT, AFFINE)
    assert [scan.patient for scan in find_dicom(tmp_path)] == ["a", "b"]


def test_the_patients_id_is_not_given_away(tmp_path):
    write_series(tmp_path / "a", CT, AFFINE, PatientID="Müller, 1950")
    (scan,) = find_dicom(tmp_path)
    assert scan.patient != scan.case
    assert "1950" not in scan.patient


def test_a_dicom_case_has_no_masks_and_no_nifti_file(tmp_path):
    write_series(tmp_path / "a", CT, AFFINE)
    (scan,) = find_dicom(tmp_path)
    volume = scan.read()
    assert (volume.channels[0].file, volume.organ, volume.label) == (None, None, None)
