import numpy as np
import pytest
import torch

from common.training.synthesis import SynthesisPrepareBatch

WINDOW = (-175, 250)


class Insert:
    """Puts a tumour of 10 HU into the corner of each image, as large as its seed says; notes what it is asked."""

    def __init__(self):
        self.seeds, self.hu = [], None

    def __call__(self, images, organs, seeds, network):
        self.seeds.append(list(seeds))
        self.hu = images.clone()
        masks = torch.zeros_like(organs)
        for mask, seed in zip(masks, seeds, strict=True):
            mask[0, : 1 + seed % 4, :2, :2] = True
        return torch.where(masks, 10.0, images), masks


def batch(*cases, healthy=None):
    label = torch.zeros(len(cases), 1, 8, 8, 8)
    label[:, :, :6] = 1
    label[:, :, 7] = 2
    image = torch.linspace(-1, 1, label.numel()).view(label.shape)
    flags = torch.tensor([True] * len(cases) if healthy is None else healthy)
    return {"image": image, "label": label, "case": list(cases), "healthy": flags}


def prepare(insert=None, share=1.0, epoch=1, **options):
    made = SynthesisPrepareBatch(insert or Insert(), None, share, WINDOW, **options)
    made.epoch = epoch
    return made


def test_healthy_images_alone_are_given_tumours():
    given, insert = batch("a", "b", healthy=[False, True]), Insert()
    image, label = prepare(insert)(given, "cpu")
    assert torch.equal(image[0], given["image"][0])
    assert torch.equal(label[0], given["label"][0])
    assert len(insert.seeds[0]) == 1
    changed = label[1] != given["label"][1]
    assert (label[1][changed] == 2).all()
    torch.testing.assert_close(image[1][changed], torch.full((int(changed.sum()),), (10 + 175) / 212.5 - 1))
    torch.testing.assert_close(image[1][~changed], given["image"][1][~changed])


def test_what_is_asked_for_is_in_hounsfield_units():
    insert = Insert()
    prepare(insert)(batch("a"), "cpu")
    assert (float(insert.hu.min()), float(insert.hu.max())) == WINDOW


def test_the_batch_itself_is_left_as_it_is():
    given = batch("a")
    before = given["image"].clone()
    prepare()(given, "cpu")
    assert torch.equal(given["image"], before)


def test_a_case_is_given_the_same_in_any_batch_and_another_in_each_epoch_and_for_each_seed():
    first, alone, later, other = Insert(), Insert(), Insert(), Insert()
    prepare(first)(batch("a", "b"), "cpu")
    prepare(alone)(batch("b"), "cpu")
    prepare(later, epoch=2)(batch("b"), "cpu")
    prepare(other, seed=1)(batch("b"), "cpu")
    assert first.seeds[0][1] == alone.seeds[0][0]
    assert len({alone.seeds[0][0], later.seeds[0][0], other.seeds[0][0]}) == 3


def test_a_share_of_the_healthy_images_is_given_tumours():
    counts = []
    for epoch in range(1, 41):
        insert = Insert()
        prepare(insert, share=0.5, epoch=epoch)(batch(*map(str, range(10))), "cpu")
        counts.append(sum(map(len, insert.seeds)))
    assert np.mean(counts) == pytest.approx(5, abs=0.6)
    insert = Insert()
    prepare(insert, share=0.0)(batch("a", "b"), "cpu")
    assert not insert.seeds


def test_a_pool_equals_the_fly(tmp_path):
    given, insert = batch("a", "b", "c", healthy=[True, False, True]), Insert()
    fly = prepare()(given, "cpu")
    made = prepare(insert, pool_dir=str(tmp_path))(given, "cpu")
    assert len(list(tmp_path.glob("*.pt"))) == 2
    kept = prepare(insert, pool_dir=str(tmp_path))(given, "cpu")
    assert len(insert.seeds) == 1
    for one, other, third in zip(fly, made, kept, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)


def test_patches_of_one_case_have_tumours_of_their_own_in_the_pool_too(tmp_path):
    given, insert = batch("a", "a", "b"), Insert()
    made = prepare(insert, pool_dir=str(tmp_path))(given, "cpu")
    kept = prepare(insert, pool_dir=str(tmp_path))(given, "cpu")
    assert len(set(insert.seeds[0])) == len(list(tmp_path.glob("*.pt"))) == 3
    assert all(torch.equal(one, other) for one, other in zip(made, kept, strict=True))


def test_what_was_drawn_comes_again_after_the_epochs_of_the_pool(tmp_path):
    seeds = []
    for epoch in (1, 2, 3, 4):
        insert = Insert()
        prepare(insert, epoch=epoch, pool_epochs=3)(batch("a"), "cpu")
        seeds.append(insert.seeds[0][0])
    assert seeds[3] == seeds[0]
    assert len(set(seeds)) == 3
    insert = Insert()
    for epoch in (1, 2, 3, 4, 5):
        prepare(insert, epoch=epoch, pool_epochs=2, pool_dir=str(tmp_path))(batch("a"), "cpu")
    assert len(insert.seeds) == 2


def test_a_pool_of_no_epochs_is_refused():
    with pytest.raises(ValueError, match="pool_epochs must be 1 or more, got 0"):
        prepare(pool_epochs=0)


def test_images_of_which_nothing_is_known_are_left_as_they_are():
    given = {key: value for key, value in batch("a").items() if key in ("image", "label")}
    image, label = prepare()(given, "cpu")
    assert torch.equal(image, given["image"])
    assert torch.equal(label, given["label"])


def test_a_share_beyond_all_is_refused():
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        prepare(share=1.5)
