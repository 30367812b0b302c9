import numpy as np
import torch
from evaluated import table
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch import nn

from common.handlers.predictions import Predictions


def said(case, values, **more):
    return {"image": torch.tensor(values), "case": case, **more}


CASES = [
    said("b", [0.25, 0.75, 1.5, 0.5, 0.0, 1.0], image_label=1, site="HCP"),
    said("a", [0.6, 0.4, 1.0, 0.9, 1.0, 0.0]),
]


def run(cases, folder):
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset(cases), batch_size=1),
        nn.Identity(),
        inferer=lambda inputs, network: inputs,
        postprocessing=lambda output: {
            **output,
            **dict(zip(("probability", "distance", "latent"), output["pred"].split(2), strict=True)),
        },
        val_handlers=[Predictions(str(folder))],
    ).run()


def test_each_case_has_a_row_of_what_was_said_of_it(tmp_path):
    run(CASES, tmp_path)
    first, second = table(tmp_path / "predictions.csv")
    assert list(first) == [
        *("case", "site", "image_label", "probability_0", "probability_1"),
        *("distance_0", "distance_1", "nearest", "prediction"),
    ]
    assert (first["case"], first["image_label"], first["nearest"], first["prediction"]) == ("a", "", "1", "0")
    assert (second["case"], second["site"], second["image_label"], second["prediction"]) == ("b", "HCP", "1", "1")


def test_vectors_have_a_row_a_case_in_the_same_order(tmp_path):
    run(CASES, tmp_path)
    with np.load(tmp_path / "latents.npz") as found:
        assert found["case"].tolist() == ["a", "b"]
        assert found["image_label"].tolist() == [-1, 1]
        np.testing.assert_array_equal(found["latent"], [[1, 0], [0, 1]])


def test_an_image_of_probabilities_counts_by_its_highest(tmp_path):
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset([{"image": torch.tensor([[[0.25, 0.75]]]), "case": "a", "image_label": 1}]), batch_size=1),
        nn.Identity(),
        inferer=lambda inputs, network: inputs,
        postprocessing=lambda output: {**output, "probability": output["pred"]},
        val_handlers=[Predictions(str(tmp_path))],
    ).run()
    (row,) = table(tmp_path / "predictions.csv")
    assert list(row) == ["case", "site", "image_label", "probability_0", "probability_1", "prediction"]
    assert (row["probability_0"], row["probability_1"], row["prediction"]) == ("0.25", "0.75", "1")
    assert not (tmp_path / "latents.npz").exists()


def test_without_a_case_nothing_is_written(tmp_path):
    handler = Predictions(str(tmp_path))
    handler._write()
    assert not list(tmp_path.iterdir())
