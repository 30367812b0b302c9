import numpy as np
import pytest

from common.report.tumours import PIXELS, PLANES, view_of, views_figure


def scene(spacing_mm=(2.0, 2.0, 2.0)):
    shape = [round(120 / mm) for mm in spacing_mm]
    x, y, z = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(shape, spacing_mm, strict=True)), indexing="ij")
    tumour = ((x - 60) / 20) ** 2 + ((y - 60) / 10) ** 2 + ((z - 60) / 6) ** 2 <= 1
    return np.where(tumour, 0.0, 100.0) + x, tumour


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (0.8, 0.8, 5.0)])
def test_planes_show_a_tumour_in_mm_whatever_the_voxels(spacing_mm):
    image, tumour = scene(spacing_mm)
    view = view_of("a", image, tumour, spacing_mm)
    assert view.image.shape == view.outline.shape == (len(PLANES), PIXELS, PIXELS)
    extents = [[np.ptp(np.flatnonzero(plane.any(axis))) * 64 / PIXELS for axis in (1, 0)] for plane in view.outline]
    expected = [(40, 20), (40, 12), (20, 12)]
    np.testing.assert_allclose(extents, expected, atol=2 * max(spacing_mm))


def test_beyond_the_border_of_an_image_there_is_air():
    image, tumour = scene()
    tumour[:] = False
    tumour[:2, :2, :2] = True
    view = view_of("a", image, tumour, (2.0, 2.0, 2.0), before=image + 1)
    assert (view.image[:, :20] == -1000).all()
    known = view.image > -1000
    np.testing.assert_array_equal(view.before[known], view.image[known] + 1)


def test_a_figure_has_a_row_a_tumour_and_the_plane_before_where_that_is_known():
    image, tumour = scene()
    known = view_of("b", image, tumour, (2.0, 2.0, 2.0), before=image)
    assert len(panels(views_figure([known, known]))) == 8
    assert len(panels(views_figure([view_of("a", image, tumour, (2.0, 2.0, 2.0))]))) == 3


def panels(figure):
    return [axis for axis in figure.axes if axis.get_title()]


def test_all_planes_have_the_scale_of_a_tumour_view():
    image, tumour = scene()
    figure = views_figure([view_of("a", image, tumour, (2.0, 2.0, 2.0))])
    assert [bar.txt_label.get_text() for axis in panels(figure) for bar in axis.artists] == ["2 cm"] * 3
