import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.image import imread

from common.metrics.pixels import PooledCounts, count_scores
from common.report.figures import (
    Display,
    Panel,
    curves_figure,
    froc_figure,
    overlay_figure,
    panel_grid,
    png,
    samples_figure,
    save_png,
)


def case(shape=(20, 16, 6)):
    """Return image, healthy version, map, mask and organ; slice 1, 2, 3 and 4 are the more anomalous the higher."""
    image, healthy = np.full(shape, 50.0), np.full(shape, 60.0)
    organ, anomaly = np.zeros(shape, dtype=bool), np.zeros(shape)
    organ[5:15, 4:12, 1:5] = True
    anomaly[8:10, 6:8, 1:5] = [10, 20, 30, 40]
    return image, healthy, anomaly, anomaly > 15, organ


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def rendered(figure):
    """Return the pixels of a figure, grey, rows from the top."""
    return imread(io.BytesIO(png(figure)))[..., :3].mean(-1)


def outlines(axis):
    """Return the colours of an axis' outlines."""
    return [tuple(collection.get_edgecolor()[0][:3]) for collection in axis.collections]


CYAN, YELLOW, LIME = (0, 1, 1), (1, 1, 0), (0, 1, 0)


def test_the_patients_right_is_on_the_left_and_the_front_at_the_top():
    slice_ = np.full((30, 30), -1000.0)
    before = np.argwhere(rendered(panel_grid([[Panel(grey=slice_)]])) < 0.01).mean(0)
    slice_[20:, 20:] = 1000  # right and front
    after = np.argwhere(rendered(panel_grid([[Panel(grey=slice_)]])) < 0.01).mean(0)
    assert (after > before + 1).all()  # what is left black lies lower and further to the right


def test_outlines_lie_where_the_picture_shows_their_mask():
    organ = np.zeros((30, 20), dtype=bool)
    organ[22:28, 3:7] = True
    (axis,) = panel_grid([[Panel(grey=organ * 200.0, outlines={"cyan": organ})]]).axes
    shown = axis.images[0].get_array() > 0
    rows, columns = np.nonzero(shown)
    (outline,) = axis.collections[0].get_paths()
    inside = outline.vertices
    assert (columns.min() - 0.5, columns.max() + 0.5) == pytest.approx((inside[:, 0].min(), inside[:, 0].max()))
    assert (rows.min() - 0.5, rows.max() + 0.5) == pytest.approx((inside[:, 1].min(), inside[:, 1].max()))


@pytest.mark.parametrize("mask", [np.zeros((8, 8), dtype=bool), np.ones((8, 8), dtype=bool)])
def test_a_mask_without_a_border_has_no_outline(mask):
    (axis,) = panel_grid([[Panel(grey=np.zeros((8, 8)), outlines={"cyan": mask})]]).axes
    assert outlines(axis) == []


def test_a_map_is_transparent_where_it_is_not_above_zero():
    heat = np.array([[0.0, -5.0], [0.1, 60.0]])
    (axis,) = panel_grid([[Panel(grey=np.zeros((2, 2)), heat=heat)]]).axes
    grey, shown = axis.images
    assert grey.get_clim() == (-125, 225)
    assert np.ma.getmaskarray(shown.get_array()).tolist() == [[False, True], [False, True]]


def test_a_map_alone_is_shown_all_over():
    (axis,) = panel_grid([[Panel(heat=np.zeros((2, 2)))]]).axes
    assert not np.ma.getmaskarray(axis.images[0].get_array()).any()


def test_pixels_keep_their_proportions():
    assert panel_grid([[Panel(grey=np.zeros((8, 8)))]], aspect=2.5).axes[0].get_aspect() == 2.5


def test_the_most_anomalous_slices_are_shown_in_the_order_of_the_body():
    assert titles(overlay_figure(*case(), num_slices=2))[:2] == ["slice 3", "slice 4"]


def test_scores_outside_the_organ_and_below_zero_do_not_choose_slices():
    image, healthy, anomaly, mask, organ = case()
    anomaly[0, 0, 1] = 1000
    anomaly[12, 8, 4] = -1000
    assert titles(overlay_figure(image, healthy, anomaly, mask, organ, num_slices=1))[0] == "slice 4"


def test_slices_without_the_organ_are_not_shown():
    assert titles(overlay_figure(*case(), num_slices=99))[:4] == ["slice 1", "slice 2", "slice 3", "slice 4"]


def test_a_single_slice_is_shown_like_those_of_a_volume():
    figure = overlay_figure(*(array[..., 3] for array in case()), truth=case()[3][..., 3], title="a")
    assert titles(figure) == ["image", "healthy version", "anomaly, 0 to 50 HU"]


def test_a_column_shows_the_image_its_healthy_version_and_the_map():
    image, healthy, map_ = overlay_figure(*case(), num_slices=1).axes
    assert (image.images[0].get_array() == 50).all()
    assert (healthy.images[0].get_array() == 60).all()
    assert map_.images[1].get_array().max() == 40


def test_organ_mask_and_lesions_have_their_colours():
    truth = case()[2] > 25
    image, healthy, map_ = overlay_figure(*case(), truth=truth, num_slices=1).axes
    assert outlines(image) == [CYAN, LIME]
    assert outlines(healthy) == []
    assert outlines(map_) == [YELLOW, LIME]


def test_the_organ_is_shown_with_a_margin_within_the_image():
    shape = overlay_figure(*case((60, 16, 6)), num_slices=1).axes[0].images[0].get_array().shape
    assert shape == (16, 5 + 10 + 8)  # rows are the second axis, of which the margin takes all


def curve(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(500) < 0.2
    return PooledCounts([count_scores(truth + rng.normal(0, 1, 500), truth)]).curve()


def test_each_method_is_in_both_plots_with_its_number():
    curves = {"GDPI": curve(0), "control": curve(1)}
    roc, pr = curves_figure(curves).axes
    assert [text.get_text() for text in roc.get_legend().get_texts()] == [
        f"{name}, {c.auroc():.3f}" for name, c in curves.items()
    ]
    assert [text.get_text() for text in pr.get_legend().get_texts()] == [
        f"{name}, {c.average_precision():.3f}" for name, c in curves.items()
    ]


def test_a_roc_curve_goes_from_corner_to_corner_however_few_points_it_has():
    for points in (2, 2000):
        x, y = curves_figure({"a": curve(0)}, points).axes[0].lines[0].get_data()
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_a_froc_curve_ends_where_it_is_said_to():
    (axis,) = froc_figure(np.array([0.0, 1, 20]), np.array([0.0, 0.5, 1]), end=8).axes
    assert axis.get_xlim() == (0, 8)
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [0, 0.5, 1])


def test_real_slices_stand_above_generated_ones():
    real, generated = np.full((3, 8, 6), 1.0), np.full((3, 8, 6), 2.0)
    axes = samples_figure(real, generated).axes
    assert [axis.get_title() for axis in axes[:4]] == ["real 1", "real 2", "real 3", "generated 1"]
    assert [float(axis.images[0].get_array().mean()) for axis in axes] == [1, 1, 1, 2, 2, 2]


def test_the_same_picture_has_the_same_bytes():
    assert png(overlay_figure(*case(), num_slices=1)) == png(overlay_figure(*case(), num_slices=1))


def test_a_png_is_a_png_of_the_size_of_its_figure():
    figure = panel_grid([[Panel(grey=np.zeros((8, 8)))] * 2])
    picture = png(figure, dpi=50)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = figure.get_size_inches()
    assert imread(io.BytesIO(picture)).shape[:2] == (int(height * 50), int(width * 50))


def test_a_saved_picture_makes_its_folder(tmp_path):
    figure = panel_grid([[Panel(grey=np.zeros((8, 8)))]])
    save_png(figure, tmp_path / "case 1" / "a.png")
    assert (tmp_path / "case 1" / "a.png").read_bytes() == png(figure)


def test_figures_do_not_pile_up():
    overlay_figure(*case(), num_slices=1)
    assert plt.get_fignums() == []


def test_another_modality_has_its_own_windows_and_words():
    display = Display(window=None, map_window=(0, 2), unit="of 4", version="translated")
    shades, *others = case()
    shades[..., 4] -= np.arange(320).reshape(20, 16)
    image, translated, map_ = overlay_figure(shades, *others, num_slices=1, display=display).axes
    assert [axis.get_title() for axis in (translated, map_)] == ["translated", "anomaly, 0 to 2 of 4"]
    assert image.images[0].get_clim() == tuple(np.percentile(shades, [0.5, 99.5]))
    assert map_.images[1].get_clim() == (0, 2)
