import pytest
import torch
from inpainted import WINDOW, scan

from common.inferers.baselines.controls import MedianInpainter, MedianTranslator
from common.inferers.grid import Grid, filter_radius
from common.inferers.inpainting import InpaintingInferer
from common.inferers.translation import TranslationInferer
from common.transforms.adaptive_mask import adaptive_mask
from common.transforms.grid import resample_slices, size_at, to_slices

OPTIONS = {"patch_size": (16, 16), "pixel_mm": 2.0}


def head(channels=1):
    """Return a bright square in the middle of black air, three slices."""
    volume = torch.zeros(channels, 24, 24, 3)
    volume[:, 6:18, 6:18] = 100 + 100 * torch.rand(12, 12, 3, generator=torch.Generator().manual_seed(0))
    return volume


def bright(coarse):
    """Find the organ as a network would."""
    return coarse > 0.1


def view(volume, pixel_mm=2.0, more="", **options):
    return Grid(**{**OPTIONS, **options}).view(volume, (pixel_mm, pixel_mm), bright, more)


def test_intensities_become_0_to_1_and_the_foreground_is_searched():
    found = view(head())
    assert (found.coarse.min(), found.coarse.max()) == (0, 1)
    assert torch.equal(found.coarse_organ, to_slices(head()) > 0)
    assert torch.equal(found.organ, to_slices(head()) > 0)
    assert (found.low.item(), found.high.item()) == (0, pytest.approx(200, abs=2))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"slice_range": [3, 2]}, r"slice_range must be a first and a last slice, counted from 0, got \[3, 2\]"),
        ({"slice_range": [-2, 1]}, "slice_range must be a first and a last slice"),
        ({"pixel_mm": 0.0}, "pixel_mm > 0"),
        ({"patch_size": (16, 0)}, "patch_size must be >= 1"),
    ],
)
def test_a_grid_that_shows_nothing_is_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        Grid(**{**OPTIONS, **options})


def test_intensities_may_stay_as_they_are():
    volume = head() - 500
    found = view(volume, 1.0, normalize=None, organ="image")
    assert torch.equal(found.coarse, resample_slices(to_slices(volume), size_at((24, 24), (1.0, 1.0), 2.0)))
    assert torch.equal(view(volume, normalize=None, organ="image").coarse, to_slices(volume))


def test_an_organ_mask_comes_after_the_image_and_what_else_there_is():
    mask = torch.zeros(1, 24, 24, 3)
    mask[..., 8:10, 8:10, 1] = 1
    assert view(torch.cat([head(), mask])).coarse_organ.sum() == 4
    assert view(torch.cat([head(), 1 - mask, mask]), more="a mask").organ.sum() == 4
    with pytest.raises(ValueError, match="expected an image of 1 channels, perhaps an organ mask; got 3 channels"):
        view(torch.cat([head(), mask, mask]))
    with pytest.raises(ValueError, match=r"expected an image of 1 channels and a mask, perhaps .* got 1 channels"):
        view(head(), more="a mask")


def test_a_network_may_find_the_organ():
    assert view(head(), organ="network").coarse_organ.sum() == 12 * 12 * 3
    assert view(head(), organ="image").coarse_organ.all()
    with pytest.raises(ValueError, match="organ must be one of foreground, network, image, got 'liver'"):
        view(head(), organ="liver")


def dotted(coarse):
    """Find dots that do not survive the way to the image's grid and back."""
    found = torch.zeros_like(coarse, dtype=torch.bool)
    found[:, :, 4:8, 4:8] = True
    found[:, :, 1, 1] = True
    return found


def test_on_the_coarse_grid_the_organ_of_a_network_is_used_as_it_was_found():
    found = Grid(**OPTIONS, organ="network").view(head(), (3.0, 3.0), dotted)
    expected = dotted(found.coarse)
    assert torch.equal(found.coarse_organ, expected)
    assert torch.equal(found.organ, resample_slices(expected.float(), (24, 24)) > 0.5)
    assert not torch.equal(resample_slices(found.organ.float(), expected.shape[2:]) > 0.5, expected)


@pytest.mark.parametrize("organ", ["network", "foreground"])
def test_the_right_hand_part_and_the_range_of_slices_cut_the_organ_however_it_was_found(organ):
    whole = view(head(), organ=organ).coarse_organ
    right = view(head(), organ=organ, right_share=0.5)
    assert torch.equal(right.coarse_organ[:, :, 12:], whole[:, :, 12:])
    assert not right.coarse_organ[:, :, :12].any()
    assert torch.equal(right.organ, right.coarse_organ)
    cut = view(head(), organ=organ, slice_range=(1, 1))
    assert cut.coarse_organ.sum((1, 2, 3)).tolist() == cut.organ.sum((1, 2, 3)).tolist() == [0, 144, 0]


def test_slices_outside_the_range_are_not_searched():
    assert view(head(), slice_range=(1, 1)).coarse_organ.sum((1, 2, 3)).tolist() == [0, 144, 0]
    with pytest.raises(ValueError, match=r"no organ to search in: .* or slice_range leaves none"):
        view(head(), slice_range=(7, 9))


def test_only_the_organ_may_be_shown_and_only_a_part_of_it_searched():
    mask = torch.zeros(1, 24, 24, 3)
    mask[..., 8:16, 8:16, :] = 1
    found = view(torch.cat([head(), mask]), only_organ=True, right_share=0.5)
    assert found.coarse_organ.sum() == 4 * 8 * 3
    assert (found.coarse[~found.coarse_organ] == 0).all()


def test_the_networks_grid_may_be_coarser():
    found = view(head(), 1.0)
    assert found.coarse.shape[2:] == (12, 12)
    assert found.organ.shape[2:] == (24, 24)
    assert [patch.item for patch in Grid(**OPTIONS).patches(found)] == [0, 1, 2]


def test_patches_are_those_that_show_something_of_a_part_of_the_organ():
    found = view(head())
    shown = torch.zeros_like(found.coarse_organ)
    shown[2, 0, 9, 9] = True
    assert [patch.item for patch in Grid(**OPTIONS).patches(found, shown)] == [2]


def test_without_a_pixel_size_a_patch_shows_the_image_without_a_margin():
    found = view(head(), organ="image")
    (patch, *_) = Grid(patch_size=(24, 24), pixel_mm=None, organ="image", margin=8).patches(found)
    assert patch.corner == [0, 0]


def test_a_filter_is_as_wide_in_mm_on_a_finer_image_and_at_least_a_pixel_wide_on_a_coarser_one():
    assert filter_radius((2, 0), view(head(), 1.0)) == [4, 0]
    assert filter_radius(2, view(head(), 8.0)) == [1]


def test_the_same_grid_serves_what_inpaints_and_what_translates():
    grid = Grid(patch_size=(48, 48), pixel_mm=3.0, normalize=None)
    inpaints = InpaintingInferer(
        grid=grid, inpainter=MedianInpainter(), window=WINDOW, hole=adaptive_mask, median_radius=0, progress=False
    )
    translates = TranslationInferer(
        grid=grid, translator=MedianTranslator(), threshold=20.0, classifier=None, progress=False
    )
    found = [dict(zip(inferer.channels, inferer(scan(), None)[0], strict=True)) for inferer in (inpaints, translates)]
    assert torch.equal(found[0]["organ"], found[1]["organ"])
    assert found[0]["mask"].sum() == found[1]["mask"].sum() == 36
