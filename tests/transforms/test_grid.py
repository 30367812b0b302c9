import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from common.transforms.grid import (
    ToNetworkGridd,
    ToVoxelGridd,
    add_patch,
    crop,
    from_slices,
    network_pixel_mm,
    patch_corners,
    pixel_size_mm,
    resample_slices,
    resample_volume,
    size_along,
    size_at,
    to_canvas,
    to_slices,
    voxel_size_mm,
)


def test_pixel_size_comes_from_the_affine_even_if_it_is_rotated():
    turn = torch.tensor([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    image = MetaTensor(torch.zeros(1, 4, 4, 4), affine=turn @ torch.diag(torch.tensor([-0.7, 0.9, 5.0, 1.0])).double())
    assert pixel_size_mm(image) == pytest.approx((0.7, 0.9))


def test_pixel_size_of_a_batch_is_that_of_its_first_image():
    image = MetaTensor(torch.zeros(1, 1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 3.0, 5.0, 1.0]))[None])
    assert pixel_size_mm(image) == pytest.approx((2, 3))


def test_an_image_without_affine_is_refused():
    with pytest.raises(ValueError, match="no affine"):
        pixel_size_mm(torch.zeros(1, 4, 4))


def test_anisotropic_pixels_become_square():
    assert size_at((100, 50, 7), (1.5, 3.0), 3.0) == (50, 50)


@pytest.mark.parametrize(
    ("shape", "pixel_mm", "size"),
    [
        ((390, 320), (1.0, 1.0), (256, 210)),
        ((320, 390), (1.0, 1.0), (210, 256)),
        ((100, 100), (1.0, 1.0), (256, 256)),
        ((200, 100, 7), (1.0, 2.0), (256, 256)),
        ((4000, 3), (1.0, 1.0), (256, 1)),
    ],
)
def test_an_image_without_a_size_in_mm_just_fits_into_a_patch(shape, pixel_mm, size):
    assert size_at(shape, pixel_mm, network_pixel_mm(None, shape, pixel_mm, (256, 256))) == size


@given(st.integers(1, 4000), st.integers(1, 4000), st.tuples(*[st.integers(16, 256)] * 2))
def test_a_fitted_image_fills_one_side_of_the_patch(width, height, patch_size):
    size = size_at((width, height), (1, 1), network_pixel_mm(None, (width, height), (1, 1), patch_size))
    assert all(n <= patch for n, patch in zip(size, patch_size, strict=True))
    assert any(n == patch for n, patch in zip(size, patch_size, strict=True))


def test_where_a_pixel_size_is_wanted_nothing_is_fitted():
    assert network_pixel_mm(3.0, (390, 320), (1.0, 1.0)) == 3


def test_without_a_pixel_size_there_must_be_a_patch():
    with pytest.raises(ValueError, match="expected patch_size, got none"):
        network_pixel_mm(None, (390, 320), (1.0, 1.0))


def test_the_same_size_changes_nothing():
    slices = torch.randn(2, 1, 6, 5)
    assert resample_slices(slices, (6, 5)) is slices


def test_shrinking_averages():
    checkerboard = torch.from_numpy(np.indices((16, 16)).sum(0) % 2).float()[None, None]
    assert resample_slices(checkerboard, (4, 4))[..., 1:-1, 1:-1].numpy() == pytest.approx(0.5, abs=0.02)


@given(st.integers(20, 60), st.integers(20, 60))
def test_a_smooth_image_survives_the_way_to_the_network_and_back(width, height):
    x = torch.linspace(0, 3, width)[:, None] + torch.linspace(0, 2, height)[None]
    there = resample_slices(x[None, None], (40, 40))
    torch.testing.assert_close(resample_slices(there, (width, height))[0, 0], x, atol=0.12, rtol=0)


def test_one_patch_in_the_middle_where_the_box_fits():
    assert patch_corners((10, 20), (29, 39), (40, 40), 8) == [[0, 10]]


@given(st.integers(0, 50), st.integers(1, 200), st.integers(20, 80))
def test_patches_show_every_pixel_of_the_box_with_its_margin(first, extent, patch):
    corners = patch_corners((first, 0), (first + extent - 1, 0), (patch, 20), 8)
    starts = sorted({x for x, _ in corners})
    for pixel in range(first, first + extent):
        with_margin = [s for s in starts if s <= pixel - 8 and pixel + 8 < s + patch]
        at_the_end = [s for s in starts if s <= pixel < s + patch]
        # Only the middle of two neighbours' overlap may be nearer than the margin to an edge of each.
        assert with_margin or len(at_the_end) >= 2 or extent + 16 <= patch


def test_a_patch_that_is_all_margin_is_refused():
    with pytest.raises(ValueError, match="patch_size must be > 16"):
        patch_corners((0, 0), (9, 9), (16, 32), 8)


@given(st.integers(-30, 40), st.integers(-30, 40))
def test_a_patch_goes_back_to_where_it_was_cut(x, y):
    image = torch.randn(1, 24, 30)
    total, count = torch.zeros_like(image), torch.zeros_like(image)
    patch = crop(image, (x, y), (16, 12), -1.0)
    assert patch.shape == (1, 16, 12)
    add_patch(total, patch, (x, y))
    add_patch(count, torch.ones_like(patch), (x, y))
    assert torch.equal(total[count > 0], image[count > 0])


def test_beyond_the_image_a_patch_is_filled():
    assert (crop(torch.ones(4, 4), (-2, -2), (2, 2), -1.0) == -1).all()


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 5, 6, 3)])
def test_slices_and_volumes_are_the_same_thing(shape):
    volume = torch.randn(shape)
    assert torch.equal(from_slices(to_slices(volume), len(shape) - 1), volume)


def test_a_canvas_is_a_multiple_and_begins_with_the_image():
    slices = torch.randn(2, 1, 17, 32)
    canvas = to_canvas(slices, 16, -1.0)
    assert canvas.shape == (2, 1, 32, 32)
    assert torch.equal(canvas[..., :17, :], slices)


def test_masks_stay_masks():
    volume = MetaTensor((torch.rand(1, 31, 27, 4) > 0.5).float(), affine=torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0])))
    resampled = ToNetworkGridd(3.0)({"organ": volume})["organ"]
    assert resampled.shape == (1, 10, 18, 4)
    assert set(resampled.unique().tolist()) <= {0.0, 1.0}


def test_films_are_fitted_to_the_patch_with_their_masks():
    film = {"image": MetaTensor(torch.rand(1, 390, 320), affine=torch.eye(4))}
    film["organ"] = MetaTensor(torch.ones(1, 390, 320), affine=torch.eye(4))
    resampled = ToNetworkGridd(None, patch_size=(64, 64))(film)
    assert resampled["image"].shape == resampled["organ"].shape == (1, 64, 53)


def test_volumes_of_a_case_are_turned_to_ras_and_only_the_image_is_interpolated():
    affine = torch.diag(torch.tensor([-1.0, 1.0, 5.0, 1.0], dtype=torch.float64))
    image, mask = torch.zeros(1, 6, 4, 2), torch.zeros(1, 6, 4, 2)
    image[:, :2], mask[:, :2] = 10, 1
    case = {"image": MetaTensor(image, affine=affine), "label": MetaTensor(mask, affine=affine), "case": "a"}
    found = ToNetworkGridd(2.0)(case)
    assert found["image"].shape == found["label"].shape == (1, 3, 2, 2)
    assert found["label"][0, :, 0, 0].tolist() == [0, 0, 1]
    assert 0 < found["image"][0, 2, 0, 0] <= 10
    assert found["case"] == "a"


def test_more_voxels_than_memory_may_hold_are_refused_before_it_is_asked_for():
    with pytest.raises(
        ValueError, match=r"at most 268435456 voxels .*, got 1 x 100000 x 100000 x 2: are its voxel sizes"
    ):
        resample_slices(torch.zeros(2, 1, 4, 4), (100_000, 100_000))
    assert resample_slices(torch.zeros(2, 1, 4, 4), (8, 8), max_voxels=128).shape == (2, 1, 8, 8)


def test_a_volume_has_three_voxel_sizes_and_is_resampled_along_all_axes():
    image = MetaTensor(torch.rand(1, 8, 6, 5), affine=torch.diag(torch.tensor([1.0, 2.0, 4.0, 1.0])))
    assert voxel_size_mm(image) == pytest.approx((1, 2, 4))
    assert size_along((8, 6, 5), (1, 2, 4), (2, 2, 2)) == [4, 6, 10]
    assert resample_volume(image.as_tensor(), (4, 6, 10)).shape == (1, 4, 6, 10)
    assert torch.equal(resample_volume(image.as_tensor(), (8, 6, 5)), image.as_tensor())


def test_a_ramp_along_each_axis_stays_one():
    for axis in range(3):
        ramp = torch.arange(12.0).view([12 if i == axis else 1 for i in range(3)]).expand(12, 12, 12)[None]
        found = resample_volume(ramp, (6, 6, 6)).movedim(axis + 1, -1)
        torch.testing.assert_close(found.diff(dim=-1)[..., 1:-1], torch.full((1, 6, 6, 3), 2.0))


def test_a_case_is_turned_and_resampled_to_voxels_with_its_masks():
    affine = torch.diag(torch.tensor([-1.0, 2.0, 4.0, 1.0]))
    item = {
        "image": MetaTensor(torch.rand(1, 8, 6, 5), affine=affine),
        "label": MetaTensor((torch.rand(1, 8, 6, 5) > 0.5).float(), affine=affine),
        "image_label": 1,
    }
    found = ToVoxelGridd((2.0, 2.0, 2.0))(item)
    assert found["image"].shape == found["label"].shape == (1, 4, 6, 10)
    assert set(found["label"].unique().tolist()) <= {0, 1}
    with pytest.raises(ValueError, match="three axes"):
        ToVoxelGridd((2.0, 2.0, 2.0))({"image": MetaTensor(torch.rand(1, 8, 6), affine=affine)})
