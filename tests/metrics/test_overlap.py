import numpy as np
import pytest

from common.metrics.overlap import dice, hd95_mm, overlap_row

SPACING = (2.0, 3.0, 5.0)


def square(low, high, slices=(1,)):
    mask = np.zeros((16, 16, 3), dtype=bool)
    mask[low:high, 5:10, list(slices)] = True
    return mask


def test_the_surfaces_of_a_shifted_square_are_as_far_apart_as_it_was_shifted():
    assert hd95_mm(square(8, 13)[..., 1], square(5, 10)[..., 1], SPACING[:2]) == pytest.approx(6)
    assert hd95_mm(square(5, 10, slices=(0,)), square(5, 10, slices=(2,)), SPACING) == pytest.approx(10)


def test_dice_is_that_of_the_formula_and_has_none_without_truth():
    assert dice(square(5, 10), square(5, 15)) == pytest.approx(2 * 25 / (25 + 50))
    assert np.isnan(dice(square(5, 10), square(5, 5)))


def test_dice_and_jaccard_of_halves():
    row = overlap_row(square(5, 10), square(5, 15), SPACING)
    assert row["dice"] == pytest.approx(2 / 3)
    assert row["jaccard"] == pytest.approx(1 / 2)
    assert (row["true_pixels"], row["mask_pixels"]) == (50, 25)


def test_what_is_not_there_has_no_dice_and_what_is_missed_has_no_distance():
    nothing = square(5, 5)
    assert np.isnan([overlap_row(square(5, 10), nothing, SPACING)[key] for key in ("dice", "jaccard", "hd95_mm")]).all()
    missed = overlap_row(nothing, square(5, 10), SPACING)
    assert (missed["dice"], missed["jaccard"]) == (0, 0)
    assert np.isnan(missed["hd95_mm"])
