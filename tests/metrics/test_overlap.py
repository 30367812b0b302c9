import json
from pathlib import Path

import numpy as np
import pytest

from common.metrics.overlap import dice, hd95_mm, overlap_row, surface_dice

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


NSD = json.loads((Path(__file__).parents[1] / "golden" / "tumour_synthesis.json").read_text())["nsd_2mm"]
BALLS = {"ball8_shift3": ((8, 20), (8, 23)), "ball8_vs_ball6": ((8, 20), (6, 20)), "same": ((8, 20), (8, 20))}


def ball(radius, middle):
    x, y, z = np.ogrid[:40, :40, :40]
    return ((x - middle) / radius) ** 2 + ((y - 20) / radius) ** 2 + ((z - 20) / radius) ** 2 <= 1


@pytest.mark.parametrize("name", BALLS)
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.8, 0.8, 2.5)])
def test_surface_dice_is_that_of_deepmind(name, spacing):
    first, second = (ball(*each) for each in BALLS[name])
    assert surface_dice(first, second, spacing) == pytest.approx(NSD[f"{name}_{spacing}"], abs=1e-6)


def test_what_is_missed_has_no_surface_near_and_what_is_not_there_no_number():
    some, nothing = ball(8, 20), np.zeros((40, 40, 40), dtype=bool)
    assert surface_dice(nothing, some, (1, 1, 1)) == 0
    assert surface_dice(ball(3, 5), ball(3, 30), (1, 1, 1)) == 0
    assert np.isnan(surface_dice(some, nothing, (1, 1, 1)))


def test_a_tumour_at_the_border_of_a_scan_has_a_surface_there():
    x, y, z = np.ogrid[:20, :20, :20]
    corner = x**2 + y**2 + z**2 <= 64
    assert surface_dice(corner, corner, (1, 1, 1)) == 1
