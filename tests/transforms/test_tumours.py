import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, label

from common.transforms.tumours import (
    IGNORED,
    SIZES,
    TOUCHING,
    OrganAndTumoursd,
    PatchesAroundd,
    TumoursAloned,
    TumoursBetweend,
    TumourShapes,
    bent_ellipsoid,
    blend_weight,
    handcrafted,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tumour_synthesis.json").read_text())["shapes"]


def drawn(mask, seed=0, spacing=(2.0, 2.0, 2.0), **options):
    shapes = TumourShapes(**options)
    shapes.set_random_state(seed)
    return shapes(mask, spacing)


def ball(radius, size=32, middle=None):
    axes = np.ogrid[tuple(slice(n) for n in (size,) * 3)]
    middle = middle or (size // 2,) * 3
    return sum((x - c) ** 2 for x, c in zip(axes, middle, strict=True)) <= radius**2


def diameters(voxels, mm3=1.0):
    return np.cbrt(6 * np.asarray(voxels, dtype=float) * mm3 / np.pi)


def assert_like(found, recorded, size):
    tolerance = 2.0 if size in ("tiny", "small") else 0.2 * recorded
    assert abs(found - recorded) <= tolerance, (found, recorded)


@pytest.mark.parametrize("size", SIZES)
def test_bent_ellipsoids_are_as_large_as_the_authors(size):
    spacing = np.full(3, 1.0 if size in ("tiny", "small") else 2.0)
    random = np.random.RandomState(0)
    found = diameters([bent_ellipsoid(random, SIZES[size], spacing).sum() for _ in range(200)], spacing.prod())
    recorded = GOLDEN[size]["raw_mm"]
    assert_like(found.mean(), recorded["mean"], size)
    for share in (5, 95):
        assert_like(np.percentile(found, share), recorded[f"p{share}"], size)


@pytest.mark.parametrize("size", SIZES)
def test_tumours_in_a_patch_that_is_all_organ_are_as_large_as_the_authors(size):
    organ = np.ones((96, 96, 96), dtype=bool)
    draws = [
        drawn(organ, seed, (1, 1, 1), size=size, organ="pancreas") for seed in range(60 if size == "large" else 300)
    ]
    voxels = [np.bincount(tumours.ravel())[1:] for tumours in draws]
    recorded = GOLDEN[size]
    assert np.mean([each.sum() for each in voxels]) == pytest.approx(recorded["total_mm3"]["mean"], rel=0.25)
    for share in (5, 95):
        found = np.percentile(diameters(np.concatenate(voxels)), share)
        assert_like(found, recorded["lesion_mm"][f"p{share}"], size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("organ", ["liver", "pancreas", "kidney"])
def test_each_tumour_is_one_piece_inside_the_organ_that_touches_no_other(size, organ):
    inside = ball(26, 64)
    for seed in range(8):
        tumours = drawn(inside, seed, size=size, organ=organ)
        count = tumours.max()
        assert 1 <= count <= SIZES[size].most
        assert label(tumours > 0, TOUCHING)[1] == count == len(np.unique(tumours)) - 1
        assert not (tumours[~inside]).any()


def test_what_is_left_of_a_tumour_is_no_sliver():
    organ = np.zeros((64, 64, 24), dtype=bool)
    organ[4:60, 28:36, 4:20] = True
    for size, low in (("small", 6), ("medium", 12)):
        for seed in range(10):
            voxels = np.bincount(drawn(organ, seed, size=size, num_tumours=1).ravel())[1:]
            assert diameters(voxels, 8).min() >= low
    with pytest.raises(ValueError, match="no place for tumour"):
        drawn(organ, size="large", num_tumours=9)


def test_as_many_tumours_are_drawn_as_are_asked_for():
    assert drawn(ball(26, 64), size="small", num_tumours=5).max() == 5


def test_one_seed_gives_one_drawing_and_another_seed_another():
    first, same, other = (drawn(ball(26, 64), seed) for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_tumours_have_their_size_in_mm_whatever_the_voxels():
    fine = [(drawn(np.ones((80, 80, 40), dtype=bool), s, (1, 1, 2), num_tumours=1) > 0).sum() * 2 for s in range(20)]
    coarse = [(drawn(np.ones((40, 40, 20), dtype=bool), s, (2, 2, 4), num_tumours=1) > 0).sum() * 16 for s in range(20)]
    assert np.mean(fine) == pytest.approx(np.mean(coarse), rel=0.2)


def test_middles_lie_in_the_middle_slices_and_deep_in_a_liver():
    heights, depths = [], []
    for seed in range(40):
        where = np.argwhere(drawn(np.ones((20, 20, 50), dtype=bool), seed, size="tiny", num_tumours=1))
        heights.append(where[:, 2].mean())
        depths.append(where.mean(0)[:2].min())
    assert min(heights) > 0.3 * 50 - 3
    assert max(heights) < 0.7 * 50 + 3
    assert min(depths) > 0.5


def test_a_tumour_may_grow_beyond_an_organ_only_where_that_is_asked_for():
    organ = np.zeros((64, 64, 64), dtype=bool)
    organ[28:36, 28:36, 28:36] = True
    outside = [
        (drawn(organ, s, size="medium", exophytic=share) > 0)[~organ].any() for s in range(5) for share in (0, 1)
    ]
    assert outside == [False, True] * 5


@pytest.mark.parametrize(
    ("organ", "settings", "reason"),
    [
        (np.zeros((8, 8, 8), dtype=bool), {}, "its mask is empty"),
        (ball(3, 8), {"size": "small", "num_tumours": 3}, "no place for tumour 2 of 3"),
        (np.ones((1, 1, 2), dtype=bool), {}, "no place for tumour 1"),
    ],
)
def test_an_organ_without_a_place_is_refused_in_the_end(organ, settings, reason):
    with pytest.raises(ValueError, match=reason):
        drawn(organ, **{"num_tumours": 1, **settings})


def test_an_organ_thinner_than_its_depth_and_one_at_the_border_still_have_places():
    thin = np.zeros((40, 40, 40), dtype=bool)
    thin[:, 20, :] = True
    assert drawn(thin, num_tumours=1).any()
    corner = np.zeros((40, 40, 40), dtype=bool)
    corner[:6, :6, :6] = True
    assert not drawn(corner, num_tumours=1)[~corner].any()


@pytest.mark.parametrize(
    "settings", [{"size": "huge"}, {"organ": "spleen"}, {"num_tumours": 0}, {"size": {"tiny": 0.5, "giant": 0.5}}]
)
def test_sizes_organs_and_numbers_that_there_are_not_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        TumourShapes(**settings)


def test_sizes_are_drawn_as_often_as_is_asked_for():
    shapes = TumourShapes({"tiny": 0.75, "medium": 0.25})
    shapes.set_random_state(0)
    names = []
    for _ in range(60):
        shapes(np.ones((40, 40, 40), dtype=bool), (2, 2, 2))
        names.append(shapes.drawn)
    assert set(names) == {"tiny", "medium"}
    assert 0.6 < names.count("tiny") / 60 < 0.9


@pytest.mark.parametrize("radius", [2, 3, 4, 6, 10])
def test_a_blend_reaches_one_and_lies_in_its_tumour(radius):
    tumour = ball(radius, 40)
    weight = blend_weight(tumour.astype(np.uint8), (1, 1, 1))
    assert weight.max() == 1
    assert weight[tumour].mean() >= 0.65
    assert weight[~tumour].sum() / weight.sum() <= 0.35
    assert not weight[~binary_dilation(tumour, iterations=radius + 2)].any()


def test_each_tumour_has_a_blend_of_its_own():
    tumours = ball(8, 40, (12, 12, 12)).astype(np.uint8)
    tumours[ball(2, 40, (32, 32, 32))] = 2
    weight = blend_weight(tumours, (1, 1, 1))
    assert weight[32, 32, 32] == weight[12, 12, 12] == 1
    alone = blend_weight((tumours == 2).astype(np.uint8), (1, 1, 1))
    assert np.array_equal(weight[26:, 26:, 26:], alone[26:, 26:, 26:])


def test_handcrafted_tumours_are_darker_by_tens_of_hu():
    image = np.zeros((24, 24, 24), dtype=np.float32)
    darker = [
        (image - handcrafted(image, np.random.RandomState(seed), (-175, 250))).mean() * 425 / 2 for seed in range(20)
    ]
    assert 10 < np.mean(darker) < 100
    assert len(set(darker)) == 20


def test_tumours_of_some_diameters_are_marked_and_all_where_there_is_none():
    label = torch.from_numpy(ball(3, 40, (8, 8, 8)) | ball(8, 40, (28, 28, 28)))[None].float()
    small = TumoursBetweend("label", (2, 2, 2), (0, 20))({"label": label})["marked"]
    assert small[0, 8, 8, 8] == 1
    assert small[0, 28, 28, 28] == 0
    both = TumoursBetweend("label", (2, 2, 2), (100, 200))({"label": label})["marked"]
    assert torch.equal(both, label)


def test_patches_for_validation_are_the_same_in_each_epoch():
    item = {"image": torch.rand(1, 20, 20, 20), "label": torch.from_numpy(ball(4, 20))[None].float()}
    settings = {"label_key": "label", "spatial_size": (8, 8, 8), "num_samples": 2, "neg": 0}
    fixed = PatchesAroundd(("image", "label"), random=False, **settings)
    drawn_anew = PatchesAroundd(("image", "label"), **settings)
    drawn_anew.set_random_state(0)
    assert torch.equal(fixed(item)[0]["image"], fixed(item)[0]["image"])
    assert not torch.equal(drawn_anew(item)[0]["image"], drawn_anew(item)[0]["image"])
    assert all(patch["label"].any() for patch in fixed(item))


def two_masks():
    """Return an organ with a tumour of 8 and one of 30 mm, and these, in voxels of 2 mm."""
    organ = torch.zeros(1, 40, 40, 40)
    organ[:, 2:38, 2:38, 2:38] = 1
    tumours = torch.zeros_like(organ)
    tumours[0, 5:8, 5:8, 5:9] = 1
    tumours[0, 15:27, 15:27, 15:27] = 1
    return organ, tumours


def test_a_label_of_tumours_and_a_mask_of_the_organ_become_one_label():
    organ, tumours = two_masks()
    made = OrganAndTumoursd(both=False)({"organ": organ, "label": tumours})["label"]
    assert torch.equal(made, organ + tumours)
    assert torch.equal(OrganAndTumoursd(both=True)({"label": made})["label"], made)


def test_without_a_label_the_organ_is_healthy():
    organ, _ = two_masks()
    assert torch.equal(OrganAndTumoursd(both=True)({"organ": 3 * organ})["label"], organ)


def test_tumours_of_other_sizes_are_passed_over_and_never_called_organ():
    organ, tumours = two_masks()
    early = OrganAndTumoursd(both=True, voxel_mm=(2, 2, 2), diameter_mm=(0, 20))({"label": organ + tumours})["label"]
    assert (early[0, 15:27, 15:27, 15:27] == IGNORED).all()
    assert (early[0, 5:8, 5:8, 5:9] == 2).all()
    assert torch.equal(early == 1, (organ + tumours) == 1)


def test_tumours_are_left_alone_with_the_organ_apart():
    organ, tumours = two_masks()
    made = TumoursAloned("label")({"label": organ + tumours})
    assert torch.equal(made["label"], tumours)
    assert torch.equal(made["true_organ"], organ)
    assert TumoursAloned("label", both=False)({"label": tumours}) == {"label": tumours}
