import pytest
import torch
from monai.transforms import Compose

from common.transforms.slices import UNKNOWN, SampleSlicesd, eligible_slices


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
    assert numbers(SampleSlicesd(200, (20, 16), healthy=False).set_random_state(0)(volume)) == set(range(6))


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
