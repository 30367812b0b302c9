"""Stages on networks of one layer: what is trained, kept, resumed, published and refused."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
import torch
from ignite.handlers import EMAHandler
from ignite.metrics import MeanAbsoluteError
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanSquaredError, ValidationHandler, from_engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from common.checkpoints import load_parts
from common.networks.parts import NetworkParts
from common.training.stages import MeanLoss, SeedEachEpoch, Stage, Training, WarmUpCosineLR, run_stage, trained_parts


def container():
    torch.manual_seed(0)
    return NetworkParts("second", first=nn.Linear(4, 4), second=nn.Linear(4, 4))


def training(folder, **settings):
    paths = {"ckpt_dir": str(folder / "checkpoints"), "model_path": str(folder / "model.pt")}
    return Training("cpu", str(folder), **{**paths, "volumes_per_batch": 4, **settings})


def stage(folder, network, part="second", max_epochs=3, use_ema=False, lr=0.01, cases=8, keep=False, **settings):
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
    lr_scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    run_stage(trainer, evaluator, lr_scheduler, network, part, training(folder, **settings), ema, keep)
    return losses


def killed(network, part="second"):
    """Let the first training step of a part be the last."""

    def kill(*call):
        raise KeyboardInterrupt

    network.get_submodule(part).register_forward_hook(kill)
    return network


def weights(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def test_a_stage_trains_its_part_and_publishes_it_beside_those_that_are_published(tmp_path):
    stage(tmp_path, container(), part="first")
    before = weights(tmp_path)
    stage(tmp_path, container(), part="second")
    after = weights(tmp_path)
    assert torch.equal(after["first.weight"], before["first.weight"])
    assert not torch.equal(after["second.weight"], container().second.weight)


def test_a_part_that_no_stage_has_trained_is_not_published(tmp_path):
    stage(tmp_path, container(), part="first")
    assert set(weights(tmp_path)) == {"first.weight", "first.bias", "threshold", "threshold_settings"}
    with pytest.raises(ValueError, match=r"model.pt: expected weights of second too, got none: train them"):
        load_parts(container(), tmp_path / "model.pt")


def test_all_stages_of_a_first_training_train_though_those_that_are_there_are_kept(tmp_path):
    network, shared, steps = container(), training(tmp_path, train_parts="auto"), []
    for part in ("first", "second"):
        each = copying(tmp_path, network, part, shared=shared)
        each.trainer.add_event_handler("ITERATION_COMPLETED", steps.append)
        each.train()
    assert len(steps) == 2 * 6


def test_a_resumed_run_has_the_losses_of_an_unbroken_one(tmp_path):
    unbroken = stage(tmp_path / "a", container(), max_epochs=4, use_ema=True)
    first = stage(tmp_path / "b", container(), max_epochs=2, use_ema=True)
    second = stage(tmp_path / "b", container(), max_epochs=4, use_ema=True, resume=True)
    assert first + second == unbroken
    for name, value in weights(tmp_path / "a").items():
        torch.testing.assert_close(weights(tmp_path / "b")[name], value, rtol=0, atol=0, equal_nan=True)


def test_mixed_precision_on_a_cpu_calls_the_network_in_bfloat16_and_learns_from_float32(tmp_path):
    network, seen = container(), []
    network.second.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = stage(tmp_path, network, amp=True)
    assert seen[0] == torch.bfloat16
    assert losses == pytest.approx(stage(tmp_path / "exact", container()), rel=0.05)
    assert losses != stage(tmp_path / "exact", container())
    assert weights(tmp_path)["second.weight"].dtype == torch.float32


@pytest.mark.parametrize(("capability", "told"), [("AVX2", True), ("AVX512", False)])
def test_mixed_precision_is_warned_of_where_a_processor_is_slow_at_it(tmp_path, monkeypatch, caplog, capability, told):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    stage(tmp_path, container(), amp=True)
    assert ("no instructions for bfloat16" in caplog.text) == told


def test_a_finished_stage_is_not_trained_again(tmp_path):
    stage(tmp_path, container())
    published = weights(tmp_path)
    assert stage(tmp_path, container(), resume=True) == []
    assert torch.equal(weights(tmp_path)["second.weight"], published["second.weight"])


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["cut off", "hostile"])
def test_a_checkpoint_that_cannot_be_read_is_named_with_what_to_do_and_runs_nothing(tmp_path, caplog, capfd, kind):
    stage(tmp_path, container(), max_epochs=1)
    last = tmp_path / "checkpoints" / "second_last.pt"
    torch.save({"model": Runs(tmp_path / "ran")}, tmp_path / "hostile.pt")
    content = {"cut off": last.read_bytes()[:-100], "hostile": (tmp_path / "hostile.pt").read_bytes()}
    last.write_bytes(content[kind])
    with pytest.raises(ValueError, match=r"second_last.pt: expected a checkpoint .* delete the file, or") as raised:
        stage(tmp_path, container(), resume=True)
    printed = "".join([*traceback.format_exception(raised.value), caplog.text, *capfd.readouterr()])
    assert "set to `False`" not in printed
    assert not (tmp_path / "ran").exists()


def test_a_training_that_is_killed_in_its_first_epoch_does_not_go_on_as_an_earlier_one(tmp_path):
    unbroken = stage(tmp_path / "a", container(), max_epochs=2)
    stage(tmp_path / "b", container(), max_epochs=3)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "b", killed(container()), max_epochs=2)
    assert stage(tmp_path / "b", container(), max_epochs=2, resume=True) == unbroken


def test_nor_do_its_later_stages(tmp_path):
    for part in ("first", "second"):
        copying(tmp_path, container(), part).train()
    with pytest.raises(KeyboardInterrupt):
        copying(tmp_path, killed(container(), "first"), "first").train()
    later, steps = copying(tmp_path, container(), "second", settings={"resume": True}), []
    later.trainer.add_event_handler("ITERATION_COMPLETED", steps.append)
    later.train()
    assert len(steps) == 6


def test_the_stages_of_one_training_keep_their_checkpoints(tmp_path):
    network, shared = container(), training(tmp_path)
    for part in ("first", "second"):
        copying(tmp_path, network, part, shared=shared).train()
    kept = {f"{part}_{which}.pt" for part in ("first", "second") for which in ("last", "best")}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == kept


def test_a_best_epoch_of_nobody_knows_which_training_is_not_published(tmp_path):
    stage(tmp_path, container(), max_epochs=1)
    (tmp_path / "checkpoints" / "second_last.pt").unlink()
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, killed(container()), resume=True)
    assert not (tmp_path / "checkpoints" / "second_best.pt").exists()


def test_a_training_whose_best_epoch_is_missing_is_not_resumed(tmp_path):
    stage(tmp_path, container(), max_epochs=1)
    (tmp_path / "checkpoints" / "second_best.pt").unlink()
    with pytest.raises(ValueError, match="cannot resume: the best epoch of second so far is not there"):
        stage(tmp_path, container(), max_epochs=2, resume=True)


def test_a_loss_that_is_no_number_from_the_start_publishes_nothing(tmp_path):
    stage(tmp_path, container(), max_epochs=1)
    published, network = weights(tmp_path), container()
    network.second.register_forward_hook(lambda part, inputs, answer: answer * torch.nan)
    with pytest.raises(ValueError, match="second: the training has ended before it validated an epoch"):
        stage(tmp_path, network, max_epochs=1)
    assert torch.equal(weights(tmp_path)["second.weight"], published["second.weight"])


def test_a_score_that_is_no_number_chooses_no_epoch(tmp_path):
    never = copying(tmp_path, container(), key_metric={"distance": MeanAbsoluteError})
    never.evaluator.add_event_handler(
        "EPOCH_COMPLETED", lambda engine: engine.state.metrics.update(distance=float("nan"))
    )
    with pytest.raises(ValueError, match="distance is NaN, by which no epoch of second can be chosen"):
        never.train()
    assert not (tmp_path / "model.pt").exists()


AT_WORK = """
    import sys
    sys.path[:0] = [{root!r}, {tests!r}]
    from pathlib import Path
    from test_stages import training
    training(Path({folder!r}), **{paths}).take_folder()
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("shared", ["ckpt_dir", "model_path"])
def test_two_trainings_do_not_share_a_folder_or_what_they_publish(tmp_path, shared):
    theirs, ours = ({name: str(tmp_path / who / name) for name in ("ckpt_dir", "model_path")} for who in "ab")
    ours[shared] = theirs[shared]
    tests = Path(__file__).parent
    script = AT_WORK.format(root=str(tests.parent.parent), tests=str(tests), folder=str(tmp_path), paths=theirs)
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "at work\n"
        reason = f"another training is at work on .*{shared}: wait for its end, or set another {shared}"
        with pytest.raises(RuntimeError, match=reason):
            copying(tmp_path, container(), settings=ours).train()
        assert not Path(ours["ckpt_dir"], "second_last.pt").exists()
        other.kill()
        other.wait()
        copying(tmp_path, container(), settings=ours).train()


def test_a_training_is_at_work_from_its_first_stage_to_the_end_of_the_process(tmp_path):
    for folder in ("a", "a", "b"):
        copying(tmp_path / folder, container()).train()
        locks = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.glob("*/.*.lock"))]
        assert locks == [f"{folder}/.checkpoints.lock", f"{folder}/.model.pt.lock"]


@pytest.mark.parametrize(
    ("settings", "options", "reason"),
    [
        ({"seed": 1}, {}, "seed was 0 and is 1 now"),
        ({"final_learning_rate": 0.1}, {}, "final_learning_rate was 0.0 and is 0.1 now"),
        ({"amp": True}, {}, "amp was False and is True now"),
        ({"volumes_per_batch": 2}, {}, "volumes_per_batch was 4 and is 2 now"),
        ({}, {"learning_rate": 0.1}, "learning_rate was 0.01 and is 0.1 now"),
        ({}, {"ema_momentum": 0.1}, "ema_momentum was None and is 0.1 now"),
        ({}, {"loss": nn.L1Loss()}, "loss was MSELoss and is L1Loss now"),
        ({}, {"cases": "abcdefg"}, "number of training cases was 8 and is 7 now"),
        ({}, {"cases": "abcdefgi"}, "training case 8 was h and is i now"),
        ({}, {"cases": "hgfedcba"}, "training case 1 was a and is h now"),
    ],
)
def test_a_training_is_not_resumed_as_another_one(tmp_path, settings, options, reason):
    copying(tmp_path, container(), max_epochs=1).train()
    before = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(ValueError, match=f"cannot resume: {reason}"):
        copying(tmp_path, container(), max_epochs=2, settings={"resume": True, **settings}, **options).train()
    assert (tmp_path / "model.pt").read_bytes() == before


def test_a_training_is_not_resumed_with_another_network(tmp_path):
    copying(tmp_path, container(), max_epochs=1).train()
    other = NetworkParts("second", first=nn.Linear(4, 4), second=nn.Linear(4, 4, bias=False))
    with pytest.raises(ValueError, match=r"cannot resume: network.bias was of shape \(4,\) and is nothing now"):
        copying(tmp_path, other, max_epochs=2, settings={"resume": True}).train()


def test_a_longer_training_with_other_workers_and_cache_in_another_folder_is_resumed(tmp_path):
    copying(tmp_path / "here", container(), max_epochs=1).train()
    (tmp_path / "here").rename(tmp_path / "there")
    more = {"resume": True, "num_workers": 1, "cache_rate": 0.0, "val_interval": 2}
    longer = copying(tmp_path / "there", container(), max_epochs=2, settings=more)
    longer.train()
    assert longer.trainer.state.iteration == 4


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
    stage(tmp_path, container(), part="first")
    with pytest.raises(ValueError, match="finetune needs the weights"):
        stage(tmp_path, container(), finetune=True)


def test_finetuning_takes_what_fits_of_a_network_of_other_sequences(tmp_path, caplog):
    other = NetworkParts("second", first=nn.Linear(3, 4), second=nn.Linear(4, 4))
    torch.save(other.state_dict(), tmp_path / "model.pt")
    network = container()
    with caplog.at_level("WARNING"):
        stage(tmp_path, network, part="first", max_epochs=1, lr=0.0, finetune=True)
    assert any("1 weights are not in" in line and "first.weight" in line for line in caplog.messages)
    torch.testing.assert_close(network.first.bias, other.first.bias)
    torch.testing.assert_close(network.second.weight, other.second.weight)


def test_finetuning_names_what_does_not_fit_of_a_part_that_is_not_trained(tmp_path, caplog):
    other = NetworkParts("second", first=nn.Linear(3, 4), second=nn.Linear(4, 4))
    torch.save(other.state_dict(), tmp_path / "model.pt")
    with caplog.at_level("WARNING"):
        stage(tmp_path, container(), max_epochs=1, finetune=True)
    assert any("1 weights are not in" in line and "first.weight" in line for line in caplog.messages)


def test_finetuning_with_weights_of_which_none_fits_is_refused(tmp_path):
    other = NetworkParts("second", first=nn.Linear(4, 4), second=nn.Linear(3, 3))
    torch.save(other.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="expected weights that second can start from, none fits"):
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
            None,
            container(),
            "second",
            training(tmp_path),
        )


KILLED = """
    import sys
    sys.path[:0] = [{root!r}, {tests!r}]
    from pathlib import Path
    from test_stages import container, stage
    print(stage(Path({folder!r}), container(), max_epochs=40, use_ema=True, resume=True), flush=True)
"""


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_like_an_unbroken_one(tmp_path):
    unbroken = stage(tmp_path / "a", container(), max_epochs=40, use_ema=True)
    tests = Path(__file__).parent
    script = textwrap.dedent(KILLED.format(root=str(tests.parent.parent), tests=str(tests), folder=str(tmp_path / "b")))
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


def several_parts(folder, network, **settings):
    """Train both parts of a container together, one after the other, to copy their input."""
    items = [{"image": torch.full((4,), i / 10), "label": torch.full((4,), i / 10)} for i in range(8)]
    both = trained_parts(network, ("first", "second"))
    chain = nn.Sequential(network.first, network.second)
    optimizer = torch.optim.Adam(both.parameters(), lr=0.01)
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset(items), batch_size=4),
        chain,
        key_val_metric={"error": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=lambda new, best: new < best,
    )
    trainer = SupervisedTrainer(
        "cpu",
        3,
        DataLoader(Dataset(items), batch_size=4),
        chain,
        optimizer,
        nn.MSELoss(),
        train_handlers=[ValidationHandler(1, evaluator)],
        decollate=False,
    )
    lr_scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    run_stage(trainer, evaluator, lr_scheduler, network, ("first", "second"), training(folder, **settings))


def test_several_parts_are_trained_and_published_together(tmp_path):
    network = NetworkParts("second", first=nn.Linear(4, 4), second=nn.Linear(4, 4), third=nn.Linear(4, 4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    several_parts(tmp_path, network)
    after = weights(tmp_path)
    changed = {name for name in after if not torch.equal(before[name].nan_to_num(), after[name].nan_to_num())}
    assert changed == {"first.weight", "first.bias", "second.weight", "second.bias"}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"first_last.pt", "first_best.pt"}


def copying(folder, network, part="second", max_epochs=3, settings=None, shared=None, cases="abcdefgh", **options):
    """Return a ``Stage`` that learns to copy eight items, of a training of its own or of a shared one."""
    items = [
        {"image": torch.full((4,), i / 10), "label": torch.full((4,), i / 10), "case": c} for i, c in enumerate(cases)
    ]
    data, shared = (Dataset(items), Dataset(items)), shared or training(folder, **(settings or {}))
    options = {"loss": nn.MSELoss(), "learning_rate": 0.01, **options}
    return Stage(part, network, shared, data, max_epochs=max_epochs, **options)


def test_a_stage_of_a_config_trains_its_part_to_its_best_loss(tmp_path):
    stage = copying(tmp_path, container(), metrics={"distance": MeanAbsoluteError})
    stage.train()
    assert stage.evaluator.state.best_metric < 0.5
    assert set(stage.evaluator.state.metrics) == {"second_val_loss", "distance"}
    events = EventAccumulator(str(tmp_path / "tensorboard" / "second")).Reload()
    assert {"second_loss", "second_val_loss", "distance"} <= set(events.Tags()["scalars"])


def test_each_epoch_is_said_with_its_loss_and_its_scores(tmp_path, caplog):
    caplog.set_level("INFO")
    copying(tmp_path, container(), max_epochs=2).train()
    said = [record.message for record in caplog.records if record.name == "common.training.stages"]
    assert said[1].startswith("second_loss: epoch 1 of 2, ")
    assert said[2].startswith("second_val_loss ")
    assert said[-1] == f"second: the best epoch is in {tmp_path / 'model.pt'}."


def test_a_stage_without_cases_says_what_they_need(tmp_path):
    empty = copying(tmp_path, container(), cases="", needs="an organ mask")
    with pytest.raises(ValueError, match="second: expected training cases with an organ mask, got none"):
        empty.train()


def test_a_stage_that_is_kept_needs_no_cases(tmp_path):
    copying(tmp_path, container()).train()
    copying(tmp_path, container(), cases="", settings={"train_parts": "auto"}).train()


def test_its_learning_rate_falls_along_a_cosine(tmp_path):
    stage = copying(tmp_path, container(), settings={"final_learning_rate": 0.001})
    stage.train()
    assert stage.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_metric_may_choose_the_epoch_by_its_highest_value(tmp_path):
    stage = copying(tmp_path, container(), key_metric={"distance": MeanAbsoluteError})
    stage.train()
    best = torch.load(tmp_path / "checkpoints" / "second_best.pt", weights_only=True)
    last = torch.load(tmp_path / "checkpoints" / "second_last.pt", weights_only=True)["model"]
    assert not torch.equal(best["weight"], last["weight"])  # the distance falls, so its highest value came first


def test_the_average_of_the_weights_is_what_is_published(tmp_path):
    stage = copying(tmp_path, container(), ema_momentum=0.1)
    stage.train()
    trained = torch.load(tmp_path / "checkpoints" / "second_last.pt", weights_only=True)
    assert torch.equal(weights(tmp_path)["second.weight"], trained["ema"]["weight"])
    assert not torch.equal(trained["ema"]["weight"], trained["model"]["weight"])


def test_a_part_that_is_published_is_kept_unless_all_are_wanted(tmp_path):
    copying(tmp_path, container()).train()
    kept, again = (copying(tmp_path, container(), settings={"train_parts": word}) for word in ("auto", "all"))
    kept.train()
    again.train()
    assert (kept.trainer.state.iteration, again.trainer.state.iteration) == (0, 6)


def test_a_loss_counts_items_whatever_it_compares_with():
    loss = MeanLoss(lambda pred, target: (pred - (target["image"] if isinstance(target, dict) else target)).mean())
    for count in (1, 3):
        loss.update((torch.full((count,), float(count)), {"image": torch.zeros(count)}))
    loss.update((torch.full((2,), 5.0), torch.zeros(2)))
    assert loss.compute() == pytest.approx((1 * 1 + 3 * 3 + 2 * 5) / 6)


def test_a_learning_rate_rises_along_a_line_and_falls_along_a_cosine():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.8)
    schedule, found = WarmUpCosineLR(optimizer, 13, 0.1, warm_up=3), []
    for _ in range(14):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert found[8] == pytest.approx(0.45)
    assert found[-1] == pytest.approx(0.1)
    plain = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.8)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(plain, 10, 0.1)
    assert WarmUpCosineLR(optimizer, 10, 0.1).get_last_lr() == cosine.get_last_lr()
