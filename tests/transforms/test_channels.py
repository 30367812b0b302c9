import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, SaveImaged

from common.transforms.channels import NameCased, Regionsd, SplitChannelsd, ToInputs, image_stem

AFFINE = torch.diag(torch.tensor([-2.0, 2, 5, 1], dtype=torch.float64))
NAMES = ("anomaly", "mask")


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
def test_each_channel_gets_its_name_and_keeps_its_axis(shape):
    result = torch.randn(shape)
    parted = SplitChannelsd("pred", NAMES)({"pred": result, "case": "a"})
    assert set(parted) == {"anomaly", "mask", "case"}
    for i, name in enumerate(NAMES):
        torch.testing.assert_close(parted[name].as_tensor(), result[i : i + 1])


def test_channels_of_one_name_stay_together():
    result = torch.randn(4, 3, 4)
    parted = SplitChannelsd("pred", ["anomaly", "healthy", "healthy", "mask"])({"pred": result})
    torch.testing.assert_close(parted["healthy"].as_tensor(), result[1:3])
    assert parted["mask"].shape == (1, 3, 4)


def test_the_item_that_came_is_left_alone():
    item = {"pred": torch.zeros(2, 3, 4)}
    SplitChannelsd("pred", NAMES)(item)
    assert list(item) == ["pred"]


def test_channels_lie_where_the_result_lies():
    parted = SplitChannelsd("pred", NAMES)({"pred": MetaTensor(torch.zeros(2, 3, 4, 5), affine=AFFINE)})
    assert all(torch.equal(parted[name].affine, AFFINE) for name in NAMES)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_channels_is_refused(count):
    with pytest.raises(ValueError, match=rf"pred must have 2 channels \('anomaly', 'mask'\), got {count}"):
        SplitChannelsd("pred", NAMES)({"pred": torch.zeros(count, 3, 4)})


def test_a_missing_result_is_refused_unless_allowed():
    with pytest.raises(KeyError):
        SplitChannelsd("pred", NAMES)({"case": "a"})
    assert SplitChannelsd("pred", NAMES, allow_missing_keys=True)({"case": "a"}) == {"case": "a"}


def test_channels_of_a_plain_result_go_back_to_the_grid_of_the_file():
    voxels = torch.arange(24.0).view(1, 2, 3, 4)
    preprocessing = Compose([Orientationd("image", axcodes="RAS", labels=None)])
    item = preprocessing({"image": MetaTensor(voxels, affine=AFFINE)})
    item["pred"] = torch.cat([item["image"], 2 * item["image"]]).as_tensor()
    parted = Compose([SplitChannelsd("pred", NAMES), Invertd(NAMES, preprocessing, "image")])(item)
    torch.testing.assert_close(parted["anomaly"].as_tensor(), voxels)
    torch.testing.assert_close(parted["mask"].as_tensor(), 2 * voxels)
    assert torch.equal(parted["mask"].affine, AFFINE)


@pytest.mark.parametrize("case", ["volume-1", "3Dircadb1.1", "Ärztin_CT 5 mm"])
def test_files_are_called_as_their_case(tmp_path, case):
    image = MetaTensor(torch.zeros(1, 3, 4, 5), meta={"filename_or_obj": "/data/images/other.nii"})
    item = NameCased()({"image": image, "case": case})
    SaveImaged("image", output_dir=tmp_path, output_postfix="mask", resample=False, print_log=False)(item)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.nii.gz")] == [
        f"{case}/{case}_mask.nii.gz"
    ]


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("/data/a.nii.gz", "a"),
        ("a.1.nii", "a.1"),
        ("view 1.JPG", "view 1"),
        ("a.npy", "a"),
        ("1.2.840", "1.2.840"),
        ("png", "png"),
    ],
)
def test_the_ending_of_an_image_is_not_part_of_its_name(file, stem):
    assert image_stem(file) == stem


def test_without_a_case_an_image_keeps_its_name():
    image = MetaTensor(torch.zeros(1, 3, 4), meta={"filename_or_obj": "a.nii"})
    assert NameCased()({"image": image})["image"].meta["filename_or_obj"] == "a.nii"


def test_an_image_that_cannot_carry_a_name_stays_as_it_is():
    item = {"image": np.zeros((1, 3, 4)), "case": "a"}
    assert NameCased()(item)["image"] is item["image"]


def test_another_image_can_be_named():
    item = {"image": torch.zeros(1), "ct": MetaTensor(torch.zeros(1, 3, 4)), "case": "a"}
    assert NameCased("ct")(item)["ct"].meta["filename_or_obj"] == "a.nii.gz"


@pytest.mark.parametrize("kind", [torch.tensor, lambda x: MetaTensor(torch.tensor(x), affine=2 * torch.eye(4))])
def test_regions_may_lie_within_one_another(kind):
    label = kind([[[0.0, 1.0, 2.0, 4.0]]])
    found = Regionsd("label", [[1, 2, 4], [1, 4], [4]])({"label": label})["label"]
    assert found.tolist() == [[[0, 1, 1, 1]], [[0, 1, 0, 1]], [[0, 0, 0, 1]]]
    assert type(found) is type(label)
    assert Regionsd("label")({"label": label})["label"].tolist() == [[[0, 1, 1, 1]]]
    if isinstance(found, MetaTensor):
        assert torch.equal(found.affine, label.affine)


def test_a_label_of_several_channels_has_no_regions():
    with pytest.raises(ValueError, match="a_case: expected a label of one channel, got 2"):
        Regionsd("label")({"label": torch.zeros(2, 4), "case": "a_case"})
    assert Regionsd("label", allow_missing_keys=True)({}) == {}


@pytest.mark.parametrize("with_organ", [True, False])
def test_inputs_are_in_ras_with_the_organ_behind_the_image(with_organ):
    affine = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.arange(4.0).view(1, 4, 1, 1), affine=affine)
    organ = {"organ": MetaTensor((image > 2).float(), affine=affine)} if with_organ else {}
    made = ToInputs()({"image": image, "label": MetaTensor(image * 0, affine=affine), "case": "a", **organ})
    assert made["image"][0].flatten().tolist() == [3, 2, 1, 0]
    assert len(made["image"]) == 1 + with_organ
    assert "organ" not in made
    assert made["image"].meta["filename_or_obj"] == "a.nii.gz"
