import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor, get_track_meta
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, RandAdjustContrastd, RandFlipd, ToTensord

from common.transforms.compose import UntrackedCompose

ITEMS = [{"image": np.random.default_rng(n).random((5, 6), dtype=np.float32)} for n in range(4)]


def steps(random=True):
    load = [
        EnsureTyped(keys="image"),
        EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
        EnsureTyped(keys="image", track_meta=False),
    ]
    augment = [RandFlipd(keys="image", prob=0.5), RandAdjustContrastd(keys="image", prob=0.5), ToTensord(keys="image")]
    return load + augment * random


def drawn(compose, **options):
    dataset = CacheDataset(ITEMS, compose, progress=False, **options)
    dataset.transform.set_random_state(3)
    return [dataset[index]["image"] for index in range(4)]


@pytest.mark.parametrize("options", [{"cache_rate": 0.0}, {}, {"runtime_cache": True}])
def test_what_is_drawn_is_the_same_on_plain_tensors(options):
    tracked, plain = drawn(Compose(steps()), **options), drawn(UntrackedCompose(steps()), **options)
    for one, other in zip(tracked, plain, strict=True):
        assert isinstance(one, MetaTensor)
        assert type(other) is torch.Tensor
        torch.testing.assert_close(one.as_tensor(), other, rtol=0, atol=0)
    assert get_track_meta()


def test_without_random_transforms_all_is_as_it_was():
    assert type(drawn(UntrackedCompose(steps(random=False)))[0]) is torch.Tensor


def test_metadata_are_followed_again_after_an_error():
    with pytest.raises(RuntimeError):
        UntrackedCompose([RandFlipd(keys="none")])({"image": ITEMS[0]["image"]})
    assert get_track_meta()
