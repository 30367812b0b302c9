from functools import cache

import numpy as np
import pytest

from common.phantoms.chest_xray import chest_xray

SEEDS = range(6)
MANY = range(40)
ARRAYS = {"image": np.uint8, "healthy": np.uint8, "effusion": np.uint8, "affine": np.float64}


@cache
def film(seed, diseased=True, scanner="a"):
    return chest_xray(seed, diseased=diseased, scanner=scanner)


def positions(xray):
    """Return where each pixel is, mm to the patient's right and to the head."""
    grid = np.indices(xray.image.shape)
    return [grid[axis] * xray.affine[axis, axis] + xray.affine[axis, 3] for axis in range(2)]


def brightening(xray):
    return xray.image.astype(int) - xray.healthy


def median_grey(xray, right, up):
    """Return the median of the healthy film in a box given in mm."""
    x, y = positions(xray)
    return np.median(xray.healthy[(x >= right[0]) & (x <= right[1]) & (y >= up[0]) & (y <= up[1])])


def test_the_same_seed_gives_the_same_film_whatever_was_drawn_before():
    expected = film(0)
    np.random.seed(1)
    again = chest_xray(0, diseased=True)
    assert all(np.array_equal(getattr(again, name), getattr(expected, name)) for name in ARRAYS)


def test_another_seed_gives_another_patient():
    assert (film(0).healthy != film(1).healthy).mean() > 0.5


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_have_the_documented_types(name):
    assert getattr(film(0), name).dtype == ARRAYS[name]


def test_the_affine_puts_the_middle_of_the_film_at_zero():
    np.testing.assert_array_equal(np.diag(film(0).affine), [4, 4, 1, 1])
    np.testing.assert_array_equal(film(0).affine @ [47.5, 47.5, 0, 1], [0, 0, 0, 1])


def test_size_and_spacing_are_those_asked_for():
    xray = chest_xray(0, (50, 40), (7.0, 9.0))
    assert xray.image.shape == xray.healthy.shape == xray.effusion.shape == (50, 40)
    np.testing.assert_array_equal(np.diag(xray.affine), [7, 9, 1, 1])


@pytest.mark.parametrize("seed", SEEDS)
def test_at_a_finer_spacing_the_patient_is_as_large(seed):
    fine = chest_xray(seed, (192, 192), (2.0, 2.0), diseased=True)
    assert int(fine.effusion.sum()) * 4 == pytest.approx(int(film(seed).effusion.sum()) * 16, rel=0.3)
    blocks = fine.healthy.reshape(96, 2, 96, 2).mean((1, 3))
    assert np.corrcoef(blocks.ravel(), film(seed).healthy.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_films_differ_inside_the_effusion_alone_and_are_brighter_there(seed):
    inside = film(seed).effusion == 1
    assert set(np.unique(film(seed).effusion)) == {0, 1}
    assert brightening(film(seed))[inside].min() > 0
    assert not brightening(film(seed))[~inside].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_patient_is_the_same_without_effusion(seed):
    np.testing.assert_array_equal(film(seed, diseased=False).image, film(seed).healthy)
    np.testing.assert_array_equal(film(seed, diseased=False).healthy, film(seed).healthy)
    assert not film(seed, diseased=False).effusion.any()


def test_every_diseased_film_has_an_effusion():
    assert all(film(seed).effusion.any() for seed in MANY)


def test_half_of_the_seeds_have_an_effusion_by_default():
    share = np.mean([chest_xray(seed, (24, 24), (16.0, 16.0)).effusion.any() for seed in range(50)])
    assert 0.3 < share < 0.7


def test_by_default_a_seed_gives_one_of_its_two_films():
    for seed in SEEDS:
        xray = chest_xray(seed)
        np.testing.assert_array_equal(xray.image, film(seed, diseased=bool(xray.effusion.any())).image)


@pytest.mark.parametrize("scanner", ["a", "b"])
def test_lungs_are_darker_than_what_lies_between_and_below_them(scanner):
    for seed in SEEDS:
        xray = film(seed, scanner=scanner)
        right, left = (median_grey(xray, sorted((side * 60, side * 100)), (0, 60)) for side in (1, -1))
        mediastinum, abdomen = median_grey(xray, (-12, 12), (-60, 60)), median_grey(xray, (50, 90), (-170, -150))
        assert max(right, left) + 40 < min(mediastinum, abdomen)


def test_beside_the_neck_there_is_black_air():
    corners = [film(seed).healthy[[0, 1, -2, -1], -1] for seed in MANY]
    assert np.median(corners) < 25


def test_the_heart_lies_to_the_left():
    left, right = ([median_grey(film(s), box, (-70, -45)) for s in MANY] for box in ((-75, -55), (55, 75)))
    assert np.mean(left) > np.mean(right) + 30


def test_effusions_lie_low_in_the_chest_and_beside_its_wall():
    for seed in MANY:
        x, y = (position[film(seed).effusion == 1] for position in positions(film(seed)))
        assert np.median(y) < -10
        assert np.median(np.abs(x)) > 55


def test_an_effusion_rises_along_the_side_wall():
    rises = []
    for seed in MANY:
        x, y = (position[film(seed).effusion == 1] for position in positions(film(seed)))
        beside, between = np.abs(x) > 100, np.abs(x) < 80
        if between.any() and beside.any():
            rises.append(y[beside].max() - y[between].max())
    assert len(rises) > 20
    assert np.mean(np.array(rises) > 0) > 0.95


def test_effusions_are_one_or_two_sided_on_either_side():
    sides = [tuple((film(seed).effusion[half].sum() > 10) for half in (slice(48), slice(48, 96))) for seed in MANY]
    assert 0.1 < np.mean([left and right for left, right in sides]) < 0.45
    assert {(True, False), (False, True)} < set(sides)


def test_effusions_are_from_a_blunt_angle_to_half_of_a_lung():
    areas_cm2 = np.array([film(seed).effusion.sum() * 0.16 for seed in MANY])
    assert 2 < areas_cm2.min() < 15
    assert 150 < areas_cm2.max() < 350
    assert areas_cm2.std() > 40


def test_an_effusion_is_as_dense_as_soft_tissue():
    for seed in MANY:
        x, y = positions(film(seed))
        abdomen = np.median(film(seed).healthy[(np.abs(x) < 90) & (y < -150)])
        assert np.percentile(film(seed).image[film(seed).effusion == 1], 95) < abdomen + 45


def test_exposure_varies_between_films():
    lungs = [median_grey(film(seed), (60, 100), (0, 60)) for seed in MANY]
    assert np.std(lungs) > 8


@pytest.mark.parametrize("seed", SEEDS)
def test_another_scanner_sees_the_same_patient(seed):
    a, b = film(seed, scanner="a"), film(seed, scanner="b")
    assert np.corrcoef(a.healthy.ravel(), b.healthy.ravel())[0, 1] > 0.9
    overlap = (a.effusion & b.effusion).sum() / (a.effusion | b.effusion).sum()
    assert overlap > 0.6


def test_scanner_b_has_less_contrast_and_in_relation_to_it_more_noise():
    contrast, noise = {}, {}
    for scanner in "ab":
        films = [film(seed, scanner=scanner) for seed in range(16)]
        contrast[scanner] = np.mean(
            [median_grey(x, (-12, 12), (-60, 60)) - median_grey(x, (60, 100), (0, 60)) for x in films]
        )
        noise[scanner] = np.mean([np.diff(x.healthy[30:45, :8].astype(int), axis=1).std() for x in films])  # abdomen
    assert contrast["b"] < contrast["a"] - 10
    assert noise["b"] / contrast["b"] > 1.4 * noise["a"] / contrast["a"]


def test_an_unknown_scanner_is_refused():
    with pytest.raises(ValueError, match=r"scanner must be one of \['a', 'b'\], got 'c'"):
        chest_xray(0, scanner="c")


@pytest.mark.parametrize("wrong", [{"shape": (96, 96, 1)}, {"spacing": (4.0,)}])
def test_a_film_that_is_not_flat_is_refused(wrong):
    with pytest.raises(ValueError, match="shape and spacing must have two numbers each"):
        chest_xray(0, **wrong)
