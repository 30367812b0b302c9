import numpy as np
import torch
from evaluated import AFFINE, SHAPE, item, run, table
from monai.data import MetaTensor

from common.handlers.synthesis import SynthesisScores

CHANNELS = ("synthetic", "mask", "organ")


def made(case="a", change=-50.0):
    base = item(case)
    image = base["image"][0].as_tensor()
    mask, organ = torch.zeros(SHAPE), torch.zeros(SHAPE)
    organ[1:11, 1:9] = 1
    mask[5:8, 4:7, 1:3] = 1
    channels = torch.stack([image, image + change * mask, mask, organ])
    return {**base, "image": MetaTensor(channels, affine=torch.from_numpy(AFFINE))}


def real():
    image, label, organ = torch.zeros(SHAPE), torch.zeros(SHAPE), torch.zeros(SHAPE)
    organ[1:11, 1:9] = 1
    label[5:8, 4:7, 1:3] = 1
    image = 60 * organ - 45 * label + torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    affine = torch.from_numpy(AFFINE)
    return {
        "case": "real",
        "image": MetaTensor(torch.stack([image, organ]), affine=affine),
        "label": MetaTensor(label[None], affine=affine),
    }


def metrics(scores):
    return {row["metric"]: row["value"] for row in scores.rows}


def test_tumours_are_measured_one_by_one(tmp_path):
    scores = SynthesisScores(str(tmp_path), num_resamples=20)
    run([made("b"), made("a")], scores, channels=CHANNELS)
    rows = table(tmp_path / "per_tumour.csv")
    assert [row["case"] for row in rows] == ["a", "b"]
    assert {"diameter_mm", "contrast_hu", "noise_ratio", "inside", "change_hu"} <= rows[0].keys()
    assert not (tmp_path / "per_slice.csv").exists()
    assert [row["case"] for row in table(tmp_path / "per_patient.csv")] == ["a", "b"]
    assert metrics(scores)["share inside the organ"] == 1


def test_real_tumours_stand_beside_them(tmp_path):
    scores = SynthesisScores(str(tmp_path), real=[real()])
    run([made()], scores, channels=CHANNELS)
    found = metrics(scores)
    assert abs(found["real tumours: mean contrast_hu"] + 45) < 3
    assert "share with a contrast that 90 % of real tumours have" in found
    assert len(table(tmp_path / "real_tumours.csv")) == 1


def test_without_real_tumours_nothing_is_said_of_them(tmp_path):
    scores = SynthesisScores(str(tmp_path))
    run([made()], scores, channels=CHANNELS)
    assert not any("real" in name for name in metrics(scores))
    assert not (tmp_path / "real_tumours.csv").exists()
    assert np.isfinite(metrics(scores)["change within, HU"])


def failures(scores):
    section = next(section for section in scores.sections() if section.title == "Tumours that fail")
    return {row["failure"].split(":")[0]: row["tumours"] for row in section.rows}, section.pictures


def test_tumours_that_are_unlike_real_ones_are_counted_and_shown():
    scores = SynthesisScores()
    run([made("a", change=-5.0), made("b", change=-90.0)], scores, channels=CHANNELS)
    counts, pictures = failures(scores)
    assert counts["hardly to be seen"] == 1
    assert counts["as dark as fat"] == 1
    assert len(pictures) >= 2


def test_readers_are_given_made_and_real_tumours_where_there_are_real_ones(tmp_path):
    scores = SynthesisScores(str(tmp_path / "with"), real=[real()], organ="kidney")
    run([made()], scores, channels=CHANNELS)
    assert {row["organ"] for row in table(tmp_path / "with" / "readings" / "readings_key.csv")} == {"kidney"}
    run([made()], SynthesisScores(str(tmp_path / "without")), channels=CHANNELS)
    assert not (tmp_path / "without" / "readings").exists()
