import io
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from common.metrics.pixels import PooledCounts, count_scores
from common.report.figures import (
    OUTLINES,
    Display,
    Panel,
    View,
    costs_figure,
    curves_figure,
    froc_figure,
    overlay_figure,
    panel_grid,
    png,
    samples_figure,
    save_png,
)


def case(shape=(20, 16, 6), **more):
    """Return a view with one lesion; slice 1, 2, 3 and 4 are the more anomalous the higher."""
    image, healthy = np.full(shape, 50.0), np.full(shape, 60.0)
    organ, anomaly = np.zeros(shape, dtype=bool), np.zeros(shape)
    organ[5:15, 4:12, 1:5] = True
    anomaly[8:10, 6:8, 1:5] = [10, 20, 30, 40]
    return replace(View(image, healthy, anomaly, anomaly > 15, organ, pixel_mm=(3.0, 3.0)), **more)


def three(figure):
    """Return the axes of the three panels of a slice, without those of colour bars."""
    return [axis for axis in figure.axes if axis.get_title()]


def titles(figure):
    return [axis.get_title() for axis in three(figure)]


def rendered(figure):
    """Return the pixels of a figure, grey, rows from the top."""
    return imread(io.BytesIO(png(figure)))[..., :3].mean(-1)


def outlines(axis):
    """Return the kinds of an axis' outlines, told by their colours."""
    kinds = {to_rgb(colour): kind for kind, (colour, _) in OUTLINES.items()}
    return [kinds[tuple(collection.get_edgecolor()[0][:3])] for collection in axis.collections]


def test_the_patients_right_is_on_the_left_and_the_front_at_the_top():
    slice_ = np.full((30, 30), -1000.0)
    before = np.argwhere(rendered(panel_grid([[Panel(grey=slice_)]])) < 0.01).mean(0)
    slice_[20:, 20:] = 1000  # right and front
    after = np.argwhere(rendered(panel_grid([[Panel(grey=slice_)]])) < 0.01).mean(0)
    assert (after > before + 1).all()  # what is left black lies lower and further to the right


def test_outlines_lie_where_the_picture_shows_their_mask():
    organ = np.zeros((30, 20), dtype=bool)
    organ[22:28, 3:7] = True
    (axis,) = panel_grid([[Panel(grey=organ * 200.0, outlines={"organ": organ})]]).axes
    shown = axis.images[0].get_array() > 0
    rows, columns = np.nonzero(shown)
    (outline,) = axis.collections[0].get_paths()
    inside = outline.vertices
    assert (columns.min() - 0.5, columns.max() + 0.5) == pytest.approx((inside[:, 0].min(), inside[:, 0].max()))
    assert (rows.min() - 0.5, rows.max() + 0.5) == pytest.approx((inside[:, 1].min(), inside[:, 1].max()))


@pytest.mark.parametrize("mask", [np.zeros((8, 8), dtype=bool), np.ones((8, 8), dtype=bool)])
def test_a_mask_without_a_border_has_no_outline(mask):
    (axis,) = panel_grid([[Panel(grey=np.zeros((8, 8)), outlines={"organ": mask})]]).axes
    assert outlines(axis) == []


def test_a_map_is_transparent_where_it_is_nothing_and_faint_where_it_is_little():
    heat = np.array([[0.0, -5.0], [5.0, 60.0]])
    (axis,) = panel_grid([[Panel(grey=np.zeros((2, 2)), heat=heat)]]).axes
    grey, shown = axis.images
    assert grey.get_clim() == (-125, 225)
    assert shown.get_alpha().tolist() == [[0.375, 0.0], [0.75, 0.0]]


def test_a_map_alone_is_shown_all_over():
    (axis,) = panel_grid([[Panel(heat=np.zeros((2, 2)))]]).axes
    assert axis.images[0].get_alpha() is None


def test_pixels_keep_their_proportions():
    assert panel_grid([[Panel(grey=np.zeros((8, 8)))]], aspect=2.5).axes[0].get_aspect() == 2.5


def test_of_one_lesion_the_slice_with_most_of_the_map_is_shown():
    assert case().slices(1) == [4]


def test_each_lesion_is_shown_before_one_is_shown_twice():
    two = case()
    two.scores[12:14, 6:8, 1] = two.mask[12:14, 6:8, 1] = 20
    assert two.slices(2) == [1, 4]


def test_slices_that_show_no_other_lesion_are_far_from_one_another():
    wide = case((20, 16, 40))
    wide.organ[5:15, 4:12] = True
    wide.scores[wide.organ] += 1
    chosen = wide.slices(4)
    assert 4 in chosen
    assert min(np.diff(chosen)) > 5


def test_where_the_map_is_zero_slices_are_spread_over_the_organ():
    empty = case()
    empty.scores[:] = empty.mask[:] = 0
    assert empty.slices(2) == [1, 4]


def test_scores_outside_the_organ_and_below_zero_do_not_choose_slices():
    odd = case()
    odd.scores[0, 0, 1] = 1000
    odd.scores[12, 8, 4] = -1000
    assert odd.slices(1) == [4]


def test_slices_without_the_organ_are_not_shown():
    assert case().slices(99) == [1, 2, 3, 4]


def test_slices_stand_side_by_side_under_their_numbers_and_the_sequence():
    assert titles(overlay_figure(case(), [3, 4]))[:2] == ["slice 3, CT", "slice 4, CT"]


def test_a_single_slice_is_shown_like_those_of_a_volume():
    flat = View(
        *(array[..., 3:4] for array in (case().image, case().version, case().scores, case().mask, case().organ))
    )
    assert titles(overlay_figure(flat, [0], "a")) == ["CT", "healthy version", "anomaly"]


def test_a_column_shows_the_image_its_healthy_version_and_the_map():
    image, healthy, map_ = three(overlay_figure(case(), [4]))
    assert (image.images[0].get_array() == 50).all()
    assert (healthy.images[0].get_array() == 60).all()
    assert map_.images[1].get_array().max() == 40


def test_organ_mask_and_lesions_have_outlines_of_their_own():
    image, healthy, map_ = three(overlay_figure(case(label=case().organ & (case().scores > 25)), [4]))
    assert outlines(image) == ["organ", "label"]
    assert outlines(healthy) == []
    assert outlines(map_) == ["mask", "label"]


def test_outlines_differ_in_style_as_well_as_in_colour():
    colours, styles = zip(*(OUTLINES[kind] for kind in ("organ", "mask", "label")), strict=True)
    assert len(set(colours)) == len(set(styles)) == 3


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def test_the_legend_names_what_is_drawn_and_nothing_else():
    assert legend(overlay_figure(case(), [4])) == ["part that was searched", "lesion by the mask"]
    known = case(label=case().mask)
    assert legend(overlay_figure(known, [4]))[2:] == ["lesion by the label"]
    everywhere = np.ones((8, 8), dtype=bool)  # has no border to draw
    assert legend(panel_grid([[Panel(grey=np.zeros((8, 8)), outlines={"organ": everywhere})]])) == []


def test_every_row_has_a_colour_bar_with_its_unit():
    bars = [axis for axis in overlay_figure(case(), [3, 4]).axes if not axis.get_title()]
    assert [bar.get_ylabel() for bar in bars] == ["HU", "HU", "HU"]
    assert [bar.get_ylim() for bar in bars] == [(-125, 225), (-125, 225), (0, 50)]


def letters(axis):
    return [text.get_text() for text in axis.texts]


def test_right_and_left_are_marked_and_the_scale_is_shown():
    image, *others = three(overlay_figure(case(), [4]))
    assert [letters(axis) for axis in (image, *others)] == [["R", "L"]] * 3
    assert [bar.txt_label.get_text() for bar in image.artists] == ["2 cm"]


def test_where_orientation_is_unknown_nothing_is_marked():
    image, *_ = three(overlay_figure(case(pixel_mm=None), [4]))
    assert letters(image) == list(image.artists) == []


@pytest.mark.parametrize(("pixel_mm", "words"), [(0.05, "1 mm"), (0.3, "5 mm"), (0.7, "1 cm"), (10.0, "20 cm")])
def test_a_scale_has_a_round_length_and_takes_a_third_of_the_width_at_the_most(pixel_mm, words):
    (axis,) = panel_grid([[Panel(grey=np.zeros((64, 64)), pixel_mm=pixel_mm)]]).axes
    assert [bar.txt_label.get_text() for bar in axis.artists] == [words]


def test_a_small_part_of_a_slice_is_shown_below_the_whole_of_it():
    figure = overlay_figure(case((100, 80, 6)), [4])
    assert titles(figure) == ["the whole slice", "slice 4, CT", "healthy version", "anomaly"]
    assert outlines(three(figure)[0]) == ["frame"]


def test_a_lesion_far_from_the_organ_is_outlined_in_the_whole_slice():
    view = replace(case((100, 80, 6)), label=np.zeros((100, 80, 6), bool))
    view.label[90:95, 70:75, 4] = True
    assert outlines(three(overlay_figure(view, [4]))[0]) == ["frame", "label"]


def test_the_organ_is_shown_with_a_margin_within_the_image():
    shape = overlay_figure(case((60, 16, 6)), [4]).axes[0].images[0].get_array().shape
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
    axes = three(samples_figure(real, generated))
    assert [axis.get_title() for axis in axes[:4]] == ["real 1", "real 2", "real 3", "generated 1"]
    assert [float(axis.images[0].get_array().mean()) for axis in axes] == [1, 1, 1, 2, 2, 2]


def test_the_same_picture_has_the_same_bytes():
    assert png(overlay_figure(case(), [4])) == png(overlay_figure(case(), [4]))


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


def test_what_methods_score_stands_over_what_they_cost():
    scores = {"default": (60.0, {"ap": (0.5, 0.4, 0.6)}), "control": (0.0, {"ap": (0.3, np.nan, np.nan)})}
    figure = costs_figure(scores, {"ap": "AP"})
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["default", "control"]
    assert axis.get_xscale() == "symlog"  # what costs nothing has a place, too
    assert next(line for line in axis.lines if len(line.get_xdata()) == 1).get_marker() == "*"
    assert axis.get_title() == "AP"


def test_figures_do_not_pile_up():
    overlay_figure(case(), [4])
    assert plt.get_fignums() == []


def test_another_modality_has_its_own_windows_and_words():
    display = Display(
        window=None, image_unit="intensity", map_window=(0, 2), unit="of 4", version="translated", sequences=["flair"]
    )
    other = case(display=display)
    other.image[..., 4] -= np.arange(320).reshape(20, 16)
    figure = overlay_figure(other, [4])
    assert titles(figure) == ["slice 4, FLAIR", "translated", "anomaly"]
    assert [axis.get_ylabel() for axis in figure.axes if not axis.get_title()] == ["intensity", "of 4"]
    image, _, map_ = three(figure)
    assert image.images[0].get_clim() == tuple(np.percentile(other.image, [0.5, 99.5]))
    assert map_.images[1].get_clim() == (0, 2)


def test_a_difference_too_small_to_be_seen_in_the_image_is_shown_by_itself():
    change = np.zeros((20, 16, 6))
    change[8:10, 6:8, 4] = [[1.0, -2.0], [0.5, 0.0]]
    flat = case(display=Display(difference=True, window=(0, 1000)))
    _, version, _ = three(overlay_figure(replace(flat, version=flat.image + change), [4]))
    low, high = version.images[0].get_clim()
    assert low == -high
    assert 0 < high <= 2
    assert version.images[0].get_array().min() == -2


def test_a_version_without_any_difference_can_be_drawn():
    same = case(display=Display(difference=True))
    assert png(overlay_figure(replace(same, version=same.image), [4])).startswith(b"\x89PNG")


def test_no_shape_makes_a_picture_that_is_too_large():
    noise = np.random.default_rng(0).normal(0, 100, (60, 1000, 4))
    everywhere = np.ones(noise.shape, dtype=bool)
    view = View(noise, noise, noise, noise > 20, everywhere, noise > 50, (0.5, 2.0))
    assert len(png(overlay_figure(view, view.slices(4)))) < 7e6  # as text on a page 10 MB at the most
