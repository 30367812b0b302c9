import sys

import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from nibabel.orientations import aff2axcodes
from pydicom import dcmread
from pydicom.pixels import get_decoder
from pydicom.uid import BasicTextSRStorage, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from scipy.spatial.transform import Rotation

from ci.dicom_series import write_series
from common.data.checks import BadFileError
from common.data.dicom import patient_of, read_series, series_in

CT = np.random.default_rng(0).integers(-1000, 400, (6, 5, 4)).astype(np.int16)
LARGE_CT = np.random.default_rng(1).integers(-1000, 400, (32, 40, 3)).astype(np.int16)
LPS_TO_RAS = np.diag([-1, -1, 1, 1])
SPACING = np.diag([2.0, 3.0, 5.0])
OBLIQUE = Rotation.from_euler("xyz", [20, -10, 35], degrees=True).as_matrix()
AFFINES = {
    "LPS": from_matvec(SPACING @ np.diag([-1, -1, 1]), [90, 70, -300]),
    "RAS": from_matvec(SPACING, [-90, -70, -300]),
    "feet first": from_matvec(SPACING @ np.diag([-1, -1, -1]), [90, 70, -300]),
    "oblique": from_matvec(OBLIQUE @ SPACING, [-90, 20, 12.5]),
    "sagittal": from_matvec(SPACING[[2, 0, 1]], [1, 2, 3]),
    "gantry tilt": from_matvec(SPACING @ np.diag([-1, -1, 1]) + [[0, 0, 0], [0, 0, 1.3], [0, 0, 0]], [90, 70, -300]),
}
LPS = AFFINES["LPS"]


def values_at(voxels, affine, world):
    return voxels[tuple(np.rint(apply_affine(np.linalg.inv(affine), world)).astype(int).T)]


def change(path, **tags):
    data = dcmread(path)
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(path)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_volume_written_and_read_back_has_the_same_values_at_the_same_places(tmp_path, affine):
    write_series(tmp_path, CT, affine)
    voxels, read_affine = read_series(tmp_path)
    places = apply_affine(affine, np.argwhere(np.ones(CT.shape)))
    np.testing.assert_array_equal(values_at(voxels, read_affine, places), CT.ravel())


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_pixels_lie_where_nibabel_finds_them_from_the_header(tmp_path, affine):
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    write_series(tmp_path, CT, affine)
    voxels, read_affine = read_series(tmp_path)
    k = 2
    stored = voxels[:, :, k] + 1024
    (path,) = [path for path in tmp_path.iterdir() if np.array_equal(dcmread(path).pixel_array.T, stored)]
    of_slice = LPS_TO_RAS @ wrapper_from_file(path).affine  # from (row, column, 0) to DICOM's world, LPS
    rows, columns = np.indices(CT.shape[1::-1]).reshape(2, -1)
    np.testing.assert_allclose(
        apply_affine(read_affine, np.stack([columns, rows, np.full_like(rows, k)], -1)),
        apply_affine(of_slice, np.stack([rows, columns, np.zeros_like(rows)], -1)),
        atol=1e-5,
    )


def test_a_header_of_the_standard_orientation_gives_axes_to_the_left_back_and_head(tmp_path):
    write_series(tmp_path, CT, AFFINES["RAS"], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    assert aff2axcodes(read_series(tmp_path)[1]) == ("L", "P", "S")


def test_the_first_voxel_lies_at_the_position_in_the_header_with_two_signs_turned(tmp_path):
    write_series(tmp_path, CT[:, :, :1], LPS, ImagePositionPatient=[-10, -20, 30])
    np.testing.assert_allclose(read_series(tmp_path)[1][:3, 3], [10, 20, 30])


def test_voxels_are_float32(tmp_path):
    write_series(tmp_path, CT, LPS)
    assert read_series(tmp_path)[0].dtype == np.float32


def test_each_slice_is_rescaled_by_its_own_header(tmp_path):
    files = write_series(tmp_path, CT, LPS)
    change(files[1], RescaleSlope=2, RescaleIntercept=-500)
    np.testing.assert_array_equal(read_series(tmp_path)[0][:, :, 1], (CT[:, :, 1] + 1024.0) * 2 - 500)


@pytest.mark.parametrize("compression", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=lambda uid: uid.keyword)
def test_compressed_series_give_the_same_voxels(tmp_path, compression):
    write_series(tmp_path, LARGE_CT, LPS, compression=compression)
    np.testing.assert_array_equal(read_series(tmp_path)[0], LARGE_CT)


def test_a_single_slice_is_as_thick_as_its_header_says(tmp_path):
    write_series(tmp_path, CT[:, :, :1], LPS)
    assert read_series(tmp_path)[1][2, 2] == 5


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even_enough(tmp_path):
    files = write_series(tmp_path, CT, LPS)
    for path, z in zip(files, ("0.0", "1.2", "2.5", "3.8"), strict=True):
        change(path, ImagePositionPatient=["-90", "-70", z])
    assert read_series(tmp_path)[1][2, 2] == pytest.approx(1.25, abs=0.02)


def test_a_missing_slice_is_refused(tmp_path):
    write_series(tmp_path, CT, LPS)[1].unlink()
    with pytest.raises(BadFileError, match="got gaps of 5 to 10 mm"):
        read_series(tmp_path)


def test_a_slice_off_the_even_grid_is_refused(tmp_path):
    files = write_series(tmp_path, CT, LPS)
    change(files[2], ImagePositionPatient=["-90", "-70", "-289.8"])
    with pytest.raises(BadFileError, match=r"0\.2 mm off"):
        read_series(tmp_path)


def test_two_slices_at_one_position_are_refused(tmp_path):
    files = write_series(tmp_path, CT, LPS)
    change(files[2], ImagePositionPatient=list(dcmread(files[1]).ImagePositionPatient))
    with pytest.raises(BadFileError, match="expected one slice at each position"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "MR"}, "expected modality CT"),
        ({"NumberOfFrames": 24}, "expected one slice a file, got an enhanced image of 24 frames"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "got a scout"),
        ({"ImagePositionPatient": None}, "expected ImagePositionPatient in the header"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "expected size, orientation and pixel spacing of"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two unit vectors at right angles"),
        ({"PixelSpacing": [3, 2.5]}, "expected size, orientation and pixel spacing of"),
        ({"PixelSpacing": [3, 0]}, "a pixel spacing above 0 mm"),
        ({"PixelSpacing": ["nan", "nan"]}, "a rescale of finite numbers"),
        ({"ImagePositionPatient": ["nan", 0, 0]}, "expected a position, sizes and a rescale of finite numbers"),
        ({"ImagePositionPatient": [0, 0]}, "cannot reshape"),
        ({"RescaleSlope": "nan"}, "a rescale of finite numbers"),
        ({"Rows": 6, "Columns": 5}, "expected size, orientation and pixel spacing of"),
        ({"SamplesPerPixel": 3}, "expected one value a pixel"),
    ],
)
def test_a_slice_that_does_not_belong_is_named_with_the_reason(tmp_path, tags, reason):
    files = write_series(tmp_path, CT, LPS)
    change(files[-1], **tags)
    with pytest.raises(BadFileError, match=f"{files[-1].name}: .*{reason}"):
        read_series(tmp_path)


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize("compression", [None, JPEG2000Lossless], ids=["uncompressed", "JPEG 2000"])
@pytest.mark.parametrize("length", [150, 200, 500, -20])
def test_a_file_that_is_cut_off_is_named(tmp_path, length, compression):
    path = write_series(tmp_path, LARGE_CT, LPS, compression=compression)[0]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadFileError, match=f"{path.name}: expected a DICOM"):
        read_series(tmp_path)


def test_compressed_pixels_that_are_damaged_are_named(tmp_path):
    path = write_series(tmp_path, LARGE_CT, LPS, compression=JPEGLSLossless)[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1000] + bytes(200) + content[-800:])
    with pytest.raises(BadFileError, match=f"{path.name}: expected a DICOM slice that can be read and decoded"):
        read_series(tmp_path)


@pytest.mark.skipif(get_decoder(JPEGLosslessSV1).is_available, reason="a decoder of JPEG Lossless is installed")
def test_pixels_that_no_installed_decoder_reads_are_named_with_what_reads_them(tmp_path):
    path = write_series(tmp_path, LARGE_CT, LPS, compression=JPEGLSLossless)[0]
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.70"))  # JPEG Lossless
    with pytest.raises(BadFileError, match=rf"{path.name}: .*JPEG Lossless.*gdcm"):
        read_series(tmp_path)


def test_values_that_are_no_hounsfield_units_are_refused(tmp_path):
    write_series(tmp_path, CT, LPS, RescaleIntercept=0)
    with pytest.raises(BadFileError, match="expected a CT in Hounsfield units"):
        read_series(tmp_path)


def test_masks_give_their_stored_values_whatever_their_modality(tmp_path):
    mask = np.where(CT > 0, 255, 0).astype(np.uint8)
    write_series(tmp_path, mask, LPS, Modality="OT")
    np.testing.assert_array_equal(read_series(tmp_path, hu=False)[0], mask)


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(BadFileError, match="expected one DICOM series in a folder, got 0"):
        read_series(tmp_path)


def test_a_folder_of_two_series_is_refused(tmp_path):
    write_series(tmp_path, CT, LPS, uid="1.2.3")
    write_series(tmp_path, CT, LPS, uid="1.2.4", name="other_{}")
    with pytest.raises(BadFileError, match=r"got 2: 1\.2\.3, 1\.2\.4"):
        read_series(tmp_path)


def test_one_of_two_series_in_a_folder_is_read_by_its_files(tmp_path):
    write_series(tmp_path, CT, LPS, uid="1.2.3")
    write_series(tmp_path, CT[:, :, ::-1], LPS, uid="1.2.4", name="other_{}")
    np.testing.assert_array_equal(read_series(series_in(tmp_path)["1.2.4"])[0], CT[:, :, ::-1])


def test_series_in_passes_over_what_is_no_image(tmp_path):
    files = write_series(tmp_path, CT, LPS)
    report = dcmread(files[0])
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    del report.Rows, report.Columns, report.PixelData
    report.save_as(files[0])
    (tmp_path / "._image_1").write_bytes(b"\0\5\x16\7")
    assert series_in(tmp_path) == {"1.2.3": sorted(files[1:])}


def test_paths_may_have_spaces_and_unicode(tmp_path):
    write_series(tmp_path / "Größe 5 mm", CT, LPS, name="шар {}")
    assert read_series(tmp_path / "Größe 5 mm")[0].shape == CT.shape


def test_a_patient_has_the_same_pseudonym_in_two_series(tmp_path):
    first, second = (
        write_series(tmp_path / uid, CT[:, :, :1], LPS, uid=uid, PatientID="Doe 1970")[0] for uid in ("1.2", "1.3")
    )
    assert patient_of(first) == patient_of(second)


def test_a_pseudonym_does_not_hold_the_patients_id(tmp_path):
    (path,) = write_series(tmp_path, CT[:, :, :1], LPS, PatientID="Doe")
    assert "Doe" not in patient_of(path)


def test_without_patient_id_there_is_no_pseudonym(tmp_path):
    assert patient_of(write_series(tmp_path, CT[:, :, :1], LPS)[0]) is None


def test_without_pydicom_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    write_series(tmp_path, CT, LPS)
    monkeypatch.setitem(sys.modules, "pydicom", None)  # import then raises ModuleNotFoundError
    with pytest.raises(ImportError, match=r'pip install "monai-diffusion-bundles\[dicom\]"'):
        read_series(tmp_path)


def test_pydicom_before_3_is_too_old(tmp_path, monkeypatch):
    write_series(tmp_path / "series", CT, LPS)
    (tmp_path / "pydicom.py").write_text("__version__ = '2.4.4'")
    monkeypatch.delitem(sys.modules, "pydicom")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="pydicom 3 or newer"):
        read_series(tmp_path / "series")
