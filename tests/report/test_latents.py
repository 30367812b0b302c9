import numpy as np
import pytest

from common.report.latents import evidence_figure, histogram_figure, map_figure, reliability_figure

RNG = np.random.default_rng(0)


def legend_of(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_a_map_of_vectors_has_classes_and_sites():
    figure = map_figure(RNG.normal(size=(4, 2)), [0, 1, None, 1], ["a", "b", "", "b"])
    assert legend_of(figure.axes[0]) == ["class 0", "class 1", "site unknown", "a", "b"]


def test_calibration_has_a_line_a_group():
    rows = [{"probability": 0.6, "true": 0.5, "cases": 4}, {"probability": 0.9, "true": 1.0, "cases": 2}]
    (axis,) = reliability_figure({"target": rows, "source": rows[:1]}).axes
    assert legend_of(axis) == ["target", "source"]
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [0.5, 1.0])


def test_intensities_have_a_line_a_site():
    (axis,) = histogram_figure({"a": np.full(4, 0.25), "b": np.array([0, 0, 0, 1])}).axes
    assert legend_of(axis) == ["a", "b"]
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize(("shape", "columns"), [((6, 7), 1), ((6, 7, 8), 3)])
def test_evidence_is_drawn_over_the_planes_through_its_highest_voxel(shape, columns):
    image, evidence = np.zeros(shape), np.zeros(shape)
    place = (2, 3, 5)[: len(shape)]
    image[place] = evidence[place] = 1
    figure = evidence_figure(image, evidence, "a case")
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert len(panels) == 2 * columns
    assert all(axis.images[0].get_array().max() == 1 for axis in panels)


def test_planes_of_a_volume_say_what_lies_at_their_sides():
    image = np.ones((6, 7, 8))
    axial, coronal, sagittal, *_ = (axis for axis in evidence_figure(image, image, "a").axes if axis.get_title())
    sides = [[text.get_text() for text in axis.texts] for axis in (axial, coronal, sagittal)]
    assert sides == [["R", "L"], ["R", "L"], ["A", "P"]]
