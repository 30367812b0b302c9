import csv
import logging

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.inferers import SimpleInferer
from torch import nn

from common import progress
from common.data.files import CaseDataset
from common.evaluation import CaseEvaluator, run_repeats
from common.files import Failures, write_text


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
    assert failures.reasons.keys() == {"case 2"}
    with pytest.raises(
        SystemExit, match=r"1 of the cases could not be done:\n  case 2: there is no organ \(ValueError while"
    ):
        failures.exit_if_any()


class Writes:
    """A handler that counts the ends of runs."""

    written = 0

    def attach(self, engine):
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self):
        self.written += 1


def evaluator_of(dataset, failures, handlers=(), **options):
    return CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=nn.Identity(),
        inferer=SimpleInferer(),
        val_handlers=list(handlers),
        failures=failures,
        **options,
    )


def test_without_a_case_the_report_is_still_written():
    report = Writes()
    evaluator_of(Dataset([]), Failures(), [report]).run()
    assert report.written == 1


def no_file(item):
    if item["case"] == "b":
        raise OSError("it is gone")
    return item


def test_a_case_that_cannot_be_loaded_is_recorded_and_the_others_are_done():
    failures, report = Failures(), Writes()
    items = [{"image": torch.ones(1, 4), "case": case} for case in "abc"]
    evaluator = evaluator_of(CaseDataset(items, no_file), failures, [report])
    evaluator.run()
    assert failures.reasons == {"b": "it is gone (OSError while loading it)."}
    assert (report.written, evaluator.state.iteration) == (1, 3)


@pytest.mark.parametrize("error", [KeyError("image"), ZeroDivisionError(), MemoryError("no memory")])
def test_whatever_is_wrong_with_one_case_the_others_are_done(monkeypatch, error):
    monkeypatch.delenv("RAISE_FAULTS")

    def fail(item):
        if item["case"] == "b":
            raise error
        return item

    failures = Failures()
    evaluator_of(
        Dataset([{"image": torch.ones(1, 4), "case": case} for case in "abc"]), failures, postprocessing=fail
    ).run()
    assert list(failures.reasons) == ["b"]
    assert f"({type(error).__name__} while inferring it" in failures.reasons["b"]


def test_a_case_that_cannot_be_done_does_not_keep_the_mask_of_an_earlier_run(tmp_path):
    for case in ("a", "b"):
        write_text(tmp_path / case / f"{case}_mask.nii.gz", "of an earlier run")
    items = [{"image": torch.full((1, 4), value), "case": case} for case, value in (("a", 2.0), ("b", 1.0))]
    evaluator = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=nn.Identity(),
        inferer=FindsNothingInTwo(),
        failures=Failures(tmp_path),
    )
    evaluator.run()
    assert [path.name for path in tmp_path.rglob("*_mask.nii.gz")] == ["b_mask.nii.gz"]


class Drawing:
    """An inferer whose results depend on its seed."""

    seed = 5

    def __call__(self, inputs, network):
        if self.seed == 8:
            raise KeyboardInterrupt
        return inputs * self.seed


class Scores:
    """The score of the last case, and one that never changes."""

    rows = ()

    def __call__(self, item):
        self.rows = [{"metric": "Dice", "value": float(item["pred"])}, {"metric": "HD95", "value": 2.0}]
        return item


@pytest.fixture
def scores():
    return Scores()


@pytest.fixture
def evaluator(scores):
    return CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": torch.full((1,), 0.1)}]), batch_size=1),
        network=nn.Identity(),
        inferer=Drawing(),
        postprocessing=scores,
        failures=Failures(),
    )


def test_repeats_have_seeds_of_their_own_and_a_table(evaluator, scores, tmp_path):
    run_repeats(evaluator, evaluator.inferer, scores, 3, str(tmp_path))
    rows = list(csv.DictReader((tmp_path / "repeats.csv").open()))
    assert [row["metric"] for row in rows] == ["Dice", "HD95"]
    assert float(rows[0]["mean"]) == pytest.approx(np.mean([0.5, 0.6, 0.7]))
    assert float(rows[0]["std"]) == pytest.approx(np.std([0.5, 0.6, 0.7], ddof=1))
    assert float(rows[1]["std"]) == 0


def test_a_single_run_has_no_table_of_repeats(evaluator, scores, tmp_path):
    run_repeats(evaluator, evaluator.inferer, scores, 1, str(tmp_path))
    assert scores.rows[0]["value"] == pytest.approx(0.5)
    assert not list(tmp_path.iterdir())


def test_a_run_of_no_repeats_is_refused(evaluator, scores, tmp_path):
    with pytest.raises(ValueError, match="num_repeats must be >= 1, got 0"):
        run_repeats(evaluator, evaluator.inferer, scores, 0, str(tmp_path))


def test_repeats_leave_the_evaluators_inferer_as_it_was(evaluator, scores, tmp_path):
    inferer = evaluator.inferer
    run_repeats(evaluator, inferer, scores, 3, str(tmp_path))
    assert evaluator.inferer is inferer
    assert inferer.seed == 5


def test_repeats_leave_the_evaluators_inferer_as_it_was_after_an_error_too(evaluator, scores, tmp_path):
    inferer = evaluator.inferer
    with pytest.raises(KeyboardInterrupt):
        run_repeats(evaluator, inferer, scores, 4, str(tmp_path))
    assert evaluator.inferer is inferer
    assert inferer.seed == 5


class Doubts:
    """An inferer that says the same of each case, and notes what its bar would say."""

    def __init__(self):
        self.doing = []

    def __call__(self, inputs, network):
        logging.getLogger("common.inferers.slices").warning("the threshold was fitted with others.")
        self.doing.append(progress._DOING.get())
        return inputs


def test_what_is_true_of_all_cases_is_said_once_a_run_and_bars_name_the_case(caplog):
    items = [{"image": torch.zeros(1, 4), "case": f"case {i}"} for i in range(3)]
    inferer = Doubts()
    evaluator = evaluator_of(Dataset(items), Failures())
    evaluator.inferer = inferer
    evaluator.run()
    assert caplog.text.count("fitted with others") == 1
    assert [what.split(", ")[:2] for what in inferer.doing] == [[f"case {i}", f"{i + 1} of 3"] for i in range(3)]
    assert inferer.doing[2].endswith("left")
    evaluator.run()
    assert caplog.text.count("fitted with others") == 2
