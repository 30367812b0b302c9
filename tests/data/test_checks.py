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

from common.data.checks import (
    BadFileError,
    check_ct,
    check_film,
    check_mr,
    check_same_grid,
    read_film,
    read_nifti,
    read_nifti_channels,
    refuse_twins,
    unusual_ct,
    unusual_mr,
)

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
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


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
    "header larger than any memory": (lambda path: save_with_header(path, DIM + 2, "3h", *[32767] * 3), UNREADABLE),
    "negative size": (lambda path: save_with_header(path, DIM + 2, "h", -8), UNREADABLE),
    "NaN": (write_not_finite(np.nan), "finite values, got 1 voxels NaN or infinite"),
    "infinite": (write_not_finite(np.inf), "finite values, got 1 voxels NaN or infinite"),
    "minus infinite": (write_not_finite(-np.inf), "finite values, got 1 voxels NaN or infinite"),
    "colours": (write_rgb, "one number a voxel, got values of type"),
    "complex": (lambda path: save(CT.astype(np.complex64), path), "one number a voxel, got values of type complex"),
    "frames": (lambda path: save(np.stack([CT] * 2, -1), path), r"a slice or a volume, got 4 axes of \(8, 7, 6, 2\)"),
    "5 axes": (lambda path: save(CT[..., None, None].repeat(3, -1), path), "a slice or a volume, got 5 axes"),
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


@pytest.mark.parametrize("name", ["header larger than the file", "header larger than any memory", "negative size"])
def test_a_malformed_header_is_refused_without_compression_too(tmp_path, name):
    MALFORMED[name][0](tmp_path / "a.nii")
    with pytest.raises(BadFileError, match=UNREADABLE):
        read_nifti(tmp_path / "a.nii")


def test_voxels_that_do_not_agree_with_the_check_sum_are_refused(tmp_path):
    write_flipped_byte(tmp_path / "a.nii.gz", -100, compresslevel=0)  # so that every code can be unpacked
    with pytest.raises(BadFileError, match=UNREADABLE):
        read_nifti(tmp_path / "a.nii.gz")


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


def with_values(*values):
    """Return a CT with some of its voxels replaced."""
    voxels = CT.astype(np.float32)
    voxels.flat[: len(values)] = values
    return voxels


@pytest.mark.parametrize(
    "voxels",
    [CT, CT[..., 0], with_values(-3024), with_values(30000), np.clip(CT, -160, 240)],
    ids=["volume", "slice", "padding", "metal", "clipped to a window"],
)
def test_a_ct_is_accepted(voxels):
    check_ct(voxels.astype(np.float32), "a.nii")


@pytest.mark.parametrize(
    ("voxels", "came"),
    [
        (CT + 1024, "values from 24 to 1424"),
        (np.abs(CT) - np.abs(CT).min(), "values from 0 to 999"),
        ((CT + 1000) / 1400, "values from 0 to 1"),
        (CT / 1000, "values from -1 to 0.4"),
        (CT - 40000.0, "values from -41000 to"),
        (with_values(-32768), "values from -32768 to"),
        (np.where(CT < -100, CT + 65536.0, CT), "to 654"),
    ],
    ids=["stored values", "MR", "in [0, 1]", "in [-1, 1]", "underflow", "one voxel of underflow", "read as uint16"],
)
def test_what_is_no_hounsfield_unit_is_refused(voxels, came):
    with pytest.raises(BadFileError, match=rf"a.nii: expected a CT in Hounsfield units .*, got .*{came}"):
        check_ct(voxels.astype(np.float32), "a.nii")


def test_a_constant_image_is_refused():
    with pytest.raises(BadFileError, match=r"a.nii: expected an image, got the same value -1000 everywhere\."):
        check_ct(np.full((4, 4, 4), -1000, np.float32), "a.nii")


def test_a_ct_with_voxels_of_its_own_size_is_not_unusual():
    assert unusual_ct(CT.astype(np.float32), AFFINE) == []


def test_an_identity_affine_is_unusual_in_a_ct():
    (remark,) = unusual_ct(CT.astype(np.float32), np.eye(4))
    assert remark.startswith("its affine is the identity")


def test_an_mr_of_any_scale_is_accepted():
    for scale in (1e-3, 1, 1e4):
        check_mr(scale * np.abs(CT).astype(np.float32), "a.nii")


def test_a_constant_mr_is_refused():
    with pytest.raises(BadFileError, match=r"a.nii: expected an image, got the same value 0 everywhere\."):
        check_mr(np.zeros((4, 4, 4), np.float32), "a.nii")


MR_AFFINE = np.diag([-1.0, -1, 1, 1])


def brain(background=0.8, shape=(10, 10, 10)):
    """Return an MR of which a share is 0."""
    voxels = np.linspace(100, 1000, int(np.prod(shape)), dtype=np.float32)
    voxels[: round(background * voxels.size)] = 0
    return voxels.reshape(shape)


@pytest.mark.parametrize("shape", [(10, 10, 10), (40, 25), (40, 25, 1)], ids=["volume", "2-D", "volume of one slice"])
def test_an_mr_as_in_brats_is_not_unusual(shape):
    assert unusual_mr(brain(shape=shape), MR_AFFINE) == []


def test_what_resampling_leaves_below_0_is_not_unusual():
    voxels = brain()
    voxels[0, 0, :3] = -5
    assert unusual_mr(voxels, MR_AFFINE) == []


@pytest.mark.parametrize(
    ("voxels", "affine", "remarks"),
    [
        (brain(0.1), MR_AFFINE, ["it does not look skull-stripped, as only 10.0% of its voxels are 0"]),
        (
            brain() - 20 * (brain() == 0),
            MR_AFFINE,
            ["it does not look skull-stripped", "it has negative values, down to -20"],
        ),
        (brain(0.5) - 700 * (brain(0.5) > 0), MR_AFFINE, ["it has negative values, down to"]),
        (brain(), np.diag([1, 1, 5, 1]), ["its voxels are 1 x 1 x 5 mm, not about 1 mm in each direction"]),
        (brain(), np.diag([0.5, 0.5, 0.5, 1]), ["its voxels are 0.5 x 0.5 x 0.5 mm"]),
        (brain(0.0), np.diag([2, 2, 2, 1]), ["it does not look skull-stripped", "its voxels are 2 x 2 x 2 mm"]),
    ],
    ids=["skull", "negative background", "normalised", "thick slices", "small voxels", "several"],
)
def test_what_is_unlike_brats_is_said(voxels, affine, remarks):
    found = unusual_mr(voxels.astype(np.float32), affine)
    assert [remark[: len(start)] for remark, start in zip(found, remarks, strict=True)] == remarks


def test_the_spacing_of_an_oblique_mr_is_that_along_its_axes():
    turned = np.array([[0.6, -0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert unusual_mr(brain(), turned) == []


def test_the_third_axis_of_a_slice_is_not_asked_for():
    assert unusual_mr(brain(shape=(40, 25)), np.diag([1, 1, 5, 1])) == []


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


def check_mask(tmp_path, voxels, affine):
    return check_same_grid(CT.shape, AFFINE, save(voxels, tmp_path / "mask.nii.gz", affine), "image.nii.gz")


def test_a_mask_on_the_grid_of_its_image_is_returned(tmp_path):
    mask = (CT > 0).astype(np.uint8)
    np.testing.assert_array_equal(check_mask(tmp_path, mask, AFFINE), mask)


def test_a_mask_of_one_frame_is_returned_as_a_volume(tmp_path):
    assert check_mask(tmp_path, (CT > 0).astype(np.uint8)[..., None], AFFINE).shape == CT.shape


def test_an_affine_may_be_rounded(tmp_path):
    assert check_mask(tmp_path, (CT > 0).astype(np.uint8), AFFINE + 1e-3 * (AFFINE != 0)).any()


def test_a_mask_of_another_shape_is_refused(tmp_path):
    with pytest.raises(
        BadFileError, match=r"mask.nii.gz: expected the grid of image.nii.gz, shape \(8, 7, 6\), got \(8, 7, 5\)\."
    ):
        check_mask(tmp_path, np.ones((8, 7, 5), np.uint8), AFFINE)


@pytest.mark.parametrize(
    ("affine", "apart"),
    [
        (from_matvec(AFFINE[:3, :3], [90, 71, -300]), "1"),
        (from_matvec(AFFINE[:3, :3] + [[0, 0, 0], [0, 0, 0.5], [0, 0, 0]], AFFINE[:3, 3]), "2.5"),
        (np.diag([-1, -1, 1, 1]) @ AFFINE, "228"),
    ],
    ids=["shifted", "sheared", "RAS for LPS"],
)
def test_a_mask_with_another_affine_is_refused(tmp_path, affine, apart):
    with pytest.raises(
        BadFileError,
        match=rf"mask.nii.gz: expected the affine of image.nii.gz, got one that moves a corner by {apart} mm\.",
    ):
        check_mask(tmp_path, np.ones(CT.shape, np.uint8), affine)


def test_a_mask_that_drifts_off_by_a_voxel_is_refused(tmp_path):
    shape, affine = (120, 4, 4), np.diag([0.7, 0.7, 5.0, 1.0])
    wider = np.diag([0.709, 0.7, 5.0, 1.0])  # 119 voxels of 0.009 mm: 1.07 mm off at the far side
    path = save(np.ones(shape, np.uint8), tmp_path / "mask.nii.gz", wider)
    with pytest.raises(BadFileError, match="expected the affine"):
        check_same_grid(shape, affine, path, "image.nii.gz")


def test_a_mask_that_is_malformed_is_refused_by_its_own_name(tmp_path):
    write_cut_off(tmp_path / "mask.nii.gz")
    with pytest.raises(BadFileError, match=r"mask.nii.gz: expected a readable NIfTI file"):
        check_same_grid(CT.shape, AFFINE, tmp_path / "mask.nii.gz", "image.nii.gz")


def test_two_cases_of_one_name_are_refused_with_what_they_are():
    with pytest.raises(ValueError, match=r"^two cases are called 'a': 1\.nii and 3\.nii; rename one\.$"):
        refuse_twins([("a", "1.nii"), ("b", "2.nii"), ("a", "3.nii")], "rename one")


def test_cases_of_different_names_are_no_twins():
    refuse_twins([("a", "1.nii"), ("A", "1.nii")], "rename one")
