import csv

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from torch import nn

from common.evaluation import CaseEvaluator, run_repeats
from common.files import Failures


class FindsNothingInTwo:
    def __call__(self, inputs, network):
        if inputs.max() == 2:
            raise ValueError("there is no organ")
        return inputs


def test_a_bad_case_is_recorded_and_the_others_are_done():
    failures, done = Failures(), []
    items = [{"image": torch.full((1, 4), float(i)), "case": f"case {i}"} for i in range(4)]
    evaluator = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=nn.Identity(),
        inferer=FindsNothingInTwo(),
        postprocessing=lambda item: done.append(item["case"]) or item,
        failures=failures,
    )
    evaluator.run()
    assert done == ["case 0", "case 1", "case 3"]
    assert failures.reasons == {"case 2": "there is no organ"}
    with pytest.raises(SystemExit, match="1 of the cases could not be done:\n  case 2: there is no organ"):
        failures.exit_if_any()


class Drawing:
    """An evaluation whose results depend on the seed of its inferer."""

    def __init__(self):
        self.seed, self.rows = 5, []

    def run(self):
        self.rows = [{"metric": "Dice", "value": 0.1 * self.seed}, {"metric": "HD95", "value": 2.0}]


def test_repeats_have_seeds_of_their_own_and_a_table(tmp_path):
    drawing = Drawing()
    run_repeats(drawing, drawing, drawing, 4, str(tmp_path))
    rows = list(csv.DictReader((tmp_path / "repeats.csv").open()))
    assert [row["metric"] for row in rows] == ["Dice", "HD95"]
    assert float(rows[0]["mean"]) == pytest.approx(np.mean([0.5, 0.6, 0.7, 0.8]))
    assert float(rows[0]["std"]) == pytest.approx(np.std([0.5, 0.6, 0.7, 0.8], ddof=1))
    assert float(rows[1]["std"]) == 0


def test_a_single_run_has_no_table_of_repeats(tmp_path):
    drawing = Drawing()
    run_repeats(drawing, drawing, drawing, 1, str(tmp_path))
    assert drawing.rows[0]["value"] == 0.5
    assert not list(tmp_path.iterdir())
