import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientation

from common.transforms.slices import (
    UNKNOWN,
    DropFaintLesionsd,
    KeepLargestPerSliced,
    OtherClassd,
    SampleSlicesd,
    SliceClassesd,
    eligible_slices,
    read_slice_labels,
)


@pytest.fixture
def volume():
    """Six slices that hold their own number; the organ is in 1 to 4, a lesion in 3."""
    image = torch.arange(6.0).expand(1, 20, 16, 6) / 10
    organ, label = torch.zeros(1, 20, 16, 6), torch.zeros(1, 20, 16, 6)
    organ[:, 4:12, 4:12, 1:5] = 1
    organ[:, :, :, 1] = 0
    organ[:, 4, 4, 1] = 1
    label[:, 6, 6, 3] = 1
    return {"image": image, "organ": organ, "label": label, "case": "a"}


def numbers(slices):
    return {round(item["image"].max().item() * 10) for item in slices}


def test_slices_with_lesions_are_left_out(volume):
    slices = SampleSlicesd(200, (20, 16)).set_random_state(0)(volume)
    assert numbers(slices) == {1, 2, 4}


def test_slices_with_little_organ_are_left_out(volume):
    assert numbers(SampleSlicesd(100, (20, 16), min_organ_pixels=10).set_random_state(0)(volume)) == {2, 4}


def test_without_an_organ_mask_all_healthy_slices_are_taken_and_the_organ_is_unknown(volume):
    del volume["organ"]
    slices = SampleSlicesd(200, (20, 16)).set_random_state(0)(volume)
    assert numbers(slices) == {0, 1, 2, 4, 5}
    assert (slices[0]["organ"] == UNKNOWN).all()


def test_where_the_organ_has_lesions_in_all_slices_healthy_slices_beside_it_are_taken():
    organ, label = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    organ[0], label[0] = 1, 1
    assert eligible_slices(organ, label, 3).tolist() == [1, 2]


def test_any_slice_is_taken_for_a_segmenter(volume):
    assert numbers(SampleSlicesd(200, (20, 16), healthy=False, min_organ_pixels=0).set_random_state(0)(volume)) == set(
        range(6)
    )


def test_for_validation_the_slices_are_the_same_and_spread_out(volume):
    sample = SampleSlicesd(3, (20, 16), random=False)
    assert [round(item["image"].max().item() * 10) for item in sample(volume)] == [1, 2, 4]


def test_slices_have_the_canvas_size_and_keep_their_middle(volume):
    item = SampleSlicesd(1, (10, 32), random=False, healthy=False)(volume)[0]
    assert item["image"].shape == item["organ"].shape == (1, 10, 32)
    assert (item["image"][:, :, :8] == -1).all()
    assert (item["organ"][:, :, :8] == 0).all()


def test_a_volume_with_lesions_everywhere_is_refused_by_name(volume):
    volume["label"][:] = 1
    with pytest.raises(ValueError, match="a: expected slices without lesions"):
        SampleSlicesd(1, (20, 16))(volume)


def test_the_same_state_draws_the_same_slices(volume):
    first, second = (Compose([SampleSlicesd(5, (20, 16))]).set_random_state(3)(volume) for _ in range(2))
    assert numbers(first) == numbers(second)


def test_a_single_slice_is_a_volume_of_one():
    item = {"image": torch.zeros(1, 8, 8), "organ": torch.ones(1, 8, 8)}
    assert len(SampleSlicesd(2, (8, 8))(item)) == 2


def test_slices_come_from_a_range(volume):
    sample = SampleSlicesd(200, (20, 16), slice_range=(2, 4))
    assert numbers(sample.set_random_state(0)(volume)) == {2, 4}
    sample = SampleSlicesd(200, (20, 16), healthy=False, min_organ_pixels=0, slice_range=(2, 9))
    assert numbers(sample.set_random_state(0)(volume)) == {2, 3, 4, 5}


def test_slices_bring_further_images_and_a_missing_one_is_named(volume):
    sample = SampleSlicesd(6, (24, 16), healthy=False, min_organ_pixels=0, random=False, extra_keys=["label"])
    assert [item["label"].sum().item() for item in sample(volume)] == [0, 0, 0, 1, 0, 0]
    del volume["label"]
    with pytest.raises(ValueError, match="a: expected label to train on, got none"):
        sample(volume)


def test_padding_is_what_the_network_takes_for_background(volume):
    item = SampleSlicesd(1, (24, 16), random=False, background=0.0)(volume)[0]
    assert (item["image"][:, :2] == 0).all()


def flipped(array):
    """Return a MetaTensor whose last axis points to the feet."""
    return MetaTensor(torch.as_tensor(array), affine=np.diag([1.0, 1.0, -1.0, 1.0]))


def classes_of(item):
    """Return the class of each slice from the feet up, and check that they are the same all over a slice."""
    found = Orientation("RAS", labels=None)(SliceClassesd()(item)["slice_class"])
    assert found.shape == (1, 4, 5, 3)
    assert torch.equal(found.amin((1, 2)), found.amax((1, 2)))
    return found[0, 0, 0].tolist()


def test_slices_are_diseased_where_the_label_shows_lesions():
    label = torch.zeros(1, 4, 5, 3)
    label[0, 1, 1, 0] = 2
    item = {"image": flipped(torch.ones(2, 4, 5, 3)), "label": flipped(label), "image_label": 1}
    assert classes_of(item) == [0, 0, 1]


def test_lesions_beyond_the_organ_make_no_slice_diseased():
    label, organ = torch.zeros(1, 4, 5, 3), torch.zeros(1, 4, 5, 3)
    label[0, 1, 1], organ[0, 1, 1, 0], organ[0, 3, 3] = 1, 1, 1
    item = {"image": flipped(torch.ones(2, 4, 5, 3)), "label": flipped(label), "organ": flipped(organ)}
    assert classes_of(item) == [0, 0, 1]


def test_tags_count_slices_as_the_file_does(tmp_path):
    (tmp_path / "tags.csv").write_text("slice,label\n0,1\n1,0\n2,0\n")
    item = {"image": flipped(torch.ones(2, 4, 5, 3)), "slice_labels": tmp_path / "tags.csv"}
    assert classes_of(item) == [0, 0, 1]


def test_tags_may_begin_with_a_mark_of_byte_order_and_name_no_slice(tmp_path):
    (tmp_path / "tags.csv").write_text("slice,label\n", encoding="utf-8-sig")
    assert read_slice_labels(tmp_path / "tags.csv") == {}


def test_tags_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "tags.csv").write_bytes(b"\xff\xfe\0")
    for name in ("tags.csv", "none.csv"):
        with pytest.raises(ValueError, match=f"{name}: expected a CSV .*, got a file that cannot be read"):
            read_slice_labels(tmp_path / name)


def test_a_healthy_patient_has_healthy_slices_and_an_image_its_own_class():
    assert classes_of({"image": flipped(torch.ones(2, 4, 5, 3)), "image_label": 0}) == [0, 0, 0]
    image = MetaTensor(torch.ones(1, 4, 5), affine=np.eye(4))
    assert (SliceClassesd()({"image": image, "image_label": 1})["slice_class"] == 1).all()
    lesion = torch.zeros(1, 4, 5)
    assert (SliceClassesd()({"image": image, "label": lesion})["slice_class"] == 0).all()
    lesion[0, 2, 2] = 1
    assert (SliceClassesd()({"image": image, "label": lesion})["slice_class"] == 1).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("slice,label\n3,1\n", "expected slices of 3, got number 3"),
        ("slice,label\n1,2\n", "expected a CSV with the columns 'slice' .* and 'label' .0 or 1., got"),
        ("slice,label\n²,1\n", "with the columns 'slice'"),
        ("slice,label\n1\n", "with the columns 'slice'"),
        ("slice,label\n1,1\n1,0\n", "got two lines of slice 1"),
        ("slice,tumour\n1,1\n", r"got the columns \['slice', 'tumour'\]"),
        ("", r"got the columns \[\]"),
    ],
)
def test_wrong_tags_are_refused(tmp_path, content, message):
    (tmp_path / "tags.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        SliceClassesd()({"image": flipped(torch.ones(2, 4, 5, 3)), "slice_labels": tmp_path / "tags.csv"})


def test_where_classes_are_not_required_a_volume_without_stays_as_it_is():
    item = {"image": flipped(torch.ones(2, 4, 5, 3))}
    assert SliceClassesd(required=False)(item).keys() == {"image"}


@pytest.mark.parametrize(("shape", "left"), [((1, 5, 5, 2), 3 + 2), ((1, 5, 5), 3)])
def test_the_largest_part_is_kept_in_each_slice(shape, left):
    """Two voxels in a row and, in the first or only slice, three in another."""
    mask = MetaTensor(torch.zeros(shape), affine=np.eye(4))
    mask[0, 0, :2] = 1
    mask[(0, 3, slice(1, 4), 0)[: len(shape)]] = 1
    kept = KeepLargestPerSliced("mask")({"mask": mask})["mask"]
    assert kept.sum() == left
    assert torch.equal(kept.affine, mask.affine)
    assert mask[0, 0, 0].any()


@pytest.mark.parametrize("tag", [{}, {"image_label": 2}, {"image_label": 1}])
def test_a_volume_whose_diseased_slices_nobody_knows_is_refused(tag):
    with pytest.raises(ValueError, match="a: expected a label, slice_labels, or the image_label 0"):
        SliceClassesd()({"case": "a", "image": flipped(torch.ones(2, 4, 5, 3)), **tag})


@pytest.fixture
def contrasts():
    """Slices 0.5 in the organ with lesions darker by 0, 0.05, 0.1, 0.2 and brighter by 0.2, the last without any."""
    image, organ, label = (torch.zeros(1, 8, 6, 6) for _ in range(3))
    organ[:, 1:7, 1:5] = 1
    label[:, 2:4, 2:4, :5] = 1
    image[:, 1:7, 1:5] = 0.5
    image[:, 2:4, 2:4] -= torch.tensor([0, 0.05, 0.1001, 0.2, -0.2, 0])
    number = torch.arange(6.0).expand(1, 8, 6, 6)
    return {"image": image, "organ": organ, "label": label, "slice_class": number, "case": "a"}


def left(item, min_contrast=0.1):
    found = DropFaintLesionsd(min_contrast)(item)
    assert {found[key].shape[-1] for key in ("image", "organ", "label")} == {found["slice_class"].shape[-1]}
    return found["slice_class"][0, 0, 0].tolist()


def test_slices_whose_lesions_hardly_stand_out_are_left_out(contrasts):
    assert left(contrasts) == [2, 3, 4, 5]
    assert left(contrasts, 0.3) == [5]
    assert left(contrasts, 0.0) == [0, 1, 2, 3, 4, 5]


def test_only_lesions_and_tissue_in_the_organ_count(contrasts):
    contrasts["image"][:, 0] = 1
    contrasts["label"][:, 0] = 1
    assert left(contrasts) == [2, 3, 4, 5]


def test_slices_full_of_lesion_stay(contrasts):
    contrasts["label"][..., 0] = 1
    assert left(contrasts) == [0, 2, 3, 4, 5]


def test_an_image_that_would_lose_its_last_slice_keeps_it(contrasts):
    first = {key: value[..., :1] if isinstance(value, torch.Tensor) else value for key, value in contrasts.items()}
    assert left(first) == [0]
    flat = {key: value[..., 0] if isinstance(value, torch.Tensor) else value for key, value in contrasts.items()}
    assert DropFaintLesionsd(0.1)(flat).keys() == flat.keys()


def test_without_masks_nothing_is_left_out(contrasts):
    for key in ("organ", "label"):
        item = {name: value for name, value in contrasts.items() if name != key}
        assert DropFaintLesionsd(0.1)(item) == item


def test_what_is_left_out_is_counted_once_for_each_case(contrasts, caplog):
    caplog.set_level("INFO")
    drop = DropFaintLesionsd(0.1)
    for case in ("a", "a", "b"):
        drop({**contrasts, "case": case})
    assert drop.counts == {"a": (2, 5), "b": (2, 5)}
    assert len(caplog.messages) == 2
    assert "a: 2 of 5 slices with lesions are left out of training" in caplog.messages[0]
    assert caplog.messages[1].endswith("4 of 10 in 2 cases.")


def test_slices_of_the_other_class_are_left_out_where_a_case_stands_for_its_own():
    classes = torch.zeros(1, 4, 4, 5)
    classes[..., 2:4] = 1
    data = {"image": MetaTensor(torch.arange(5.0).expand(1, 4, 4, 5).clone()), "slice_class": classes, "image_label": 1}
    data = {**OtherClassd()(data), "label": torch.tensor([1, 3])}
    sample = SampleSlicesd(20, (4, 4), label_key="other_class", kept_keys=["label"])
    sample.set_random_state(0)
    slices = sample(data)
    assert {float(each["image"][0, 0, 0]) for each in slices} == {2, 3}
    assert all(each["label"].tolist() == [1, 3] for each in slices)
