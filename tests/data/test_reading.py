import gzip
import re
import struct
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.affines import from_matvec
from PIL import Image
from scipy.spatial.transform import Rotation

from common.data.checks import check_film
from common.data.reading import read_film, read_nifti, read_nifti_channels, unusual_header
from common.files import BadFileError

CT = np.random.default_rng(0).integers(-1000, 400, (8, 7, 6)).astype(np.int16)
CT[0, 0, :2] = -1000, 400
AFFINE = np.array([[-2.0, 0, 0, 90], [0, -3, 0, 70], [0, 0, 5, -300], [0, 0, 0, 1]])
DIM, DATATYPE, SROW_X = 40, 70, 280
"""Where these stand in the header of NIfTI-1, bytes."""


def save(voxels, path, affine=AFFINE):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def save_with_header(path, position, layout, *values, voxels=CT):
    """Write a file that says something else in its header."""
    content = bytearray(nib.Nifti1Image(voxels, AFFINE).to_bytes())
    struct.pack_into(f"<{layout}", content, position, *values)
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)


def write_cut_off(path):
    path.write_bytes(save(CT, path).read_bytes()[:-40])


def write_flipped_byte(path, position, compresslevel=9):
    content = bytearray(gzip.compress(nib.Nifti1Image(CT, AFFINE).to_bytes(), compresslevel, mtime=0))
    content[position] ^= 0xFF
    path.write_bytes(content)


def write_not_finite(value):
    voxels = CT.astype(np.float32)
    voxels[1, 2, 3] = value
    return lambda path: save(voxels, path)


def write_rgb(path):
    save(np.zeros((8, 7, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), path)


UNREADABLE = "readable NIfTI file, got one that is damaged or cut off"
MALFORMED = {
    "none there": (lambda path: None, "a NIfTI file, got none there"),
    "folder": (lambda path: path.mkdir(), "a NIfTI file, got none there"),
    "empty": (lambda path: path.write_bytes(b""), UNREADABLE),
    "text": (lambda path: path.write_text("404: not found"), UNREADABLE),
    "cut off": (write_cut_off, UNREADABLE),
    "cut off in the header": (lambda path: path.write_bytes(save(CT, path).read_bytes()[:90]), UNREADABLE),
    "code that cannot be unpacked": (lambda path: write_flipped_byte(path, 10), UNREADABLE),
    "header larger than the file": (lambda path: save_with_header(path, DIM + 6, "h", 600), UNREADABLE),
    "header larger than any scan": (
        lambda path: save_with_header(path, DIM + 2, "3h", *[32767] * 3),
        "at most 1073741824 voxels, got 32767 x 32767 x 32767",
    ),
    "negative size": (lambda path: save_with_header(path, DIM + 2, "h", -8), UNREADABLE),
    "NaN": (write_not_finite(np.nan), "finite values, got 1 voxels NaN or infinite"),
    "infinite": (write_not_finite(np.inf), "finite values, got 1 voxels NaN or infinite"),
    "minus infinite": (write_not_finite(-np.inf), "finite values, got 1 voxels NaN or infinite"),
    "colours": (write_rgb, "one number a voxel, got values of type"),
    "complex": (lambda path: save(CT.astype(np.complex64), path), "one number a voxel, got values of type complex"),
    "frames": (lambda path: save(np.stack([CT] * 2, -1), path), r"a slice or a volume, got 4 axes of \(8, 7, 6, 2\)"),
    "5 axes": (lambda path: save(np.stack([np.stack([CT] * 2, -1)] * 3, -1), path), "a slice or a volume, got 5 axes"),
    "a line": (lambda path: save(CT[:, 0, 0], path), r"a slice or a volume, got 1 axes of \(8,\)"),
    "singular affine": (lambda path: save_with_header(path, SROW_X, "3f", 0, 0, 0), "an affine that can be inverted"),
    "slice that is not axial": (
        lambda path: save(CT[..., 0], path, AFFINE[[2, 0, 1, 3]]),
        "an axial slice or a volume, got a slice with affine",
    ),
    "affine NaN": (lambda path: save_with_header(path, SROW_X, "f", np.nan), "an affine that can be inverted"),
}


@pytest.mark.parametrize(("write", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_with_the_reason(tmp_path, write, reason):
    write(tmp_path / "a.nii.gz")
    with pytest.raises(BadFileError, match=f"expected {'a ' * reason.startswith('readable')}{reason}"):
        read_nifti(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("write", [write for write, _ in MALFORMED.values()], ids=MALFORMED)
def test_the_refusal_is_one_sentence_that_begins_with_the_file(tmp_path, write):
    path = tmp_path / "Bauch von März.nii.gz"
    write(path)
    with pytest.raises(BadFileError) as refused:
        read_nifti(path)
    assert re.fullmatch(rf"{re.escape(str(path))}: expected .+, got .+\.", str(refused.value))


@pytest.mark.parametrize("name", ["header larger than the file", "header larger than any scan", "negative size"])
def test_a_malformed_header_is_refused_without_compression_too(tmp_path, name):
    write, reason = MALFORMED[name]
    write(tmp_path / "a.nii")
    with pytest.raises(BadFileError, match=reason):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.nii.gz", "A.NII.GZ"])
def test_voxels_that_do_not_agree_with_the_check_sum_are_refused(tmp_path, name):
    write_flipped_byte(tmp_path / name, -100, compresslevel=0)  # so that every code can be unpacked
    with pytest.raises(BadFileError, match=UNREADABLE):
        read_nifti(tmp_path / name)


def test_an_unknown_type_of_voxels_is_refused(tmp_path):
    save_with_header(tmp_path / "a.nii", DATATYPE, "h", 9999)
    with pytest.raises(BadFileError, match=UNREADABLE):
        read_nifti(tmp_path / "a.nii")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.integers(0, 351), st.integers(0, 255))
def test_a_damaged_byte_of_the_header_never_ends_in_another_error(tmp_path, position, value):
    save_with_header(tmp_path / "a.nii", position, "B", value)
    with suppress(BadFileError):
        assert np.isfinite(read_nifti(tmp_path / "a.nii")[0]).all()


def test_a_value_beyond_float32_is_refused(tmp_path):
    voxels = CT.astype(np.float64)
    voxels[1, 2, 3] = 1e300
    with pytest.raises(BadFileError, match="finite values, got 1 voxels NaN or infinite in float32"):
        read_nifti(save(voxels, tmp_path / "a.nii"))


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f4", "f8", ">i2", ">f4"])
def test_all_types_of_numbers_are_read_as_float32(tmp_path, dtype):
    voxels = np.abs(CT // 8).astype(dtype)
    nib.Nifti1Image(voxels, AFFINE, dtype=dtype).to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii")[0], voxels.astype(np.float32), strict=True)


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image(CT, AFFINE)
    image.header.set_slope_inter(0.5, -24)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz")[0], 0.5 * CT - 24)


def test_the_affine_is_read(tmp_path):
    np.testing.assert_array_equal(read_nifti(save(CT, tmp_path / "a.nii.gz"))[1], AFFINE)


def test_the_only_frame_of_four_axes_is_a_volume(tmp_path):
    np.testing.assert_array_equal(read_nifti(save(CT[..., None], tmp_path / "a.nii.gz"))[0], CT)


@pytest.mark.parametrize("voxels", [CT[..., 0], CT[..., :1]], ids=["2-D", "volume of one"])
def test_a_slice_keeps_its_axes(tmp_path, voxels):
    assert read_nifti(save(voxels, tmp_path / "a.nii.gz"))[0].shape == voxels.shape


@pytest.mark.parametrize("name", ["with spaces.nii", "Bauch ✓ März.nii.gz", "a.b.nii"])
def test_names_may_hold_spaces_unicode_and_dots(tmp_path, name):
    assert read_nifti(save(CT, tmp_path / name))[0].shape == CT.shape


def test_volumes_of_one_file_are_read_together(tmp_path):
    stacked = np.stack([CT, CT + 1, CT + 2], -1)
    voxels, affine = read_nifti_channels(save(stacked, tmp_path / "a.nii.gz"), 3)
    np.testing.assert_array_equal(voxels, stacked.astype(np.float32), strict=True)
    np.testing.assert_array_equal(affine, AFFINE)


@pytest.mark.parametrize("voxels", [CT, np.stack([CT] * 3, -1)], ids=["one", "three"])
def test_another_number_of_volumes_is_refused(tmp_path, voxels):
    with pytest.raises(BadFileError, match=r"a.nii.gz: expected 4 volumes, got \d axes of \(8, 7, 6"):
        read_nifti_channels(save(voxels, tmp_path / "a.nii.gz"), 4)


FILM = np.arange(120, dtype=np.uint8).reshape(12, 10)


def save_film(path, pixels=FILM):
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "Röntgen 1.png", "a.npy"])
def test_a_film_is_read_with_its_columns_first(tmp_path, name):
    np.testing.assert_array_equal(read_film(save_film(tmp_path / name)), FILM.T.astype(np.float32), strict=True)


def test_a_film_of_16_bits_is_read(tmp_path):
    np.testing.assert_array_equal(read_film(save_film(tmp_path / "a.png", FILM * np.uint16(500)))[9, 11], 119 * 500)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float16, np.float64, np.bool_])
def test_an_array_of_any_kind_of_number_is_a_film(tmp_path, dtype):
    film = read_film(save_film(tmp_path / "a.npy", FILM.astype(dtype)))
    np.testing.assert_array_equal(film, FILM.T.astype(dtype).astype(np.float32), strict=True)


def write_cut_off_film(path):
    content = save_film(path).read_bytes()
    path.write_bytes(content[: len(content) - 60])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "expected a picture, got none there"),
        (lambda path: path.write_bytes(b""), "expected a readable picture, got one that is damaged or cut off"),
        (lambda path: path.write_text("404: not found"), "expected a readable picture"),
        (write_cut_off_film, "expected a readable picture"),
        (
            lambda path: save_film(path, np.stack([FILM] * 3, -1)),
            "expected a picture in shades of grey, got one of mode RGB",
        ),
    ],
    ids=["none there", "empty", "text", "cut off", "colours"],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_malformed_film_is_refused_with_the_reason(tmp_path, name, write, reason):
    write(tmp_path / name)
    with pytest.raises(BadFileError, match=rf"{name}: {reason}.*\.$"):
        read_film(tmp_path / name)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b""), "expected a readable picture, got one that is damaged or cut off"),
        (lambda path: path.write_text("404: not found"), "expected a readable picture"),
        (write_cut_off_film, "expected a readable picture"),
        (lambda path: np.save(path, FILM.astype(object)), "expected a readable picture"),
        (lambda path: np.save(path, FILM[None]), r"expected .* rows and columns, got an array of \(1, 12, 10\)"),
        (lambda path: np.save(path, FILM[:0]), r"expected .* rows and columns, got an array of \(0, 10\)"),
        (lambda path: np.save(path, FILM * 1j), "expected one number a pixel, got values of type complex128"),
        (lambda path: np.save(path, np.where(FILM > 110, np.nan, FILM)), "expected finite values, got 9 pixels NaN"),
        (lambda path: np.save(path, FILM * 1e300), "expected finite values, got 119 pixels NaN or infinite in float32"),
    ],
    ids=["empty", "text", "cut off", "objects", "axes", "no rows", "complex", "NaN", "too large"],
)
def test_a_malformed_array_is_refused_with_the_reason(tmp_path, write, reason):
    write(tmp_path / "a.npy")
    with pytest.raises(BadFileError, match=rf"a.npy: {reason}.*\.$"):
        read_film(tmp_path / "a.npy")


def test_a_constant_film_is_refused_and_a_constant_mask_read(tmp_path):
    empty = read_film(save_film(tmp_path / "a.png", 0 * FILM))
    assert not empty.any()
    with pytest.raises(BadFileError, match=r"a.png: expected an image, got the same value 0 everywhere\."):
        check_film(empty, tmp_path / "a.png")
    check_film(FILM, tmp_path / "a.png")


def test_a_film_too_large_to_be_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(BadFileError, match=r"a.png: expected a readable picture"):
        read_film(save_film(tmp_path / "a.png"))


def save_with_forms(path, sform, qform, codes=(1, 1), pixdim=None, unit="mm", voxels=CT):
    """Write a file whose sform and qform are as they are given."""
    header = nib.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_qform(qform, code=codes[1])
    header.set_sform(sform, code=codes[0])
    header.set_xyzt_units(unit)
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    nib.save(nib.Nifti1Image(voxels, None, header), path)
    return path


TRUE = np.diag([3.0, 3, 5, 1])


def test_where_the_sform_has_lost_the_voxel_sizes_the_qform_is_taken(tmp_path):
    path = save_with_forms(tmp_path / "a.nii", np.eye(4), TRUE)
    np.testing.assert_array_equal(read_nifti(path)[1], TRUE)
    assert unusual_header(path) == []


def test_where_the_voxel_sizes_are_lost_the_sform_is_taken_with_a_remark(tmp_path):
    path = save_with_forms(tmp_path / "a.nii", TRUE, TRUE, pixdim=[1, 1, 1])
    np.testing.assert_array_equal(read_nifti(path)[1], TRUE)
    assert "says voxels of 1 x 1 x 1 mm and of 3 x 3 x 5 mm" in unusual_header(path)[0]


def test_two_sizes_are_said_whichever_is_taken(tmp_path):
    path = save_with_forms(tmp_path / "a.nii", TRUE, TRUE, pixdim=[2, 2, 2])
    np.testing.assert_array_equal(read_nifti(path)[1], np.diag([2, 2, 2, 1]))
    assert unusual_header(path) == [
        "its header says voxels of 3 x 3 x 5 mm and of 2 x 2 x 2 mm, of which the latter are taken"
    ]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ"])
def test_a_file_that_goes_on_after_its_last_voxel_is_remarked_on(tmp_path, name):
    save_with_header(tmp_path / name, DIM + 6, "h", 3)
    (said,) = unusual_header(tmp_path / name)
    assert "goes on after the last voxel" in said


def test_an_sform_that_fits_the_voxel_sizes_is_taken(tmp_path):
    shifted = from_matvec(TRUE[:3, :3], [1, 2, 3])
    path = save_with_forms(tmp_path / "a.nii", shifted, TRUE)
    np.testing.assert_array_equal(read_nifti(path)[1], shifted)


def test_an_sform_that_is_rounded_hardly_moves_an_oblique_image(tmp_path):
    exact = from_matvec(Rotation.from_euler("zx", [12, 7], degrees=True).as_matrix() * [3, 3, 5], [0, 0, 0])
    path = save_with_forms(tmp_path / "a.nii", np.round(exact, 1), exact)
    np.testing.assert_allclose(read_nifti(path)[1], exact, atol=1e-6)
    assert unusual_header(path) == []


@pytest.mark.parametrize("shape", [(8, 7, 6, 1), (8, 7, 6, 1, 1)])
def test_axes_of_length_1_after_the_third_are_dropped(tmp_path, shape):
    np.testing.assert_array_equal(read_nifti(save(CT.reshape(shape), tmp_path / "a.nii"))[0], CT)


def test_channels_on_the_fifth_axis_are_those_of_the_fourth(tmp_path):
    stacked = np.stack([CT, CT + 1, CT + 2], -1)
    path = save(stacked[:, :, :, None], tmp_path / "a.nii")  # as ITK writes vectors
    np.testing.assert_array_equal(read_nifti_channels(path, 3)[0], stacked)


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        ({"codes": (0, 0)}, "does not say how it lies"),
        ({"unit": "micron"}, "sizes in micron"),
        ({"unit": "meter"}, "sizes in meter"),
        ({"codes": (1, 0), "pixdim": [1, 1, 1]}, "says voxels of 1 x 1 x 1 mm and of 3 x 3 x 5 mm"),
        ({"sform": np.diag([300.0, 300, 500, 1]), "qform": np.diag([300.0, 300, 500, 1])}, "no scanner for people"),
        ({"sform": np.diag([0.003, 0.003, 5, 1]), "qform": np.diag([0.003, 0.003, 5, 1])}, "no scanner for people"),
    ],
    ids=["no codes", "micron", "metre", "two sizes", "300 mm", "3 um"],
)
def test_what_is_odd_in_a_header_is_said(tmp_path, options, remark):
    path = save_with_forms(tmp_path / "a.nii", **{"sform": TRUE, "qform": TRUE, **options})
    (said,) = unusual_header(path)
    assert remark in said


def test_a_header_as_most_are_is_nothing_unusual(tmp_path):
    assert unusual_header(save(CT, tmp_path / "a.nii.gz")) == []
    assert unusual_header(save_with_forms(tmp_path / "b.nii", TRUE, TRUE, codes=(0, 1))) == []


def test_a_film_is_turned_as_its_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(FILM).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(np.rot90(FILM, -1)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_film(tmp_path / "a.png"), read_film(tmp_path / "b.png"))


def test_a_film_of_several_frames_is_refused(tmp_path):
    frames = [Image.fromarray(FILM), Image.fromarray(255 - FILM)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(BadFileError, match=r"a.png: expected one picture, got 2 frames\."):
        read_film(tmp_path / "a.png")
