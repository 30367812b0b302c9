from functools import cache

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, distance_transform_edt, median_filter
from sklearn.metrics import average_precision_score

from common.phantoms.abdomen_ct import ORGANS, PARTS, abdomen_ct

FINE = {"shape": (120, 96, 16), "spacing": (3.0, 3.0, 4.0)}
COARSE = {"shape": (40, 32, 8), "spacing": (9.0, 9.0, 9.0)}
SEEDS = range(3)
PANCREATIC_SEEDS = range(10)
ARRAYS = {"image": np.int16, "healthy": np.int16, "organs": np.uint8, "lesions": np.uint8, "affine": np.float64}


@cache
def fine(seed):
    """Return a patient at the resolution that shows small lesions."""
    return abdomen_ct(seed, **FINE)


@cache
def coarse(seed, scanner="a", num_lesions=None):
    """Return a patient for what does not need that resolution."""
    return abdomen_ct(seed, num_lesions=num_lesions, scanner=scanner, **COARSE)


@cache
def pancreatic(seed, num_lesions=None, scanner="a"):
    """Return a patient whose lesions are in the pancreas."""
    return abdomen_ct(seed, num_lesions=num_lesions, scanner=scanner, lesion_organ="pancreas", **FINE)


def darkening(ct):
    """Return by how many HU the lesions darken a patient."""
    return ct.healthy.astype(int) - ct.image


def organ(ct, name):
    return ct.organs == ORGANS[name]


def place(ct, region):
    """Return where the middle of a region is, mm to the right, front and head."""
    return ct.affine[:3, :3] @ np.argwhere(region).mean(0) + ct.affine[:3, 3]


def fat_hu(ct):
    return np.median(ct.healthy[(ct.healthy > -150) & (ct.healthy < -60)])


def test_the_same_seed_gives_the_same_volume_whatever_was_drawn_before():
    expected = coarse(0)
    np.random.seed(1)
    again = abdomen_ct(0, **COARSE)
    assert all(np.array_equal(getattr(again, name), getattr(expected, name)) for name in ARRAYS)


def test_another_seed_gives_another_patient():
    assert (coarse(0).organs != coarse(1).organs).mean() > 0.01


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_have_the_documented_types(name):
    assert getattr(coarse(0), name).dtype == ARRAYS[name]


def test_the_affine_puts_the_middle_of_the_body_at_zero():
    ct = coarse(0)
    middle = ct.affine @ [*((n - 1) / 2 for n in ct.image.shape), 1]
    np.testing.assert_array_equal(np.diag(ct.affine), [9, 9, 9, 1])
    np.testing.assert_allclose(middle[:2], 0)


def test_size_and_spacing_are_those_asked_for():
    ct = abdomen_ct(0, (30, 24, 5), (12.0, 11.0, 9.0))
    assert ct.image.shape == ct.healthy.shape == ct.organs.shape == ct.lesions.shape == (30, 24, 5)
    np.testing.assert_array_equal(np.diag(ct.affine), [12, 11, 9, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_are_where_anatomy_has_them(seed):
    ct = coarse(seed)
    liver, spleen, stomach, kidney = (place(ct, organ(ct, n)) for n in ("liver", "spleen", "stomach", "kidney_right"))
    bone, lung = place(ct, ct.healthy > 300), place(ct, (ct.healthy > -900) & (ct.healthy < -700))
    assert spleen[0] < stomach[0] < liver[0]  # from left to right
    assert bone[1] < liver[1]  # from back to front
    assert spleen[1] < stomach[1]
    assert kidney[2] < lung[2]  # from feet to head


@pytest.mark.parametrize("seed", SEEDS)
def test_hounsfield_units_are_those_of_a_ct(seed):
    ct = coarse(seed)
    assert -1024 <= ct.image.min() < -900
    assert 300 < ct.image.max() < 1500
    assert (ct.image[:2, :2] == -1000).all()  # air beside the patient, without noise
    assert 20 < np.median(ct.healthy[organ(ct, "liver")]) < 140
    assert -115 < fat_hu(ct) < -75


def test_a_liver_has_the_volume_of_a_liver():
    ct = abdomen_ct(0, (40, 32, 32), (9.0, 9.0, 7.0))  # all of it
    assert 700 < organ(ct, "liver").sum() * 9 * 9 * 7 / 1000 < 2500


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_lie_in_the_liver(seed):
    ct = fine(seed)
    assert ct.lesions.any()
    assert organ(ct, "liver")[ct.lesions > 0].all()


def test_a_healthy_patient_is_its_own_twin():
    ct = coarse(0, num_lesions=0)
    assert not ct.lesions.any()
    np.testing.assert_array_equal(ct.image, ct.healthy)


def test_a_patient_with_lesions_has_the_anatomy_of_the_healthy_one():
    np.testing.assert_array_equal(coarse(0).organs, coarse(0, num_lesions=0).organs)


@pytest.mark.parametrize("num_lesions", [1, 3])
def test_lesions_are_counted_from_1(num_lesions):
    ct = coarse(0, num_lesions=num_lesions)
    assert set(np.unique(ct.lesions)) == set(range(num_lesions + 1))


def test_by_default_there_are_two_to_eight_lesions():
    counts = {int(fine(seed).lesions.max()) for seed in SEEDS}
    assert min(counts) >= 2
    assert max(counts) <= 8
    assert len(counts) > 1


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_only_darken_and_by_60_hu_at_most(seed):
    assert darkening(fine(seed)).min() == 0
    assert 0 < darkening(fine(seed)).max() <= 61  # both images are rounded


@pytest.mark.parametrize("seed", SEEDS)
def test_away_from_lesions_and_their_soft_edges_twins_are_equal(seed):
    ct = fine(seed)
    from_lesions_mm = distance_transform_edt(ct.lesions == 0, sampling=FINE["spacing"])
    assert darkening(ct)[from_lesions_mm > 9].max() <= 1


def test_large_lesions_are_15_to_60_hu_darker_inside():
    contrasts = []
    for seed in SEEDS:
        deep = np.where(distance_transform_edt(fine(seed).lesions, sampling=FINE["spacing"]) > 7, fine(seed).lesions, 0)
        contrasts += [np.median(darkening(fine(seed))[deep == number]) for number in np.unique(deep)[1:]]
    assert len(contrasts) >= 3
    assert min(contrasts) >= 14
    assert max(contrasts) <= 61


def test_lesions_have_diameters_of_4_to_40_mm_and_small_ones_are_more_frequent():
    millilitres = np.prod(FINE["spacing"]) / 1000
    volumes = np.concatenate([np.unique(fine(s).lesions, return_counts=True)[1][1:] for s in SEEDS]) * millilitres
    diameters = np.cbrt(6 * volumes * 1000 / np.pi)
    assert diameters.min() >= 4
    assert 15 < diameters.max() <= 40 * 1.25  # irregular ones are a little larger
    assert np.median(diameters) < 20


def test_lesions_have_no_holes():
    holes = [binary_fill_holes(fine(seed).lesions > 0) & (fine(seed).lesions == 0) for seed in SEEDS]
    assert not any(hole.any() for hole in holes)


@pytest.mark.parametrize("seed", SEEDS)
def test_another_scanner_sees_the_same_patient(seed):
    np.testing.assert_array_equal(coarse(seed, "a").organs, coarse(seed, "b").organs)
    np.testing.assert_array_equal(coarse(seed, "a").lesions, coarse(seed, "b").lesions)


@pytest.mark.parametrize("seed", SEEDS)
def test_scanner_b_is_noisier_and_shows_darker_fat(seed):
    a, b = coarse(seed, "a"), coarse(seed, "b")
    spleen = binary_erosion(organ(a, "spleen"))
    assert b.healthy[spleen].std() > a.healthy[spleen].std()
    assert fat_hu(b) < fat_hu(a) - 5


def test_contrast_agent_is_brighter_on_scanner_b():
    kidneys = [[np.median(ct.healthy[organ(ct, "kidney_right")]) for ct in map(coarse, range(8), 8 * n)] for n in "ab"]
    a, b = np.array(kidneys)
    with_agent = a > 45
    assert 0 < with_agent.sum() < 8
    assert (b - a)[with_agent].mean() > (b - a)[~with_agent].mean() + 10


def test_an_unknown_scanner_is_refused():
    with pytest.raises(ValueError, match=r"scanner must be one of \['a', 'b'\], got 'c'"):
        abdomen_ct(0, scanner="c")


def test_an_organ_without_lesions_is_refused():
    with pytest.raises(
        ValueError, match=r"lesion_organ must be one of \['kidney', 'liver', 'pancreas'\], got 'spleen'"
    ):
        abdomen_ct(0, lesion_organ="spleen")


def test_by_default_the_lesions_are_in_the_liver():
    expected = abdomen_ct(0, lesion_organ="liver", **COARSE)
    assert all(np.array_equal(getattr(coarse(0), name), getattr(expected, name)) for name in ARRAYS)


def test_the_same_seed_gives_the_same_pancreas():
    again = abdomen_ct(0, lesion_organ="pancreas", **FINE)
    assert all(np.array_equal(getattr(again, name), getattr(pancreatic(0), name)) for name in ARRAYS)


@pytest.mark.parametrize("seed", PANCREATIC_SEEDS)
def test_tumours_lie_in_the_pancreas_which_contains_them(seed):
    ct = pancreatic(seed)
    assert ct.lesions.any()
    assert organ(ct, "pancreas")[ct.lesions > 0].all()


@pytest.mark.parametrize("seed", PANCREATIC_SEEDS)
def test_a_pancreas_has_the_volume_of_a_pancreas_and_its_head_is_in_the_volume(seed):
    ct = pancreatic(seed)
    right_mm = np.arange(120) * 3 + ct.affine[0, 3]
    assert 20 < organ(ct, "pancreas").sum() * 0.036 < 120  # ml
    assert organ(ct, "pancreas").any((0, 1)).sum() >= 9
    assert organ(ct, "pancreas")[right_mm > 12].any((0, 1)).sum() >= 6


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pancreas_reaches_from_the_right_of_the_spine_to_the_spleen(seed):
    ct = pancreatic(seed)
    right_mm = np.argwhere(organ(ct, "pancreas"))[:, 0] * 3 + ct.affine[0, 3]
    assert right_mm.max() > 20
    assert right_mm.min() < -50
    assert place(ct, organ(ct, "spleen"))[0] < place(ct, organ(ct, "pancreas"))[0] < place(ct, organ(ct, "liver"))[0]


def test_most_tumours_are_in_the_head():
    right_mm = [place(pancreatic(seed), pancreatic(seed).lesions == 1)[0] for seed in PANCREATIC_SEEDS]
    assert 0.5 < np.mean(np.array(right_mm) > 6) < 1


def test_a_pancreas_has_one_tumour_or_rarely_two():
    counts = [abdomen_ct(seed, lesion_organ="pancreas", **COARSE).lesions.max() for seed in range(20, 40)]
    assert set(counts) == {1, 2}
    assert counts.count(1) > 14


def test_tumours_have_diameters_of_10_to_40_mm():
    volumes = np.concatenate([np.unique(pancreatic(s).lesions, return_counts=True)[1][1:] for s in PANCREATIC_SEEDS])
    diameters = np.cbrt(6 * volumes * np.prod(FINE["spacing"]) / np.pi)
    assert 9 < diameters.min() < 20
    assert 25 < diameters.max() < 44


def test_tumours_are_10_to_45_hu_darker_than_the_gland_within_it():
    contrasts = []
    for seed in PANCREATIC_SEEDS:
        ct = pancreatic(seed)
        gland = organ(pancreatic(seed, num_lesions=0), "pancreas")
        deep = distance_transform_edt((ct.lesions > 0) & gland, sampling=FINE["spacing"]) > 4
        contrasts += [np.median(darkening(ct)[deep])] if deep.any() else []
    assert len(contrasts) >= 8
    assert min(contrasts) > 8
    assert max(contrasts) < 50
    assert np.std(contrasts) > 4


def test_tumours_of_the_pancreas_stand_out_more_with_more_contrast_agent():
    def contrast(scanner):
        volumes = [pancreatic(seed, scanner=scanner) for seed in SEEDS]
        return np.mean([np.median(darkening(ct)[ct.lesions > 0]) for ct in volumes])

    assert contrast("b") > contrast("a") + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_away_from_tumours_and_their_soft_edges_twins_are_equal(seed):
    ct = pancreatic(seed)
    from_tumours_mm = distance_transform_edt(ct.lesions == 0, sampling=FINE["spacing"])
    assert np.abs(darkening(ct)[from_tumours_mm > 12]).max() <= 1  # both images are rounded


@pytest.mark.parametrize("seed", SEEDS)
def test_beside_tumours_the_anatomy_is_that_of_the_healthy_patient(seed):
    ct, healthy = pancreatic(seed), pancreatic(seed, num_lesions=0)
    np.testing.assert_array_equal(healthy.image, healthy.healthy)
    np.testing.assert_array_equal(ct.organs[ct.lesions == 0], healthy.organs[ct.lesions == 0])


@pytest.mark.parametrize("seed", SEEDS)
def test_another_scanner_sees_the_same_pancreas(seed):
    np.testing.assert_array_equal(pancreatic(seed).organs, pancreatic(seed, scanner="b").organs)
    np.testing.assert_array_equal(pancreatic(seed).lesions, pancreatic(seed, scanner="b").lesions)


def test_darkness_alone_finds_tumours_of_the_pancreas_but_not_well():
    scores, truth = [], []
    for seed in PANCREATIC_SEEDS:
        ct = pancreatic(seed)
        pancreas = organ(ct, "pancreas")
        for z in np.flatnonzero(pancreas.any((0, 1))):
            inside = pancreas[..., z]
            median = np.median(ct.image[..., z][inside])
            scores.append(median_filter(median - ct.image[..., z], 3)[inside])
            truth.append(ct.lesions[..., z][inside] > 0)
    assert 0.35 < average_precision_score(np.concatenate(truth), np.concatenate(scores)) < 0.75


CLOSE = {"shape": (48, 40, 24), "spacing": (4.0, 4.0, 4.0), "close": True}


@cache
def close(organ, seed, num_lesions=None):
    """Return a small volume around an organ with lesions."""
    return abdomen_ct(seed, num_lesions=num_lesions, lesion_organ=organ, **CLOSE)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_close_volume_shows_the_organ_in_its_middle_and_its_lesions_in_it(name, seed):
    ct = close(name, seed)
    inside = ct.organ(name)
    middle = np.argwhere(inside).mean(0) / inside.shape
    assert (np.abs(middle - 0.5) < 0.3).all()
    assert inside.sum() * 64 / 1000 > {"liver": 500, "pancreas": 20, "kidney": 120}[name]
    assert inside[ct.lesions > 0].all()
    assert ct.lesions.any()


def test_renal_tumours_are_darker_than_the_kidneys_and_a_healthy_twin_has_none():
    shifts = []
    for seed in range(6):
        ct = close("kidney", seed)
        assert 1 <= ct.lesions.max() <= 3
        away = (ct.lesions == 0) & ~binary_dilation(ct.lesions > 0, iterations=3)
        assert np.array_equal(ct.image[away], ct.healthy[away])
        shifts.append((ct.image.astype(int) - ct.healthy)[ct.lesions > 0].mean())
        assert not close("kidney", seed, num_lesions=0).lesions.any()
    assert np.mean(shifts) < -5
