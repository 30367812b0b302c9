"""Stages on a network of one layer: what is trained, kept, resumed, published and refused."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.handlers import EMAHandler
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine
from torch import nn

from common.data.cases import Failures
from common.engines import CaseEvaluator, SeedEachEpoch, fit_threshold, publish_threshold, run_repeats, run_stage
from common.networks.parts import NetworkParts


def container():
    torch.manual_seed(0)
    return NetworkParts("second", first=nn.Linear(4, 4), second=nn.Linear(4, 4))


def stage(folder, network, part="second", max_epochs=3, use_ema=False, lr=0.01, cases=8, **options):
    """Train ``part`` to copy its input, with noise drawn in the data set, and return the losses of the epochs."""
    items = [{"image": torch.full((4,), i / 10), "label": torch.full((4,), i / 10)} for i in range(cases)]

    class Noisy:
        def __call__(self, item):
            return {**item, "image": item["image"] + 0.1 * torch.randn(4)}

    dataset, module = Dataset(items, Noisy()), network.get_submodule(part)
    ema = EMAHandler(module, momentum=0.1) if use_ema else None
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=4),
        network=ema.ema_model if ema else module,
        key_val_metric={"error": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=lambda new, best: new < best,
    )
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(dataset, batch_size=4, shuffle=True),
        network=module,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        train_handlers=[SeedEachEpoch(0, dataset), ValidationHandler(1, evaluator)],
        decollate=False,
    )
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: losses.append(engine.state.output["loss"].item()))
    run_stage(
        trainer,
        evaluator,
        network,
        part,
        {"model": module, "optimizer": optimizer},
        str(folder / "checkpoints"),
        str(folder / "model.pt"),
        ema=ema,
        **options,
    )
    return losses


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def test_a_stage_trains_its_part_and_publishes_all(tmp_path):
    network = container()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    stage(tmp_path, network)
    after = weights(tmp_path)
    assert torch.equal(after["first.weight"], before["first.weight"])
    assert not torch.equal(after["second.weight"], before["second.weight"])


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(tmp_path):
    unbroken = stage(tmp_path / "a", container(), max_epochs=4, use_ema=True)
    first = stage(tmp_path / "b", container(), max_epochs=2, use_ema=True)
    second = stage(tmp_path / "b", container(), max_epochs=4, use_ema=True, resume=True)
    assert first + second == unbroken
    for name, value in weights(tmp_path / "a").items():
        torch.testing.assert_close(weights(tmp_path / "b")[name], value, rtol=0, atol=0, equal_nan=True)


def test_a_finished_stage_is_not_trained_again(tmp_path):
    stage(tmp_path, container())
    published = weights(tmp_path)
    assert stage(tmp_path, container(), resume=True) == []
    assert torch.equal(weights(tmp_path)["second.weight"], published["second.weight"])


def test_a_stage_starts_from_the_other_parts_that_are_published(tmp_path):
    stage(tmp_path, container(), part="first")
    published = weights(tmp_path)
    network = container()
    stage(tmp_path, network, part="second")
    assert torch.equal(network.first.weight, published["first.weight"])


def test_a_part_that_is_there_is_kept_if_asked(tmp_path):
    stage(tmp_path, container())
    assert stage(tmp_path, container(), keep=True) == []


def test_finetuning_starts_where_the_published_weights_are(tmp_path):
    stage(tmp_path, container(), max_epochs=30)
    afresh = stage(tmp_path / "other", container(), max_epochs=1)
    tuned = stage(tmp_path, container(), max_epochs=1, finetune=True)
    assert tuned[0] < afresh[0] / 2


def test_finetuning_without_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match="finetune needs the weights"):
        stage(tmp_path, container(), finetune=True)


def test_the_best_epoch_is_published_not_the_last(tmp_path):
    stage(tmp_path, container(), max_epochs=4, lr=1.0)
    last = torch.load(tmp_path / "checkpoints" / "second_last.pt", weights_only=True)["model"]
    x = torch.arange(8)[:, None].expand(8, 4) / 10
    best, worse = (x @ w["weight"].T + w["bias"] for w in ({k[7:]: v for k, v in weights(tmp_path).items()}, last))
    assert (best - x).square().mean() < (worse - x).square().mean()


def test_weights_of_another_size_are_refused_at_the_start(tmp_path):
    torch.save(
        NetworkParts("second", first=nn.Linear(3, 3), second=nn.Linear(4, 4)).state_dict(), tmp_path / "model.pt"
    )
    with pytest.raises(ValueError, match=r"expected first.weight of shape \(4, 4\), got \(3, 3\)"):
        stage(tmp_path, container())


def test_a_run_that_would_never_validate_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no validation, no best weights"):
        stage(tmp_path, container(), val_interval=5)


def test_a_stage_without_cases_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected validation cases"):
        run_stage(
            SupervisedTrainer(torch.device("cpu"), 1, [1], nn.Identity(), None, None),
            SupervisedEvaluator(torch.device("cpu"), [], nn.Identity()),
            container(),
            "second",
            {},
            str(tmp_path),
            str(tmp_path / "model.pt"),
        )


KILLED = """
    import sys
    sys.path[:0] = [{root!r}, {tests!r}]
    from pathlib import Path
    from test_engines import container, stage
    print(stage(Path({folder!r}), container(), max_epochs=40, use_ema=True, resume=True), flush=True)
"""


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_like_an_unbroken_one(tmp_path):
    unbroken = stage(tmp_path / "a", container(), max_epochs=40, use_ema=True)
    tests = Path(__file__).parent
    script = textwrap.dedent(KILLED.format(root=str(tests.parent), tests=str(tests), folder=str(tmp_path / "b")))
    last = tmp_path / "b" / "checkpoints" / "second_last.pt"
    for kill in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        seen = last.stat().st_mtime_ns if last.exists() else 0
        while process.poll() is None and (last.stat().st_mtime_ns if last.exists() else 0) == seen:
            pass
        for _ in range(kill * 20_000):  # so that the moment falls anywhere within an epoch or a write
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    remaining = json.loads(done.stdout.strip().splitlines()[-1])
    assert 0 < len(remaining) < len(unbroken)
    assert remaining == unbroken[-len(remaining) :]
    for name, value in weights(tmp_path / "a").items():
        torch.testing.assert_close(weights(tmp_path / "b")[name], value, rtol=0, atol=0, equal_nan=True)


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


class Found:
    fitted_threshold = 12.5


class Nothing:
    fitted_threshold = float("nan")

    def run(self):
        return None


def test_a_fitted_threshold_becomes_part_of_the_weights(tmp_path):
    network = container()
    publish_threshold(True, Found(), network, str(tmp_path / "model.pt"))
    assert weights(tmp_path)["threshold"] == 12.5


def test_weights_are_left_alone_unless_a_fit_is_wanted(tmp_path):
    publish_threshold(False, Found(), container(), str(tmp_path / "model.pt"))
    assert not (tmp_path / "model.pt").exists()


def test_no_lesions_no_threshold(tmp_path, caplog):
    network = container()
    with pytest.raises(ValueError, match="no validation case has lesions"):
        publish_threshold(True, Nothing(), network, str(tmp_path / "model.pt"))
    fit_threshold(Nothing(), Nothing(), network)
    assert "was not fitted" in caplog.text
    assert torch.isnan(network.threshold)


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
