import numpy as np
import pytest
import torch
from evaluated import (
    CHANNELS,
    FILM_CHANNELS,
    NAME,
    ORIENTATIONS,
    Prepared,
    classified,
    film,
    item,
    marked,
    run,
    run_classifier,
    run_with_probability,
    table,
)
from matplotlib.image import imread
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from common.evaluation import CaseEvaluator
from common.files import Failures
from common.handlers.detection import Detection
from common.handlers.report import CaseReport, Previews, case_figure, view_of, write_samples
from common.report.figures import Display, png
from common.transforms.channels import SplitChannelsd


def test_the_report_of_films_has_no_volumes(tmp_path):
    detection = Detection()
    handler = CaseReport(str(tmp_path), "Title", scores=detection)
    run([film("a", True), film("b", False, 0.1)], detection, handler, channels=FILM_CHANNELS)
    assert np.isnan(handler.rows[0]["mask, ml"])
    assert handler.rows[0]["mask, % of the organ"] == pytest.approx(100 * 4 / 48)
    assert headings(tmp_path)[2:4] == ["Detection", "Detection by case"]


def test_the_classifiers_confidence_stands_in_tables_and_report(tmp_path):
    detection = Detection(str(tmp_path))
    report = CaseReport(str(tmp_path), "Title", scores=detection, num_slices=1)
    run_with_probability([item("a"), marked("below", with_label=False)], detection, report)
    a, below = table(tmp_path / "per_patient.csv")
    assert (float(a["probability"]), float(below["probability"])) == pytest.approx((0.7, 0.7))
    assert float(below["probability_at_point"]) == pytest.approx(0.2)
    assert [row["misclassified"] for row in table(tmp_path / "per_slice.csv")] == ["0", "0"]
    assert [row["highest probability of disease"] for row in report.rows] == pytest.approx([0.7, 0.7])
    assert "Dice without misclassified" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_page_of_marked_cases_alone_has_their_distances(tmp_path):
    detection = Detection()
    handler = CaseReport(str(tmp_path), "Title", scores=detection, num_slices=1)
    run([marked("beside", with_label=False)], detection, handler)
    assert headings(tmp_path) == ["What was found", "Cases", "Detection by case", "Versions"]
    assert "peak to point, mm" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_remarks_on_a_case_stand_beside_it(tmp_path):
    handler = CaseReport(str(tmp_path), "Title", num_slices=1)
    run([item("a"), {**item("b"), "remarks": "it looks like noise"}], handler)
    assert [row.get("remarks") for row in handler.rows] == [None, "it looks like noise"]
    assert "it looks like noise" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_pictures_of_films_that_do_not_tell_their_orientation_may_be_turned():
    made = film("a", True)
    output = {**SplitChannelsd("pred", FILM_CHANNELS)({"pred": made["image"][1:]}), **made}
    plain, turned = (view_of(output, Display(rotate=turns)) for turns in (0, 1))
    assert plain.pixel_mm is None
    np.testing.assert_array_equal(turned.scores, np.rot90(plain.scores))
    placed = as_output(item())
    np.testing.assert_array_equal(view_of(placed, Display(rotate=1)).scores, view_of(placed).scores)


@pytest.mark.parametrize("name", ["$", "$x$", "a_$1^{", r"\frac"])
def test_a_name_is_drawn_as_it_is(name):
    assert png(case_figure(name, as_output(item()), 1)).startswith(b"\x89PNG")


def as_output(made):
    """Return a case as an evaluator's output has it."""
    return {**SplitChannelsd("pred", CHANNELS)({"pred": made["image"][1:]}), **made}


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_pictures_do_not_depend_on_how_a_file_is_stored(axcodes):
    expected, got = (case_figure("a", as_output(item(axcodes=codes)), 1).axes for codes in ("RAS", axcodes))
    assert [axis.get_title() for axis in got] == [axis.get_title() for axis in expected]
    for left, right in zip(*([axis for axis in axes if axis.get_title()] for axes in (expected, got)), strict=True):
        np.testing.assert_array_equal(left.images[-1].get_array(), right.images[-1].get_array())
        assert left.get_aspect() == pytest.approx(right.get_aspect())


def test_pictures_have_the_proportions_of_the_patient():
    assert case_figure("a", as_output(item()), 1).axes[0].get_aspect() == pytest.approx(3 / 2)


def test_a_case_without_label_has_a_picture_without_lesions():
    assert len(case_figure("a", as_output(item(with_label=False)), 1).axes[0].collections) == 1  # the organ


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a run with two cases, one of them without label, and a case that failed: handler and folder."""
    folder, failures = tmp_path_factory.mktemp("eval"), Failures()
    failures.add("broken", "there is <no> organ")
    detection = Detection()
    handler = CaseReport(str(folder), "Title", "Notice", {"seed": 0}, detection, failures, num_slices=1)
    run([item("z"), item(NAME, with_label=False, score=15.0)], detection, handler)
    return handler, folder


def test_each_case_has_its_picture(report):
    for case in ("z", NAME):
        assert imread(report[1] / case / f"{case}_overlay.png").ndim == 3


def test_a_report_measures_organ_and_mask(report):
    rows = {row["case"]: row for row in report[0].rows}
    assert rows["z"]["slices with organ"] == 2
    assert rows["z"]["organ, ml"] == pytest.approx(8 * 6 * 2 * 0.03)
    assert rows["z"]["mask, ml"] == pytest.approx(4 * 0.03)
    assert rows["z"]["mean anomaly, HU"] == pytest.approx((4 * 30 + 10) / (8 * 6 * 2))
    assert rows["z"]["highest anomaly, HU"] == 30
    assert rows[NAME]["mask, ml"] == 0
    assert rows["z"]["seconds of inference"] > 0


def headings(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    return [part.partition("</h2>")[0] for part in text.split("<h2>")[1:]]


def test_the_page_has_its_sections_in_order(report):
    assert headings(report[1]) == [
        "Cases that could not be done",
        "What was found",
        "Cases",
        "Detection",
        "Detection by case",
        "Parameters",
        "Versions",
    ]


def test_what_was_found_is_open_and_all_that_follows_it_is_folded(report):
    text = (report[1] / "report.html").read_text(encoding="utf-8")
    assert text.count("<details>") == 5
    assert text.index("What was found") < text.index("<details>") < text.index("<h2>Cases</h2>")


def test_the_page_begins_with_how_many_cases_and_how_much(report):
    top = (report[1] / "report.html").read_text(encoding="utf-8").partition("<h2>")[0]
    for words in (
        "<dt>cases</dt>",
        "2 of 3",
        "1 could not be done",
        "2.88 ml",
        "0.06 ml",
        "0 to 0.12 ml",
        "pixel AUROC, pooled",
    ):
        assert words in top


def test_the_caption_of_a_case_says_what_was_measured(report):
    text = (report[1] / "report.html").read_text(encoding="utf-8")
    assert "z: slices with organ 2; organ 2.88 ml; mask 0.12 ml; mask 4.17 % of the organ;" in text


def test_no_path_of_the_machine_is_on_the_page(tmp_path):
    failures, parameters = Failures(), {"weights": "/home/somebody/models/model.pt", "data": str(tmp_path / "demo")}
    failures.add("broken", "/home/somebody/broken.nii.gz: expected a volume, got a slice.")
    handler = CaseReport(str(tmp_path / "eval"), "Title", parameters=parameters, failures=failures, num_slices=1)
    run([{**item(), "remarks": "/home/somebody/a.nii.gz looks like noise"}], handler)
    text = (tmp_path / "eval" / "report.html").read_text(encoding="utf-8")
    assert "/home/" not in text
    assert str(tmp_path) not in text
    for words in ("<td>model.pt</td>", "<td>../demo</td>", "broken.nii.gz: expected", "a.nii.gz looks"):
        assert words in text


def test_the_slice_with_most_missed_and_the_one_with_most_false_are_shown(tmp_path):
    found, missed = item("found"), item("missed", score=5.0)
    false = item("false", lesions=0)
    run([found, missed, false], CaseReport(str(tmp_path), "Title", num_slices=1))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    misses, false = text[text.index("Worst miss") :].split("Most false")
    assert "missed, slice 2: 0.24 cm² missed" in misses
    assert "false, slice 2: 0.24 cm² false" in false
    assert "found, slice" not in text


def test_a_run_without_errors_shows_none(tmp_path):
    run([item()], CaseReport(str(tmp_path), "Title", num_slices=1))
    assert headings(tmp_path) == ["What was found", "Cases", "Versions"]


def test_all_slices_lie_beside_the_page_if_asked_for(tmp_path):
    run([item("a b")], CaseReport(str(tmp_path), "Title", num_slices=1, all_slices=True))
    assert sorted(path.name for path in (tmp_path / "a b" / "slices").iterdir()) == ["001.png", "002.png"]
    assert 'src="a%20b/slices/001.png"' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_film_has_no_sides_and_no_scale(tmp_path):
    run([film("a", True)], CaseReport(str(tmp_path), "Title"), channels=FILM_CHANNELS)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "unknown" in text
    assert "right (R)" not in text


def test_a_case_without_an_organ_is_drawn_as_a_whole():
    output = as_output(item())
    output["organ"] = output["organ"] * 0
    image, *_ = case_figure("a", output, 1).axes
    assert image.images[0].get_array().shape == (12, 14)


def test_the_page_names_cases_failures_and_parameters_as_text(report):
    text = (report[1] / "report.html").read_text(encoding="utf-8")
    for words in ("Title", "Notice", "a &lt;b&gt; &amp; c", "there is &lt;no&gt; organ", "<td>seed</td>"):
        assert words in text
    assert NAME not in text
    assert "Warning" not in text


def test_the_page_holds_the_picture_of_each_case_and_three_of_curves(report):
    assert (report[1] / "report.html").read_text(encoding="utf-8").count("data:image/png;base64,") == 5


def test_without_labels_the_page_says_nothing_of_detection(tmp_path):
    detection = Detection()
    run([item(with_label=False)], detection, CaseReport(str(tmp_path), "Title", scores=detection, num_slices=1))
    assert headings(tmp_path) == ["What was found", "Cases", "Versions"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """The report of a run whose cases have classes and nothing to draw: handler and folder."""
    folder = tmp_path_factory.mktemp("classes")
    handler = CaseReport(str(folder), "Title")
    run_classifier([classified("b", [0.25, 0.75], 1), classified("a", [0.625, 0.375])], handler)
    return handler, folder


def test_cases_without_a_map_are_listed_without_pictures(classes):
    _, folder = classes
    assert headings(folder) == ["Cases", "Versions"]
    assert "data:image/png" not in (folder / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_cases_without_a_map_are_listed_with_the_probabilities_of_their_classes(classes):
    rows = {row["case"]: row for row in classes[0].rows}
    assert [rows["b"][f"probability of class {k}"] for k in (0, 1)] == [0.25, 0.75]
    assert list(rows["a"]) == ["case", "probability of class 0", "probability of class 1", "seconds of inference"]


@pytest.mark.parametrize("missing", ["mask", "organ", "anomaly"])
def test_a_case_that_lacks_an_image_stands_beside_others_without_a_picture(tmp_path, missing):
    class Without:
        def __call__(self, output):
            output = SplitChannelsd("pred", FILM_CHANNELS)(output)
            return {k: v for k, v in output.items() if (output["case"], k) != ("b", missing)}

    handler = CaseReport(str(tmp_path), "Title")
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([film("b", True), film("a", True)]), batch_size=1),
        network=nn.Identity(),
        inferer=Prepared(),
        postprocessing=Without(),
        val_handlers=[handler],
    ).run()
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a_overlay.png"]
    assert headings(tmp_path) == ["What was found", "Cases", "Versions"]


class FindsNothing:
    def __call__(self, inputs, network):
        raise ValueError("there is no organ")


class Doubtful(Prepared):
    def threshold_warning(self, network):
        return "the threshold is <not> that of this run."


def test_what_is_doubtful_about_the_threshold_stands_at_the_top(tmp_path):
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([item()]), batch_size=1),
        network=nn.Identity(),
        inferer=Doubtful(),
        postprocessing=SplitChannelsd("pred", CHANNELS),
        val_handlers=[CaseReport(str(tmp_path), "Title", "Notice")],
    ).run()
    top = (tmp_path / "report.html").read_text(encoding="utf-8").partition("<h2>")[0]
    assert "the threshold is &lt;not&gt; that of this run." in top


def test_if_no_case_could_be_done_the_page_says_why(tmp_path):
    failures = Failures()
    CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([item()]), batch_size=1),
        network=nn.Identity(),
        inferer=FindsNothing(),
        val_handlers=[CaseReport(str(tmp_path), "Title", failures=failures)],
        failures=failures,
    ).run()
    assert headings(tmp_path) == ["Cases that could not be done", "Versions"]
    assert "there is no organ" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_second_run_has_a_report_of_its_own(tmp_path):
    handler = CaseReport(str(tmp_path), "Title", num_slices=1)
    run([item()], handler).run()
    assert len(handler.rows) == 1


def test_previews_are_shown_under_their_case_and_epoch(tmp_path):
    run([item()], Previews(str(tmp_path)), epoch=3)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == ["a"]
    (image,) = events.Images("a")
    assert image.step == 3
    assert image.encoded_image_string[:4] == b"\x89PNG"


def test_cases_without_a_map_have_no_preview(tmp_path):
    run_classifier([classified("a", [0.25, 0.75])], Previews(str(tmp_path)))
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == []


def test_samples_may_be_tensors_or_arrays(tmp_path):
    write_samples(str(tmp_path / "tensors.png"), torch.zeros(2, 8, 8), torch.ones(2, 8, 8))
    write_samples(str(tmp_path / "new" / "arrays.png"), np.zeros((2, 8, 8)), np.ones((2, 8, 8)))
    assert (tmp_path / "tensors.png").read_bytes() == (tmp_path / "new" / "arrays.png").read_bytes()
