import csv
import itertools
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Orientation
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from common.data.cases import Failures
from common.engines import CaseEvaluator
from common.handlers import (
    CaseReport,
    Detection,
    LoadWeights,
    Previews,
    TrainingPairs,
    as_seen,
    case_figure,
    spacing_mm,
    write_csv,
    write_samples,
)
from common.inferers.anomaly import CHANNELS
from common.metrics.tables import average_otsu
from common.networks.parts import NetworkParts
from common.transforms.channels import SplitChannelsd

AFFINE = np.diag([2.0, 3.0, 5.0, 1.0])
SHAPE = (14, 12, 4)


def item(case="a", patient=None, lesions=1, score=30.0, with_label=True, axcodes="RAS"):
    """Return a case: an organ of 8 x 6 x 2 voxels in slices 1 and 2, a lesion of 2 x 2 found at the head of it.

    The image's channels are the image itself and what an inferer would say of it.
    """
    image, anomaly, organ, label = torch.full(SHAPE, 60.0), torch.zeros(SHAPE), torch.zeros(SHAPE), torch.zeros(SHAPE)
    organ[3:11, 3:9, 1:3] = 1
    if lesions:
        label[5:7, 4:6, 2] = 1
    anomaly[5:7, 4:6, 2] = score
    anomaly[9, 7, 1] = 10
    channels = torch.stack([image, anomaly, image + anomaly, (anomaly >= 20).float(), organ])
    turn = Orientation(axcodes=axcodes, labels=None)
    images = {"image": channels, "label": label[None]} if with_label else {"image": channels}
    turned = {key: turn(MetaTensor(voxels, affine=torch.from_numpy(AFFINE))) for key, voxels in images.items()}
    return {**turned, "case": case, "patient": patient or case}


class Prepared:
    """An inferer that has its answers from the image."""

    def __call__(self, inputs, network):
        return inputs[:, 1:]


def run(items, *handlers, epoch=1, channels=CHANNELS):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=nn.Identity(),
        inferer=Prepared(),
        postprocessing=SplitChannelsd("pred", channels),
        val_handlers=handlers,
    )
    evaluator.run(epoch)
    return evaluator


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def metrics(detection):
    return {row["metric"]: row["value"] for row in detection.rows}


def container(threshold=float("nan")):
    network = NetworkParts("score", score=nn.Linear(2, 2))
    network.threshold.fill_(threshold)
    return network


def test_weights_are_loaded_when_the_engine_starts_and_not_before(tmp_path):
    published, network = container(7.0), container()
    handler = LoadWeights(network, str(tmp_path / "model.pt"))
    torch.save(published.state_dict(), tmp_path / "model.pt")
    assert torch.isnan(network.threshold)
    run([item()], handler)
    assert torch.equal(network.score.weight, published.score.weight)
    assert network.threshold == 7


def test_weights_of_another_network_end_the_run_with_one_sentence(tmp_path):
    torch.save(NetworkParts("score", score=nn.Linear(3, 3)).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"expected score.weight of shape \(2, 2\), got \(3, 3\)"):
        run([item()], LoadWeights(container(), str(tmp_path / "model.pt")))


def test_missing_weights_end_the_run_before_a_case_is_done(tmp_path):
    detection = Detection(container())
    with pytest.raises(FileNotFoundError, match="no weights at"):
        run([item()], LoadWeights(container(), str(tmp_path / "model.pt")), detection)
    assert detection.records == []


def test_a_perfect_map_has_perfect_numbers():
    detection = Detection(container())
    state = run([item("a"), item("b")], detection).state
    assert {name: state.metrics[name] for name in ("ap", "auroc", "best_dice")} == pytest.approx(
        {"ap": 1, "auroc": 1, "best_dice": 1}
    )
    assert detection.fitted_threshold == 30


def test_the_pooled_dice_is_that_at_the_fitted_threshold():
    metric = "Dice at the fitted threshold, pooled"
    low, high, fitted = (
        Detection(container(), threshold=5.0),
        Detection(container(), threshold=35.0),
        Detection(container(35.0), threshold=5.0),
    )
    run([item()], low, high, fitted)
    assert metrics(low)[metric] == pytest.approx(2 * 4 / (5 + 4))
    assert metrics(high)[metric] == 0
    assert metrics(fitted)[metric] == 0


def test_cases_without_a_label_are_passed_over():
    detection = Detection(container())
    run([item("a", with_label=False), item("b")], detection)
    assert [record.case for record in detection.records] == ["b"]


def test_without_any_label_there_are_no_numbers_and_no_files(tmp_path):
    detection = Detection(container(), str(tmp_path / "eval"))
    state = run([item(with_label=False)], detection).state
    assert detection.rows == []
    assert np.isnan(detection.fitted_threshold)
    assert not {"ap", "auroc", "best_dice"} & set(state.metrics)
    assert not (tmp_path / "eval").exists()


def film(case, diseased, score=1.0, with_label=False):
    """Return a film of 6 x 8 pixels, searched everywhere, with a spot of 2 x 2 that the classifier gives half."""
    anomaly, organ = torch.zeros(6, 8), torch.ones(6, 8)
    anomaly[1:3, 1:3] = score
    image, mask = 200 * organ, (anomaly > 0.5).float()
    channels = torch.stack([image, anomaly, image - anomaly, mask, organ, score / 2 * organ])
    label = {"label": MetaTensor(diseased * (anomaly > 0).float()[None])} if with_label else {}
    return {"image": MetaTensor(channels), **label, "case": case, "patient": case, "image_label": int(diseased)}


FILM_CHANNELS = (*CHANNELS, "probability")


def test_films_without_labels_are_judged_by_their_classes(tmp_path):
    detection = Detection(container(), str(tmp_path), num_resamples=20)
    films = [film("b", True, 1.4), film("a", False, 0.2), film("c", True, 0.6), film("d", False, 0.8)]
    state = run(films, detection, channels=FILM_CHANNELS).state
    expected = {
        "image-level AUROC of the map": 0.75,
        "image-level AUROC of the classifier": 0.75,
        "image-level accuracy of the classifier": 0.75,
    }
    assert metrics(detection) == pytest.approx(expected)
    assert state.metrics["image_auroc_map"] == state.metrics["image_auroc_classifier"] == 0.75
    rows = table(tmp_path / "per_patient.csv")
    assert [(row["case"], row["diseased"]) for row in rows] == [("a", "0"), ("b", "1"), ("c", "1"), ("d", "0")]
    assert [float(row["mean_score"]) for row in rows] == pytest.approx([s * 4 / 48 for s in (0.2, 1.4, 0.6, 0.8)])
    assert [float(row["probability"]) for row in rows] == pytest.approx([0.1, 0.7, 0.3, 0.4])
    assert {row["metric"] for row in table(tmp_path / "summary.csv")} == set(expected)


def test_films_with_labels_have_the_metrics_of_pixels_too():
    detection = Detection(container(), in_mm=False)
    films = [film("a", True, 1.4, with_label=True), film("b", False, 0.2, with_label=True), film("c", True)]
    run(films, detection, channels=FILM_CHANNELS)
    assert [record.case for record in detection.images] == ["a", "b", "c"]
    assert [record.case for record in detection.records] == ["a", "b"]
    found = metrics(detection)
    assert found["pixel AUROC, pooled"] == found["image-level AUROC of the map"] == 1
    assert found["lesion sensitivity (any overlap)"] == 1
    assert np.isnan(found["mask in slices without lesions, cm²"])  # a film's pixels have no size
    assert np.isnan(found["lesion sensitivity, 0 to 10 mm"])


def test_where_all_films_are_of_one_class_there_is_no_auroc(tmp_path):
    detection = Detection(container(), num_resamples=5)
    run(
        [film("a", True), film("b", True)],
        detection,
        CaseReport(str(tmp_path), "T", detection=detection),
        channels=FILM_CHANNELS,
    )
    assert np.isnan(metrics(detection)["image-level AUROC of the map"])
    assert metrics(detection)["image-level accuracy of the classifier"] == 0
    assert (tmp_path / "report.html").is_file()


def test_the_average_otsu_threshold_of_films_needs_no_label():
    detection = Detection(container(), threshold_rule="otsu")
    run([film("a", True), film("b", False, 30.0)], detection, channels=FILM_CHANNELS)
    (record,) = [record for record in detection.images if record.case == "a"]
    assert detection.fitted_threshold == record.slice_rows[0]["otsu_threshold"] < 1


def test_a_volume_of_a_diseased_patient_says_nothing_of_its_slices():
    detection = Detection(container())
    run([item(with_label=False) | {"image_label": 1}], detection)
    assert detection.images == []


def test_the_report_of_films_has_no_volumes(tmp_path):
    detection = Detection(container())
    handler = CaseReport(str(tmp_path), "Title", detection=detection)
    run([film("a", True), film("b", False, 0.1)], detection, handler, channels=FILM_CHANNELS)
    assert np.isnan(handler.rows[0]["mask, ml"])
    assert handler.rows[0]["mask, % of the organ"] == pytest.approx(100 * 4 / 48)
    assert headings(tmp_path)[1:3] == ["Detection", "Detection by case"]


def test_without_lesions_there_is_no_fitted_threshold():
    detection = Detection(container())
    run([item(lesions=0)], detection)
    assert np.isnan(detection.fitted_threshold)


POINTS = {"peak": [10.0, 12.0, 10.0], "beside": [13, 8, 10], "below": [18, 21, 5.4]}
"""The map's peak; what is 3 and 4 mm beside it; the highest value of the slice below, nearly."""


def marked(case, **options):
    return {**item(case, **options), "point": POINTS[case]}


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR"])
def test_the_distance_from_a_marked_point_to_the_peak_is_told_in_mm(tmp_path, axcodes):
    detection = Detection(container(), str(tmp_path))
    run([marked(case, with_label=False, axcodes=axcodes) for case in POINTS], detection)
    rows = {
        row["case"]: [float(row[column]) for column in list(row)[2:]] for row in table(tmp_path / "per_patient.csv")
    }
    assert rows == {
        "peak": pytest.approx([0, 0]),
        "beside": pytest.approx([5, 5]),
        "below": pytest.approx([np.sqrt(8**2 + 9**2 + 4.6**2), 0.4]),
    }
    assert detection.rows == []
    assert not (tmp_path / "summary.csv").exists()


def test_marked_cases_stand_beside_labelled_ones_and_count_for_nothing_else(tmp_path):
    run(
        [item("a"), marked("peak", with_label=False), marked("beside")], Detection(container(), str(tmp_path / "marks"))
    )
    run([item("a"), item("beside")], Detection(container(), str(tmp_path / "labels")))
    a, beside, peak = table(tmp_path / "marks" / "per_patient.csv")
    assert (a["peak_to_point_mm"], a["lesions"]) == ("nan", "1")
    assert (float(beside["peak_to_point_mm"]), beside["lesions"]) == (5, "1")
    assert (float(peak["peak_to_point_mm"]), peak["lesions"]) == (0, "nan")
    for name in ("summary.csv", "per_slice.csv"):
        assert (tmp_path / "marks" / name).read_bytes() == (tmp_path / "labels" / name).read_bytes()


def test_a_map_without_change_has_no_peak():
    detection = Detection(container())
    empty = marked("peak", with_label=False)
    empty["image"][1] = 0
    run([empty], detection)
    assert np.isnan(detection.case_rows[0]["peak_to_point_mm"])


class PreparedWithProbability:
    """What ``Prepared`` says, and a probability of 0.7 in slice 2 and of 0.2 in all others."""

    def __call__(self, inputs, network):
        probability = torch.full_like(inputs[:, :1], 0.2)
        probability[..., 2] = 0.7
        return torch.cat([inputs[:, 1:], probability], dim=1)


def run_with_probability(items, *handlers):
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=nn.Identity(),
        inferer=PreparedWithProbability(),
        postprocessing=SplitChannelsd("pred", (*CHANNELS, "probability")),
        val_handlers=handlers,
    ).run()


def test_the_classifiers_confidence_stands_in_tables_and_report(tmp_path):
    detection = Detection(container(), str(tmp_path))
    report = CaseReport(str(tmp_path), "Title", detection=detection, num_slices=1)
    run_with_probability([item("a"), marked("below", with_label=False)], detection, report)
    a, below = table(tmp_path / "per_patient.csv")
    assert (float(a["probability"]), float(below["probability"])) == pytest.approx((0.7, 0.7))
    assert float(below["probability_at_point"]) == pytest.approx(0.2)
    assert [row["misclassified"] for row in table(tmp_path / "per_slice.csv")] == ["0", "0"]
    assert [row["highest probability of disease"] for row in report.rows] == pytest.approx([0.7, 0.7])
    assert "dice_without_misclassified" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_page_of_marked_cases_alone_has_their_distances(tmp_path):
    detection = Detection(container())
    handler = CaseReport(str(tmp_path), "Title", detection=detection, num_slices=1)
    run([marked("beside", with_label=False)], detection, handler)
    assert headings(tmp_path) == ["Cases", "Detection by case", "Most anomalous slices", "Versions"]
    assert "peak_to_point_mm" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_second_run_starts_afresh():
    detection = Detection(container())
    evaluator = run([item("b"), item("a")], detection)
    evaluator.run()
    assert [record.case for record in detection.records] == ["a", "b"]


def test_tables_are_written_for_slices_patients_and_the_run(tmp_path):
    run([item("b", patient="x"), item("a", patient="x")], Detection(container(), str(tmp_path)))
    assert [(row["case"], row["patient"]) for row in table(tmp_path / "per_patient.csv")] == [("a", "x"), ("b", "x")]
    slices = [(row["case"], row["slice"], row["lesion_pixels"]) for row in table(tmp_path / "per_slice.csv")]
    assert slices == [("a", "1", "0"), ("a", "2", "4"), ("b", "1", "0"), ("b", "2", "4")]
    assert "pixel AUROC, pooled" in {row["metric"] for row in table(tmp_path / "summary.csv")}


def test_volumes_are_in_millilitres(tmp_path):
    run([item()], Detection(container(), str(tmp_path)))
    (row,) = table(tmp_path / "per_patient.csv")
    assert float(row["organ_ml"]) == pytest.approx(8 * 6 * 2 * 0.03)
    assert float(row["lesion_ml"]) == pytest.approx(4 * 0.03)


def test_intervals_are_drawn_if_asked():
    detection = Detection(container(), num_resamples=20)
    run([item("a"), item("b", score=15.0), item("c")], detection)
    (row,) = [row for row in detection.rows if row["metric"] == "Dice at the fitted threshold, mean of patients"]
    assert row["low"] < row["value"] < row["high"]


def test_slices_without_lesions_are_left_out_if_asked(tmp_path):
    run([item()], Detection(container(), str(tmp_path), lesion_slices_only=True))
    (row,) = table(tmp_path / "per_slice.csv")
    assert row["lesion_pixels"] == "4"


def test_a_healthy_case_is_left_out_where_only_slices_with_lesions_count():
    detection = Detection(container(), lesion_slices_only=True)
    run([item("a"), item("b", lesions=0)], detection)
    assert [record.case for record in detection.records] == ["a"]


def test_a_case_whose_lesions_lie_beyond_the_organ_has_no_slice_with_lesions():
    outside = item("b")
    outside["label"][:] = 0
    outside["label"][:, 0, 0, 2] = 1
    detection = Detection(container(), lesion_slices_only=True)
    run([item("a"), outside], detection)
    assert [record.case for record in detection.records] == ["a"]


ORIENTATIONS = ["LPS", "RAI", "PSR", "ILA"]


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_the_numbers_do_not_depend_on_how_a_file_is_stored(tmp_path, axcodes):
    for folder, codes in (("expected", "RAS"), ("got", axcodes)):
        run([item(axcodes=codes)], Detection(container(), str(tmp_path / folder)))
    for name in ("per_slice.csv", "per_patient.csv", "summary.csv"):
        assert (tmp_path / "got" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_arrays_point_to_the_patients_right_front_and_head(axes, signs):
    affine = np.zeros((4, 4))
    affine[list(axes), range(3)] = np.multiply(signs, (2, 3, 5))
    affine[:, 3] = 7, -20, 100, 1
    world = nib.affines.apply_affine(affine, np.indices((3, 4, 5)).transpose(1, 2, 3, 0))
    image = MetaTensor(torch.from_numpy(world).movedim(-1, 0), affine=torch.from_numpy(affine))
    for axis in range(3):  # each channel holds where a voxel is along one axis of the world
        seen = as_seen({"image": image[axis : axis + 1]}, ("image",))["image"]
        assert (np.diff(seen, axis=axis) > 0).all()
        assert np.ptp(seen, axis=tuple(i for i in range(3) if i != axis)).max() == 0
    sizes = dict(zip(axes, (2, 3, 5), strict=True))
    assert spacing_mm(image[:1]) == pytest.approx([sizes[axis] for axis in range(3)])


def test_a_slice_is_turned_like_a_volume():
    image = MetaTensor(torch.arange(6.0).view(1, 2, 3), affine=torch.diag(torch.tensor([-2.0, -3, 5, 1])).double())
    np.testing.assert_array_equal(as_seen({"image": image}, ("image",))["image"], [[5, 4, 3], [2, 1, 0]])
    assert spacing_mm(image) == pytest.approx([2, 3])


def test_only_what_an_item_has_is_turned():
    image = MetaTensor(torch.zeros(2, 3, 4, 5), affine=torch.eye(4).double())
    arrays = as_seen({"image": image, "label": None}, ("image", "label", "organ"))
    assert {key: array.shape for key, array in arrays.items()} == {"image": (3, 4, 5)}


def test_one_channel_of_several_is_shown():
    image = MetaTensor(torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 4, 5), affine=torch.eye(4).double())
    assert (as_seen({"image": image}, ("image",), channel=1)["image"] == 1).all()


def as_output(made):
    """Return a case as an evaluator's output has it."""
    return {**SplitChannelsd("pred", CHANNELS)({"pred": made["image"][1:]}), **made}


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_pictures_do_not_depend_on_how_a_file_is_stored(axcodes):
    expected, got = (case_figure("a", as_output(item(axcodes=codes)), 1).axes for codes in ("RAS", axcodes))
    assert [axis.get_title() for axis in got] == [axis.get_title() for axis in expected]
    for left, right in zip(expected, got, strict=True):
        np.testing.assert_array_equal(left.images[-1].get_array(), right.images[-1].get_array())
        assert left.get_aspect() == pytest.approx(right.get_aspect())


def test_pictures_have_the_proportions_of_the_patient():
    assert case_figure("a", as_output(item()), 1).axes[0].get_aspect() == pytest.approx(3 / 2)


def test_a_case_without_label_has_a_picture_without_lesions():
    assert len(case_figure("a", as_output(item(with_label=False)), 1).axes[0].collections) == 1  # the organ


NAME = "a <b> & c"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a run with two cases, one of them without label, and a case that failed: handler and folder."""
    folder, failures = tmp_path_factory.mktemp("eval"), Failures()
    failures.add("broken", "there is <no> organ")
    detection = Detection(container())
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
    assert rows["z"]["mean score, HU"] == pytest.approx((4 * 30 + 10) / (8 * 6 * 2))
    assert rows["z"]["highest score, HU"] == 30
    assert rows[NAME]["mask, ml"] == 0
    assert rows["z"]["seconds"] > 0


def headings(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    return [part.partition("</h2>")[0] for part in text.split("<h2>")[1:]]


def test_the_page_has_its_sections_in_order(report):
    assert headings(report[1]) == [
        "Cases",
        "Cases that could not be done",
        "Detection",
        "Detection by case",
        "Most anomalous slices",
        "Parameters",
        "Versions",
    ]


def test_the_page_names_cases_failures_and_parameters_as_text(report):
    text = (report[1] / "report.html").read_text(encoding="utf-8")
    for words in ("Title", "Notice", "a &lt;b&gt; &amp; c", "there is &lt;no&gt; organ", "<td>seed</td>"):
        assert words in text
    assert NAME not in text


def test_the_page_holds_the_picture_of_each_case_and_three_of_curves(report):
    assert (report[1] / "report.html").read_text(encoding="utf-8").count("data:image/png;base64,") == 5


def test_without_labels_the_page_says_nothing_of_detection(tmp_path):
    detection = Detection(container())
    run([item(with_label=False)], detection, CaseReport(str(tmp_path), "Title", detection=detection, num_slices=1))
    assert headings(tmp_path) == ["Cases", "Most anomalous slices", "Versions"]


class FindsNothing:
    def __call__(self, inputs, network):
        raise ValueError("there is no organ")


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


def test_samples_may_be_tensors_or_arrays(tmp_path):
    write_samples(str(tmp_path / "tensors.png"), torch.zeros(2, 8, 8), torch.ones(2, 8, 8))
    write_samples(str(tmp_path / "new" / "arrays.png"), np.zeros((2, 8, 8)), np.ones((2, 8, 8)))
    assert (tmp_path / "tensors.png").read_bytes() == (tmp_path / "new" / "arrays.png").read_bytes()


def test_rows_are_read_back_as_they_were_written(tmp_path):
    rows = [{"case": 'Müller, "A"', "value": 0.1}, {"case": "two\nlines", "value": float("nan")}]
    write_csv(tmp_path / "new" / "table.csv", rows)
    assert table(tmp_path / "new" / "table.csv") == [{key: str(value) for key, value in row.items()} for row in rows]


def test_a_table_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, [{"case": "old"}])
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_csv(path, [{"case": "new"}, {"case": "new", "more": 1}])
    assert table(path) == [{"case": "old"}]
    write_csv(path, [{"case": "new"}])
    assert table(path) == [{"case": "new"}]
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_rule_for_thresholds_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match="threshold_rule must be 'dice' or 'otsu', got 'mean'"):
        Detection(None, threshold_rule="mean")


def test_thresholds_can_be_fitted_by_otsu():
    detection = Detection(None, threshold_rule="otsu")
    run([item()], detection)
    assert detection.fitted_threshold == average_otsu(detection.records)


def test_synthetic_images_and_their_masks_are_listed_for_training(tmp_path):
    run([item("b"), item("a")], TrainingPairs(str(tmp_path), "synthetic", "wanted"))
    found = json.loads((tmp_path / "dataset.json").read_text())
    assert [entry["case"] for entry in found["training"]] == ["a", "b"]
    assert found["training"][0] == {
        "case": "a",
        "patient": item("a")["patient"],
        "image": "a/a_synthetic.nii.gz",
        "label": "a/a_wanted.nii.gz",
        "image_label": 1,
    }
    assert found["validation"] == found["testing"] == []
