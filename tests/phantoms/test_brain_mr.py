from functools import cache

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import average_precision_score

from common.phantoms.brain_mr import TISSUES, TUMOUR, brain_mr
from common.sequences import SEQUENCES

SPACING = (3.0, 3.0, 5.0)
TINY = {"shape": (16, 19, 3), "spacing": (12.0, 12.0, 20.0)}
COARSE = {"shape": (32, 38, 6), "spacing": (6.0, 6.0, 10.0)}
SEEDS = range(3)
MANY = range(12)
ARRAYS = {"image": np.int16, "healthy": np.int16, "tissue": np.uint8, "tumour": np.uint8, "affine": np.float64}


@cache
def ill(seed, scanner="a"):
    """Return a patient with a tumour at the size that networks see."""
    return brain_mr(seed, tumour=True, scanner=scanner)


@cache
def coarse(seed, tumour=None, scanner="a"):
    """Return a patient for what does not need that resolution."""
    return brain_mr(seed, tumour=tumour, scanner=scanner, **COARSE)


def change(mr):
    """Return what the tumour adds to each sequence, relative to the median of white matter."""
    white = np.median(mr.healthy[:, mr.tissue == TISSUES["white"]], axis=1)
    return (mr.image.astype(float) - mr.healthy) / white[:, None, None, None]


def from_tumour_mm(mr):
    return distance_transform_edt(mr.tumour == 0, sampling=SPACING)


def diameter_mm(mr):
    """Return the diameter of the ball that is as large as the tumour."""
    return np.cbrt(6 / np.pi * (mr.tumour > 0).sum() * np.prod(SPACING))


def in_tumour_slices(score):
    """Return the average precision of a score of pixels in the brain, on the slices with tumour of many patients."""
    labels, scores = [], []
    for mr in map(ill, MANY):
        scaled = np.stack([v / np.percentile(v[v > 0], 99) for v in mr.image.astype(float)])
        for z in np.flatnonzero((mr.tumour > 0).any((0, 1))):
            head = mr.tissue[..., z] > 0
            labels.append(mr.tumour[head, z] > 0)
            scores.append(score(scaled[:, head, z]))
    return average_precision_score(np.concatenate(labels), np.concatenate(scores))


def test_the_same_seed_gives_the_same_volume_whatever_was_drawn_before():
    expected = coarse(0, True)
    np.random.seed(1)
    again = brain_mr(0, tumour=True, **COARSE)
    assert all(np.array_equal(getattr(again, name), getattr(expected, name)) for name in ARRAYS)


def test_another_seed_gives_another_patient():
    assert (coarse(0).tissue != coarse(1).tissue).mean() > 0.1


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_have_the_documented_types(name):
    assert getattr(coarse(0, True), name).dtype == ARRAYS[name]


def test_size_and_spacing_are_those_asked_for():
    mr = brain_mr(0, (20, 24, 5), (10.0, 9.0, 11.0))
    assert mr.image.shape == mr.healthy.shape == (len(SEQUENCES), 20, 24, 5)
    assert mr.tissue.shape == mr.tumour.shape == (20, 24, 5)
    np.testing.assert_array_equal(np.diag(mr.affine), [10, 9, 11, 1])


def test_a_single_slice_can_be_drawn():
    assert brain_mr(0, (32, 38, 1), (6.0, 6.0, 5.0), tumour=True).tumour.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_background_is_exactly_0_and_the_brain_nowhere(seed):
    for volumes in (ill(seed).image, ill(seed).healthy):
        assert all(np.array_equal(volume > 0, ill(seed).tissue > 0) for volume in volumes)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_slice_shows_a_brain_within_the_image(seed):
    head = ill(seed).tissue > 0
    assert (head.sum((0, 1)) * 9 > 5000).all()  # mm2
    assert not head[[0, -1]].any()
    assert not head[:, [0, -1]].any()


@pytest.mark.parametrize("scanner", ["a", "b"])
@pytest.mark.parametrize("seed", SEEDS)
def test_tissues_have_the_contrast_of_their_sequence(seed, scanner):
    mr = ill(seed, scanner)
    csf, grey, white = (np.median(mr.healthy[:, mr.tissue == value], axis=1) for value in TISSUES.values())
    t1, t1ce, t2, flair = range(4)
    assert csf[t1] < grey[t1] < white[t1]
    assert csf[t1ce] < grey[t1ce] < white[t1ce]
    assert white[t2] < grey[t2] < csf[t2]
    assert csf[flair] < white[flair] < grey[flair]


def test_vessels_are_brighter_than_all_tissue_after_contrast_agent_alone():
    def brightest(volume, mr):
        return np.percentile(volume[mr.tissue > 0], 99.9) / np.median(volume[mr.tissue == TISSUES["white"]])

    ratios = np.array([[brightest(mr.healthy[c], mr) for c in (0, 1)] for mr in map(coarse, range(6))])
    assert np.median(ratios[:, 1]) > np.median(ratios[:, 0]) + 0.1


def test_patients_differ_in_the_amount_of_fluid():
    shares = [(mr.tissue == TISSUES["csf"]).sum() / (mr.tissue > 0).sum() for mr in map(coarse, range(6))]
    assert max(shares) > 2 * min(shares)


def test_sequences_and_patients_have_gains_of_their_own():
    gains = [np.median(volume[volume > 0]) for seed in range(4) for volume in coarse(seed).healthy]
    assert max(gains) > 1.5 * min(gains)
    assert len(set(gains)) == len(gains)


def test_a_healthy_patient_is_its_own_twin():
    mr = coarse(0, False)
    assert not mr.tumour.any()
    np.testing.assert_array_equal(mr.image, mr.healthy)


def test_a_patient_with_a_tumour_is_the_healthy_one_beside_it():
    np.testing.assert_array_equal(coarse(0, True).healthy, coarse(0, False).image)
    np.testing.assert_array_equal(coarse(0, True).tissue, coarse(0, False).tissue)


@pytest.mark.parametrize("seed", MANY)
def test_beyond_the_reach_of_the_tumour_twins_are_equal(seed):
    mr = ill(seed)
    far = from_tumour_mm(mr) > 20
    np.testing.assert_array_equal(mr.image[:, far], mr.healthy[:, far])


@pytest.mark.parametrize("seed", MANY)
def test_a_tumour_lies_in_the_brain_and_is_labelled_by_its_parts(seed):
    mr = ill(seed)
    assert (mr.tissue[mr.tumour > 0] > 0).all()
    assert set(np.unique(mr.tumour)) <= {0, *TUMOUR.values()}


def test_oedema_is_bright_in_flair_and_t2_and_dark_in_t1():
    t1, _, t2, flair = np.median([change(mr)[:, mr.tumour == TUMOUR["oedema"]].mean(1) for mr in map(ill, MANY)], 0)
    assert t1 < -0.15
    assert t2 > 0.3
    assert flair > 0.2


def test_a_rim_that_enhances_is_bright_after_contrast_agent_alone():
    rims = [change(mr)[:, mr.tumour == TUMOUR["enhancing"]] for mr in map(ill, MANY)]
    t1, t1ce, *_ = np.concatenate(rims, 1).mean(1)
    assert t1 < -0.1
    assert t1ce > 0.2


def test_a_necrotic_core_is_darker_in_t1_than_what_is_around_it():
    cores = [change(mr)[0, mr.tumour == TUMOUR["necrosis"]] for mr in map(ill, MANY)]
    around = [change(mr)[0, mr.tumour == TUMOUR["oedema"]] for mr in map(ill, MANY)]
    assert np.concatenate(cores).mean() < np.concatenate(around).mean() - 0.05


def test_most_tumours_enhance_and_some_do_not():
    enhancing = [(coarse(seed, True).tumour == TUMOUR["enhancing"]).any() for seed in MANY]
    assert 0.5 < np.mean(enhancing) < 1


def test_some_tumours_are_faint():
    contrasts = [change(mr)[3, mr.tumour > 0].mean() for mr in map(ill, MANY)]
    assert min(contrasts) > 0.1
    assert max(contrasts) > 1.7 * min(contrasts)


def test_tumours_have_diameters_of_15_to_60_mm():
    diameters = [diameter_mm(ill(seed)) for seed in MANY]
    assert min(diameters) > 10  # fluid within their outline is not counted
    assert max(diameters) < 66  # irregular ones and pairs are a little larger
    assert max(diameters) > 2 * min(diameters)


def test_most_patients_with_a_tumour_have_slices_without():
    free = [(~(ill(seed).tumour > 0).any((0, 1))).sum() for seed in MANY]
    assert np.mean(np.array(free) >= 3) > 0.7


def test_by_default_half_of_the_patients_have_a_tumour():
    assert 7 <= sum(brain_mr(seed, **TINY).tumour.any() for seed in range(24)) <= 17


def test_the_default_tumour_is_the_one_that_can_be_asked_for():
    seeds = [seed for seed in range(6) if coarse(seed).tumour.any()]
    assert all(np.array_equal(coarse(seed).image, coarse(seed, True).image) for seed in seeds)


def test_bright_flair_alone_is_no_segmentation():
    assert 0.35 < in_tumour_slices(lambda scaled: scaled[3]) < 0.75


def test_unusual_intensity_alone_is_no_segmentation():
    def distance_to_median(scaled):
        clipped = np.clip(scaled, 0, 1)
        return np.abs(clipped - np.median(clipped, axis=1, keepdims=True)).sum(0)

    assert 0.15 < in_tumour_slices(distance_to_median) < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_another_scanner_sees_the_same_patient(seed):
    np.testing.assert_array_equal(coarse(seed, True, "a").tissue, coarse(seed, True, "b").tissue)
    np.testing.assert_array_equal(coarse(seed, True, "a").tumour, coarse(seed, True, "b").tumour)


@pytest.mark.parametrize("seed", SEEDS)
def test_scanner_b_is_noisier(seed):
    def noise(mr):
        white = mr.tissue == TISSUES["white"]
        steps = np.diff(mr.healthy[2].astype(float), axis=2)[white[..., 1:] & white[..., :-1]]
        return steps.std() / np.median(mr.healthy[2][white])

    assert noise(coarse(seed, scanner="b")) > 1.1 * noise(coarse(seed, scanner="a"))


def test_an_unknown_scanner_is_refused():
    with pytest.raises(ValueError, match=r"scanner must be one of \['a', 'b', 'c'\], got 'd'"):
        brain_mr(0, scanner="d")
