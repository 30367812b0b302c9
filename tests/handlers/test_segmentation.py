import torch
from evaluated import AFFINE, SHAPE, item, run, table
from matplotlib.image import imread
from monai.data import MetaTensor

from common.handlers.report import CaseReport
from common.handlers.segmentation import SegmentationScores
from common.report.figures import Display

CHANNELS = ("mean", "uncertainty", "mask", "organ")


def segmented(case="a", hit=True, **options):
    """Return a case whose lesion of four voxels is found, or its neighbours are, with high uncertainty at its rim."""
    image = item(case, **options)
    mask, organ = torch.zeros(SHAPE), torch.zeros(SHAPE)
    organ[3:11, 3:9, 1:3] = 1
    mask[(slice(5, 7), slice(4, 6), 2) if hit else (slice(7, 9), slice(4, 6), 2)] = 1
    uncertainty = organ * (0.0 if hit else 0.2 * torch.maximum(mask, image["label"][0].as_tensor()))
    channels = torch.stack([image["image"][0].as_tensor(), 0.9 * mask, uncertainty, mask, organ])
    return {**image, "image": MetaTensor(channels, affine=torch.from_numpy(AFFINE))}


def metrics(scores):
    return {row["metric"]: row["value"] for row in scores.rows}


def test_masks_are_compared_with_labels_and_uncertainty_with_errors(tmp_path):
    scores = SegmentationScores(str(tmp_path), num_resamples=20)
    evaluator = run([segmented("b", hit=False), segmented("a")], scores, channels=CHANNELS)
    found = metrics(scores)
    assert found["Dice, mean of slices"] == 0.5
    assert found["AUROC of the uncertainty for errors"] == 1
    assert evaluator.state.metrics["Dice, mean of slices"] == 0.5
    assert [row["case"] for row in table(tmp_path / "per_patient.csv")] == ["a", "b"]
    assert len(table(tmp_path / "per_slice.csv")) == 4
    assert {row["metric"] for row in table(tmp_path / "summary.csv")} == set(found)


REGIONS = ("mean", "mean", "uncertainty", "uncertainty", "mask", "organ")


def with_two_regions(case="a"):
    """Return a case of two regions, one within the other; the inner one is missed, as the mask counts one region."""
    image = segmented(case)
    mean, uncertainty, mask, organ = image["image"][1:]
    channels = [image["image"][0], mean, 0 * mean, uncertainty, uncertainty, mask, organ]
    image["image"] = MetaTensor(torch.stack(channels), affine=torch.from_numpy(AFFINE))
    image["label"] = MetaTensor(torch.cat([image["label"], image["label"]]), affine=torch.from_numpy(AFFINE))
    return image


def test_each_region_is_compared_with_its_own_label():
    scores = SegmentationScores()
    run([with_two_regions()], scores, channels=REGIONS)
    found = metrics(scores)
    assert found["region 1: Dice, mean of slices"] == 1
    assert found["region 2: Dice, mean of slices"] == 0


def test_all_cases_of_a_region_stand_before_those_of_the_next(tmp_path):
    run([with_two_regions("b"), with_two_regions("a")], SegmentationScores(str(tmp_path)), channels=REGIONS)
    rows = table(tmp_path / "per_patient.csv")
    assert list(rows[0])[:3] == ["region", "case", "patient"]
    found = [(row["region"], row["case"]) for row in rows]
    assert found == [("region 1", "a"), ("region 1", "b"), ("region 2", "a"), ("region 2", "b")]
    assert list(table(tmp_path / "per_slice.csv")[0])[:3] == ["region", "case", "slice"]


def test_with_members_smaller_ensembles_are_compared(tmp_path):
    """One of three draws finds the lesion."""
    image = segmented()
    mask = image["image"][3]
    image["image"] = MetaTensor(torch.cat([image["image"], torch.stack([mask, 0 * mask, mask])]), affine=mask.affine)
    scores = SegmentationScores(str(tmp_path))
    run([image], scores, channels=(*CHANNELS, "members", "members", "members"))
    rows = {row["members"]: row["dice"] for row in table(tmp_path / "members.csv")}
    assert rows == {"1": str(2 / 3), "2": "0.0", "3": "1.0"}
    (section,) = [section for section in scores.sections() if section.title == "Members of the ensemble"]
    assert section.rows == scores.sizes
    assert len(section.pictures) == 1


def test_without_labels_nothing_is_written_or_shown(tmp_path):
    scores = SegmentationScores(str(tmp_path))
    unlabelled = segmented()
    del unlabelled["label"]
    run([unlabelled], scores, channels=CHANNELS)
    assert scores.rows == scores.sections() == list(tmp_path.iterdir()) == []


def test_the_report_shows_mean_and_uncertainty(tmp_path):
    scores = SegmentationScores()
    display = Display(
        window=None, map_window=(0, 0.25), unit="", name="uncertainty", version="mean", version_key="mean"
    )
    report = CaseReport(str(tmp_path), "title", scores=scores, display=display)
    run([segmented("a"), segmented("b", hit=False)], scores, report, channels=CHANNELS)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("Segmentation by case", "highest uncertainty", "expected calibration error"))
    assert imread(tmp_path / "b" / "b_overlay.png").ndim == 3
