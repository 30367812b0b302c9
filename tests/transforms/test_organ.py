import sys
import warnings
from contextlib import suppress
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Orientationd

from common.phantoms.abdomen_ct import ORGANS, abdomen_ct
from common.transforms.organ import (
    AddOrgand,
    LesionFreeOrgand,
    RightPartd,
    TotalSegmentatorOrgand,
    foreground,
    right_part,
    segment_structure,
)

AFFINE = np.diag([-3.0, 3, 5, 1])


def ct():
    """Return a CT from a file that does not point to the patient's right; its voxels are brighter to the right."""
    voxels = torch.arange(5.0)[:, None, None].expand(5, 4, 3)
    return MetaTensor(-voxels[None].clone(), affine=torch.from_numpy(AFFINE), meta={"filename_or_obj": "a.nii"})


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder that has the weights."""
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path))
    for number, name in ((297, "total_3mm"), (298, "total_6mm")):
        (tmp_path / f"Dataset{number}_TotalSegmentator_{name}_1559subj").mkdir()
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Put a package in the place of TotalSegmentator that finds what is brighter than -2, as number 5."""
    made = []

    def totalsegmentator(image, **options):
        made.append((image, options))
        return nib.Nifti1Image(5 * (np.asarray(image.dataobj) > -2).astype(np.uint8), image.affine)

    package, api = ModuleType("totalsegmentator"), ModuleType("totalsegmentator.python_api")
    api.totalsegmentator = totalsegmentator
    package.python_api = api
    monkeypatch.setitem(sys.modules, "totalsegmentator", package)
    monkeypatch.setitem(sys.modules, "totalsegmentator.python_api", api)
    return made


@pytest.mark.parametrize("organ_source", ["auto", "file", "network"])
def test_nobody_is_asked_for_an_organ_unless_by_name(calls, organ_source):
    item = {"image": ct(), "organ": "as it was"}
    assert TotalSegmentatorOrgand(organ_source)(item) == item
    assert not calls


def test_the_organ_is_a_mask_beside_the_image(calls, weights):
    item = TotalSegmentatorOrgand("totalsegmentator")({"image": ct(), "case": "a"})
    assert item["case"] == "a"
    assert item["organ"].shape == item["image"].shape
    assert item["organ"].dtype == torch.uint8
    assert torch.equal(item["organ"].as_tensor() > 0, item["image"].as_tensor() > -2)


def test_the_organ_is_turned_with_the_image(calls, weights):
    item = TotalSegmentatorOrgand("totalsegmentator")({"image": ct()})
    turned = Orientationd(["image", "organ"], axcodes="RAS", labels=None)(item)
    assert torch.equal(turned["organ"].as_tensor() > 0, turned["image"].as_tensor() > -2)
    assert torch.equal(turned["organ"].affine, turned["image"].affine)


def test_no_warning_comes_with_the_mask(calls, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TotalSegmentatorOrgand("totalsegmentator")({"image": ct()})


def test_the_package_sees_the_ct_where_it_lies(calls, weights):
    TotalSegmentatorOrgand("totalsegmentator")({"image": ct()})
    image, _ = calls[0]
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(image.dataobj, ct()[0])


def test_only_the_structure_is_asked_for(calls, weights):
    TotalSegmentatorOrgand("totalsegmentator", "spleen", "ct", "spleen")({"ct": ct()})
    assert ["spleen"] in calls[0][1].values()


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)  # import then raises ModuleNotFoundError
    with pytest.raises(RuntimeError, match=r'pip install "TotalSegmentator>=2.4"'):
        TotalSegmentatorOrgand("totalsegmentator")({"image": ct()})


def test_without_weights_nothing_is_downloaded(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="fetch them once with totalseg_download_weights -t total_fast"):
        segment_structure(np.zeros((4, 4, 4)), np.eye(4), "liver")
    assert not calls


def test_weights_lie_in_the_packages_home(calls, tmp_path, monkeypatch):
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match=f"{tmp_path}/nnunet/results"):
        segment_structure(np.zeros((4, 4, 4)), np.eye(4), "liver")


def test_some_of_the_weights_are_not_enough(calls, weights):
    next(weights.glob("Dataset298_*")).rmdir()
    with suppress(RuntimeError):
        segment_structure(np.zeros((4, 4, 4)), np.eye(4), "liver")
    assert not [options for _, options in calls if "roi_subset" in options]


def test_the_foreground_is_where_a_channel_is_bright_with_its_holes():
    image = torch.zeros(2, 7, 7, 2)
    image[0, 1:6, 1:6, 0] = 5
    image[:, 3, 3, 0] = 0
    image[1, 0, 0, 1] = 1
    found = foreground(image)
    assert found.shape == (1, 7, 7, 2)
    assert found[..., 0].sum() == 25
    assert found[..., 1].sum() == 1
    assert torch.equal(foreground(image[..., 0]), found[..., 0])


def test_only_an_image_without_a_mask_gets_one():
    image = MetaTensor(torch.zeros(1, 4, 4, 2), affine=AFFINE)
    image[0, 1, 1] = 3
    found = AddOrgand()({"image": image})["organ"]
    assert found.sum() == 2
    assert torch.equal(found.affine, image.affine)
    assert AddOrgand(everywhere=True)({"image": image})["organ"].sum() == 32
    assert AddOrgand()({"image": image, "organ": "drawn"})["organ"] == "drawn"


def bar(size=12, first=2, last=11):
    """Return an organ along the first axis, a voxel thick there and wider in one end."""
    organ = torch.zeros(1, size, 5, 3, dtype=torch.bool)
    organ[:, first : last + 1, 2, 1] = True
    organ[:, last, 1:4] = True
    return organ


@pytest.mark.parametrize(("share", "first"), [(0.4, 8), (0.25, 10), (0.01, 11), (1, 2)])
def test_the_right_part_is_a_share_of_the_extent_and_a_voxel_at_least(share, first):
    part = right_part(bar(), share)
    assert part.any((0, 2, 3)).nonzero().flatten().tolist() == list(range(first, 12))
    assert torch.equal(part[:, first:], bar()[:, first:])


def test_along_an_axis_that_points_to_the_left_the_right_part_comes_first():
    flipped = bar().flip(1)
    assert torch.equal(right_part(flipped, 0.4, to_right=False), right_part(bar(), 0.4).flip(1))
    turned = bar().movedim(1, -1)
    assert torch.equal(right_part(turned, 0.4, axis=-1), right_part(bar(), 0.4).movedim(1, -1))


def test_a_slice_has_a_right_part_and_an_empty_mask_none():
    assert torch.equal(right_part(bar()[..., 1], 0.4), right_part(bar(), 0.4)[..., 1])
    assert not right_part(torch.zeros(1, 4, 4, dtype=torch.bool), 0.4).any()


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_beyond_the_organ_is_refused(share):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got"):
        right_part(bar(), share)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SRA", "AIL"])
def test_the_head_of_the_pancreas_lies_beside_the_liver_however_the_volume_is_stored(axcodes):
    ct = abdomen_ct(0, (60, 48, 12), (4.0, 4.0, 5.0), lesion_organ="pancreas")
    mask = (ct.organs == ORGANS["pancreas"]).astype(np.float32)
    organ = MetaTensor(torch.from_numpy(mask[None]), affine=torch.from_numpy(ct.affine))
    head = RightPartd(0.4)({"organ": Orientation(axcodes=axcodes, labels=None)(organ)})["organ"]
    x = [
        np.argwhere(m)[:, 0] for m in (Orientation("RAS", labels=None)(head)[0] > 0, mask, ct.organs == ORGANS["liver"])
    ]
    head_x, pancreas_x, liver_x = x
    assert head_x.max() == pancreas_x.max()
    assert head_x.min() > pancreas_x.min() + 0.5 * np.ptp(pancreas_x)
    assert abs(head_x.mean() - liver_x.mean()) < abs(pancreas_x.mean() - liver_x.mean())


def test_an_item_without_organ_has_no_right_part():
    assert RightPartd(0.4)({"image": "as it was"}) == {"image": "as it was"}


def test_lesions_are_no_place_for_others():
    organ, label = torch.zeros(1, 4, 4, 2), torch.zeros(1, 4, 4, 2)
    organ[:, 1:3], label[:, 2:] = 1, 2
    item = LesionFreeOrgand()({"organ": MetaTensor(organ, AFFINE), "label": label})
    assert item["organ"][0, :, 0, 0].tolist() == [0, 1, 0, 0]
    assert (item["organ"].affine.numpy() == AFFINE).all()
    assert LesionFreeOrgand()({"label": label}).keys() == {"label"}
