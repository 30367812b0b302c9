import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec

from common.data import checks
from common.data.checks import (
    check_ct,
    check_mr,
    check_same_grid,
    coarse,
    refuse_other_values,
    unusual_ct,
    unusual_film,
    unusual_mr,
)
from common.files import BadFileError

CT = np.random.default_rng(0).integers(-1000, 400, (8, 7, 6)).astype(np.int16)
CT[0, 0, :2] = -1000, 400
SMOOTH = np.linspace(-1000, 400, 336).reshape(8, 7, 6).astype(np.float32)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, -3, 0, 70], [0, 0, 5, -300], [0, 0, 0, 1]])


def save(voxels, path, affine=AFFINE):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


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
    assert unusual_ct(SMOOTH, AFFINE) == []


def test_an_identity_affine_is_unusual_in_a_ct():
    (remark,) = unusual_ct(SMOOTH, np.eye(4))
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
    ],
    ids=["skull", "negative background", "normalised"],
)
def test_what_is_unlike_brats_is_said(voxels, affine, remarks):
    found = unusual_mr(voxels.astype(np.float32), affine)
    assert [remark[: len(start)] for remark, start in zip(found, remarks, strict=True)] == remarks


TURNED = np.array([[0.6, -0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "axes", "coarser"),
    [
        (np.diag([3.0, 3, 5, 1]), 3, False),
        (np.diag([0.5, 0.5, 0.5, 1]), 3, False),
        (np.diag([5.0, 3, 3, 1]), 3, False),
        (TURNED @ np.diag([6.0, 6, 10, 1]), 3, False),
        (TURNED @ np.diag([7.0, 7, 5, 1]), 3, True),
        (np.diag([3.0, 3, 12, 1]), 3, True),
        (np.diag([3.0, 3, 12, 1]), 2, False),
        (np.diag([7.0, 3, 1, 1]), 2, True),
    ],
)
def test_voxels_of_twice_the_size_that_weights_know_are_coarse(affine, axes, coarser):
    assert bool(coarse(affine, axes, [3.0, 3.0, 5.0])) == coarser
    assert coarse(affine, axes, None) == []


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
    path = save(CT, tmp_path / "mask.nii.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadFileError, match=r"mask.nii.gz: expected a readable NIfTI file"):
        check_same_grid(CT.shape, AFFINE, tmp_path / "mask.nii.gz", "image.nii.gz")


def phantom(shape=(64, 52, 6)):
    """Return a body with an organ, fat around it and air, HU with noise, and where the organ is."""
    x, y, _ = np.meshgrid(*map(np.arange, shape), indexing="ij")
    radius = ((x - 32) / 28) ** 2 + ((y - 26) / 22) ** 2
    organ = ((x - 40) / 10) ** 2 + ((y - 28) / 10) ** 2 < 1
    fat = (radius > 0.75) | (abs(x - 40) < 2) & (y > 33)
    hu = np.select([organ & ~fat, radius > 1, fat], [100.0, -1000.0, -100.0], 30.0)
    return (hu + np.random.default_rng(0).normal(0, 8, shape)).astype(np.float32), organ


HU, ORGAN = phantom()
INNER = HU[34:47, 21:36]
"""A crop to the organ and a bit of what surrounds it, without air."""

GOOD = {
    "whole": HU,
    "cropped to the organ": INNER,
    "without air": HU[16:48, 14:38],
    "clipped to a window": np.clip(HU, -160, 240),
    "clipped to a narrow window": np.clip(HU, -40, 160),
    "clipped, with air": np.where(HU < -500, -1000, np.clip(HU, -40, 160)),
    "as a JPEG would have it": np.rint((np.clip(HU, -160, 240) + 160) / 4) * 4 - 160,
    "padded": np.where(HU < -900, -2000, HU),
}


@pytest.mark.parametrize("voxels", GOOD.values(), ids=GOOD)
def test_a_ct_cropped_clipped_or_padded_is_accepted_without_a_word(voxels):
    check_ct(voxels.astype(np.float32), "a.nii")
    assert unusual_ct(voxels.astype(np.float32), AFFINE) == []


def test_a_crop_in_which_nothing_is_below_0_is_remarked_on():
    crop = np.where(ORGAN, HU, 30.0 + HU % 9)[34:47, 20:33].clip(1).astype(np.float32)
    check_ct(crop, "a.nii")
    (remark,) = unusual_ct(crop, AFFINE)
    assert "nothing in it is below 0 HU" in remark


NO_HU = {
    "stored values": HU + 1024,
    "stored values with padding": np.where(HU < -900, -2000, HU + 1024),
    "stored values without air": np.where(HU < -900, -3024, HU + 1000),
    "negated": -HU,
    "a quarter of HU": HU / 4,
    "a third of HU, coarse": HU[::3, ::3] / 3,
    "wrapped to uint16": np.where(HU < 0, HU + 65536, HU),
    "scaled to a unit deviation": (HU - HU.mean()) / HU.std(),
    "nothing but what is darker than fat": np.linspace(-899, -200, HU.size, dtype=np.float32).reshape(HU.shape),
    "8 bits": np.clip((HU + 160) / 400, 0, 1) * 255,
}


@pytest.mark.parametrize("voxels", NO_HU.values(), ids=NO_HU)
def test_values_that_are_no_hounsfield_units_are_refused_by_their_shares(voxels):
    with pytest.raises(BadFileError, match="expected a CT in Hounsfield units"):
        check_ct(voxels.astype(np.float32), "a.nii")


def noise(offset=0.0):
    return np.random.default_rng(0).normal(offset, 200, (16, 16, 4)).astype(np.float32)


def test_noise_is_remarked_on_in_any_modality():
    for unusual, image in ((unusual_ct, noise()), (unusual_mr, noise(900)), (unusual_film, noise()[..., 0])):
        assert any("looks like noise" in remark for remark in unusual(image, AFFINE))


def test_some_voxels_of_a_large_image_tell_noise_as_all_do(monkeypatch):
    smooth = np.add.outer(np.arange(60.0), np.add.outer(np.arange(50.0), np.arange(20.0))) * 4 - 300
    monkeypatch.setattr(checks, "ENOUGH", 2**9)
    for image, is_noise in ((noise(), True), (smooth.astype(np.float32), False)):
        assert any("looks like noise" in remark for remark in unusual_ct(image, AFFINE)) == is_noise


@pytest.mark.parametrize("voxels", NO_HU.values(), ids=NO_HU)
def test_some_voxels_of_a_large_image_tell_that_it_is_no_ct(monkeypatch, voxels):
    monkeypatch.setattr(checks, "ENOUGH", 2**6)
    larger = np.kron(voxels, np.ones((2,) * voxels.ndim)).astype(np.float32)
    with pytest.raises(BadFileError, match="expected a CT in Hounsfield units"):
        check_ct(larger, "a.nii")


def test_some_voxels_of_a_large_ct_tell_that_it_is_one(monkeypatch):
    monkeypatch.setattr(checks, "ENOUGH", 2**6)
    check_ct(np.kron(CT, np.ones((2, 2, 2))).astype(np.float32), "a.nii")


def test_half_of_hu_is_remarked_on_and_a_window_is_not():
    said = unusual_ct(HU / 2, AFFINE)
    assert [remark for remark in said if "about -500 HU, which is neither air nor where windows end" in remark]
    assert unusual_ct(np.clip(HU, -450, 1050), AFFINE) == []


def test_values_that_fill_8_bits_are_remarked_on():
    bone = np.linspace(0, 1000, HU[30:34].size).reshape(HU[30:34].shape)
    wrapped = np.concatenate([HU[:30], bone, HU[34:]]).astype(np.int8).astype(np.float32)
    assert any("those of 8 bits" in remark for remark in unusual_ct(wrapped, AFFINE))


def test_a_ct_of_bone_or_fat_alone_is_remarked_on():
    for hu in (-200, 400):
        (remark,) = unusual_ct(np.where(ORGAN, hu, np.where(HU < -500, -1000, hu + HU / 9)).astype(np.float32), AFFINE)
        assert "unlike soft tissue" in remark


def film(shape=(100, 120)):
    """Return a chest, bright in the middle and dark in the lungs, shape (X, Y)."""
    x, _ = np.meshgrid(*map(np.arange, shape), indexing="ij")
    lungs = (abs(x - 25) < 14) | (abs(x - 75) < 14)
    return np.where(lungs, 60.0, 180.0).astype(np.float32)


def test_a_film_as_it_hangs_is_nothing_unusual():
    assert unusual_film(film(), AFFINE) == []


def test_an_inverted_film_is_remarked_on():
    (remark,) = unusual_film(255 - film(), AFFINE)
    assert "inverted" in remark


def test_a_hot_pixel_is_remarked_on():
    pixels = film()
    pixels[3, 4] = 65535
    (remark,) = unusual_film(pixels, AFFINE)
    assert "a few of its pixels are 65535" in remark


@pytest.mark.parametrize("values", [[0, 1], [0], [1], [0, 255], [255]])
def test_a_mask_may_have_0_and_1_or_0_and_255(values):
    refuse_other_values(np.array(values, np.float32), (0, 1), "mask.nii")


@pytest.mark.parametrize(
    ("values", "expected", "got"),
    [
        ([0, 1, 2], (0, 1), "2"),
        ([0, 0.4, 1], (0, 1), "0.4"),
        ([0, 1, 255], (0, 1), "255"),
        ([-1, 0, 1], (0, 1), "-1"),
        ([0, 255], (0, 1, 2), "255"),
        ([0, 1, 2, 4], (0, 1, 2, 3), "4"),
    ],
)
def test_other_values_of_a_mask_are_refused_with_the_way_out(values, expected, got):
    said = f"expected a mask of the values {', '.join(map(str, expected))}, got also {got}; draw it anew"
    with pytest.raises(BadFileError, match=said):
        refuse_other_values(np.array(values, np.float32), expected, "mask.nii", "draw it anew")
