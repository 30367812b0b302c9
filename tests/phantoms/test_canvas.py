import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.phantoms.canvas import Canvas


def canvas(shape=(21, 19, 17), spacing=(2.0, 2.0, 2.0), seed=0, **options):
    return Canvas(shape, spacing, np.random.default_rng(seed), **{"background": -1000.0, **options})


def test_the_middle_of_the_image_is_where_it_is_said_to_be():
    points = canvas((5, 4, 1), (2.0, 3.0, 7.0), middle=(0, 10, -3)).points
    np.testing.assert_allclose(points.mean((1, 2, 3)), (0, 10, -3))


def test_neighbours_are_one_spacing_apart_along_their_axis_alone():
    points = canvas((5, 4, 3), (2.0, 3.0, 7.0)).points
    for axis, step in enumerate((2, 3, 7)):
        expected = np.zeros(3)
        expected[axis] = step
        moved = np.diff(points, axis=axis + 1)
        np.testing.assert_allclose(moved, np.broadcast_to(expected[:, None, None, None], moved.shape), atol=1e-6)


@pytest.mark.parametrize(("distance", "share"), [(-9, 1), (-1, 1), (-0.5, 0.75), (0, 0.5), (0.5, 0.25), (1, 0), (9, 0)])
def test_a_voxel_on_the_surface_is_shared(distance, share):
    assert canvas().soft(np.float32(distance)) == pytest.approx(share)


@pytest.mark.parametrize("spacing", [1.5, 2.0, 3.0])
def test_a_ball_has_its_volume_whatever_the_spacing(spacing):
    painter = canvas([round(52 / spacing)] * 3, (spacing,) * 3)
    share = painter.soft(painter.ellipsoid((1.0, -0.5, 0.3), (20, 20, 20)))
    assert share.sum() * spacing**3 == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)


@given(st.integers(-12, 12), st.sampled_from([0, 1, 2]))
def test_along_its_axes_the_distance_to_an_ellipsoid_is_exact(offset, axis):
    radii, centre, through = (6.0, 9.0, 14.0), np.zeros(3), [7, 7, 7]
    centre[axis], through[axis] = offset + 0.4, slice(None)
    painter = canvas((15, 15, 15))
    expected = np.abs(painter.axes[axis] - centre[axis]) - radii[axis]
    np.testing.assert_allclose(painter.ellipsoid(centre, radii)[tuple(through)], expected, atol=1e-2)


def test_an_ellipsoid_is_negative_inside_and_nowhere_else():
    painter = canvas()
    radii = np.array([6.0, 9.0, 14.0])[:, None, None, None]
    inside = ((painter.points / radii) ** 2).sum(0) < 1
    np.testing.assert_array_equal(painter.ellipsoid((0, 0, 0), radii.ravel()) < 0, inside)


@pytest.mark.parametrize("radius", [4.0, 20.0])
def test_a_ball_is_deepest_in_its_centre(radius):
    assert canvas().ellipsoid((0, 0, 0), (radius,) * 3)[10, 9, 8] == pytest.approx(-radius, rel=0.01)


def test_the_distance_to_an_upright_cylinder_is_that_to_its_circle():
    painter = canvas()
    expected = np.hypot(painter.points[0] - 3, painter.points[1] + 1) - 8
    np.testing.assert_allclose(painter.cylinder((3, -1), (8, 8)), expected, atol=1e-4)


def test_a_larger_exponent_makes_a_cylinder_boxier_within_the_same_sides():
    painter = canvas()
    ellipse, box = (painter.cylinder((0, 0), (15, 9), exponent) < 0 for exponent in (2, 8))
    assert (box & ~ellipse).any()
    assert not (ellipse & ~box).any()
    np.testing.assert_array_equal(box.any((1, 2)), ellipse.any((1, 2)))


def tube(painter, start, end, radii=(4.0, 4.0)):
    share = np.zeros(painter.shape, dtype=np.float32)
    painter.add_tube(share, np.asarray(start, dtype=float), np.asarray(end, dtype=float), *radii)
    return share


def test_a_tube_has_the_volume_of_a_cylinder_with_round_ends():
    share = tube(canvas((30, 30, 30)), (-10, 2, 1), (8, -4, 5))
    length = np.linalg.norm([18, -6, 4])
    assert share.sum() * 8 == pytest.approx(np.pi * 4**2 * length + 4 / 3 * np.pi * 4**3, rel=0.04)


def test_a_tube_is_the_same_in_both_directions():
    painter = canvas()
    np.testing.assert_allclose(
        tube(painter, (-9, 3, 1), (8, -4, 5), (5, 2)), tube(painter, (8, -4, 5), (-9, 3, 1), (2, 5)), atol=1e-5
    )


def test_a_tube_of_no_length_is_a_ball():
    painter = canvas()
    np.testing.assert_allclose(
        tube(painter, (1, 1, 1), (1, 1, 1)), painter.soft(painter.ellipsoid((1, 1, 1), (4, 4, 4))), atol=1e-3
    )


def test_a_tube_takes_nothing_from_what_was_there():
    painter = canvas()
    share = np.full(painter.shape, 0.25, dtype=np.float32)
    painter.add_tube(share, np.zeros(3), np.array([0.0, 0.0, 9.0]), 3.0, 2.0)
    np.testing.assert_array_equal(share, np.maximum(tube(painter, (0, 0, 0), (0, 0, 9), (3, 2)), 0.25))


def test_of_a_tube_beyond_the_image_nothing_is_seen():
    assert not tube(canvas(), (300, 0, 0), (330, 0, 0)).any()


def test_a_tube_is_seen_whole_in_a_bent_space():
    painter = canvas((40, 40, 40), seed=3)
    painter.warp(6, 60)
    start, end = np.zeros(3), np.array([0.0, 0.0, 20.0])
    along = np.clip(painter.points[2] / 20, 0, 1) * 20
    distance = np.sqrt(painter.points[0] ** 2 + painter.points[1] ** 2 + (painter.points[2] - along) ** 2) - 4
    np.testing.assert_allclose(tube(painter, start, end), painter.soft(distance), atol=1e-4)


@pytest.mark.parametrize("wavelength_mm", [3.0, 11.0])
def test_a_field_has_mean_0_and_standard_deviation_1(wavelength_mm):
    painter = canvas((5, 4, 3), (2.0, 3.0, 5.0))
    values = np.stack([painter.field(wavelength_mm) for _ in range(250)])
    assert values.mean() == pytest.approx(0, abs=0.1)
    assert values.std() == pytest.approx(1, abs=0.05)
    assert values.std(0).min() > 0.8


def test_a_field_is_smoother_for_a_longer_wave():
    short, long = (np.diff(canvas(seed=1).field(wavelength), axis=0).std() for wavelength in (6, 40))
    assert long < 0.3 * short


def test_along_a_longer_spacing_a_field_changes_faster():
    values = canvas((20, 20, 20), (1.0, 1.0, 4.0)).field(12)
    assert np.diff(values, axis=2).std() > 2 * np.diff(values, axis=0).std()


def test_the_same_generator_draws_the_same_field():
    np.testing.assert_array_equal(canvas(seed=5).field(20), canvas(seed=5).field(20))
    assert not np.array_equal(canvas(seed=5).field(20), canvas(seed=6).field(20))


def test_a_warp_starts_from_straight_space_each_time():
    painter = canvas()
    straight = painter.points.copy()
    painter.warp(50, 30)
    painter.warp(0, 30)
    np.testing.assert_array_equal(painter.points, straight)


def test_a_warp_bends_by_its_amplitude():
    painter = canvas((40, 40, 40), seed=2)
    straight = painter.points.copy()
    painter.warp(5, 15)
    assert (painter.points - straight).std() == pytest.approx(5, rel=0.2)


def test_paint_covers_as_much_as_its_share():
    painter = canvas((3, 1, 1))
    painter.paint(np.array([0, 0.25, 1])[:, None, None], 200.0)
    np.testing.assert_allclose(painter.image.ravel(), [-1000, -700, 200])


def test_paint_may_vary_over_the_image():
    painter = canvas((2, 1, 1))
    painter.paint(np.ones((2, 1, 1)), np.array([5.0, 7.0])[:, None, None])
    np.testing.assert_array_equal(painter.image.ravel(), [5, 7])
