"""Training and evaluation of each bundle from the command line, at demonstration size."""

import pytest
import torch
from bundle_runs import BUNDLES, ROOT, assert_done, baselines, config_of, run_bundle

from ci.recipes import stages

bundles = pytest.mark.parametrize("bundle", BUNDLES)
pytestmark = pytest.mark.slow


def parts(path):
    """Return the weights of a container by part."""
    weights = torch.load(path, weights_only=True)
    return {
        name: {k: v for k, v in weights.items() if k.startswith(f"{name}.")}
        for name in {k.split(".")[0] for k in weights}
    }


def equal(these, those):
    return these.keys() == those.keys() and all(torch.equal(these[key], those[key]) for key in these)


@bundles
def test_all_stages_train_publish_resume_and_evaluate(bundle, tmp_path):
    model, out = tmp_path / "model.pt", tmp_path / "out"
    options = {"output_dir": out, "model_path": model}
    *others, main = stages(bundle)
    assert_done(run_bundle(bundle, "train", train_parts="all", **options))
    first = parts(model)
    assert set(first) >= {*others, main}

    assert_done(run_bundle(bundle, "train", **options))  # train_parts auto keeps the others
    second = parts(model)
    assert all(equal(first[name], second[name]) for name in others)
    torch.testing.assert_close(second[main], first[main], rtol=0, atol=1e-5)  # the same seed; runs differ by rounding

    assert_done(run_bundle(bundle, "train", run_id=f"train_{main}", seed=1, **options))
    third = parts(model)
    assert all(equal(first[name], third[name]) for name in others)
    assert not equal(first[main], third[main])

    newest = max(out.rglob("*_last.pt"), key=lambda path: path.stat().st_mtime)
    last, resumed = newest.read_bytes(), options | {"resume": True, "max_epochs": 2}
    process = run_bundle(bundle, "train", run_id=f"train_{main}", seed=1, **resumed)
    assert_done(process)
    assert "epoch 2 of 2" in process.stdout + process.stderr
    assert newest.read_bytes() != last  # what is published changes only if the second epoch is the better one
    assert list(out.rglob("events.out.tfevents*"))

    evaluation = {"output_dir": tmp_path / "eval", "model_path": model, "num_bootstraps": 20}
    before = model.read_bytes()
    assert_done(run_bundle(bundle, "inference", "evaluate", **evaluation))
    assert model.read_bytes() == before
    for name in ("per_patient.csv", "summary.csv", "report.html"):
        assert (tmp_path / "eval" / name).stat().st_size > 0
    details = ("per_slice.csv", "per_tumour.csv", "predictions.csv")
    assert any((tmp_path / "eval" / name).is_file() for name in details)
    if "fit_threshold" in config_of(bundle, "evaluate"):
        assert_done(run_bundle(bundle, "inference", "evaluate", fit_threshold=True, **evaluation))
        assert torch.load(model, weights_only=True)["threshold"].isfinite()


@bundles
def test_a_resumed_training_equals_an_unbroken_one(bundle, tmp_path):
    main = stages(bundle)[-1]
    run = {"run_id": f"train_{main}", "max_epochs": 2}
    assert_done(run_bundle(bundle, "train", output_dir=tmp_path / "a", model_path=tmp_path / "a.pt", **run))
    # The first half has the schedule of the whole run, as one that was killed would.
    half = {"output_dir": tmp_path / "b", "model_path": tmp_path / "b.pt"}
    if "T_max" in config_of(bundle, "train")["train"]["lr_scheduler"]:
        half["train::lr_scheduler::T_max"] = 2
    assert_done(run_bundle(bundle, "train", **half, **(run | {"max_epochs": 1})))
    assert_done(run_bundle(bundle, "train", resume=True, **half, **run))
    last = [torch.load(tmp_path / x / "checkpoints" / f"{main}_last.pt", weights_only=False) for x in "ab"]
    assert equal(last[0]["model"], last[1]["model"])
    assert equal(parts(tmp_path / "a.pt")[main], parts(tmp_path / "b.pt")[main])


@bundles
def test_a_run_that_never_validates_and_weights_of_another_size_are_refused(bundle, tmp_path):
    options = {"output_dir": tmp_path, "model_path": tmp_path / "model.pt", "train_parts": "all"}
    process = run_bundle(bundle, "train", val_interval=2, **options)
    assert process.returncode != 0
    assert "val_interval (2) must be <= max_epochs (1)" in process.stdout + process.stderr
    torch.save({"some.other.weight": torch.zeros(3)}, tmp_path / "model.pt")
    process = run_bundle(bundle, "train", **options)
    assert process.returncode != 0
    assert "expected" in process.stdout + process.stderr


@bundles
def test_two_processes_train_together(bundle, tmp_path):
    options = {"output_dir": tmp_path, "model_path": tmp_path / "model.pt", "train_parts": "all"}
    assert_done(run_bundle(bundle, "train", "multi_gpu_train", processes=2, **options))
    assert set(parts(tmp_path / "model.pt")) >= set(stages(bundle))


@bundles
def test_mlflow_follows_a_training(bundle, tmp_path):
    pytest.importorskip("mlflow")
    options = {"output_dir": tmp_path, "model_path": tmp_path / "model.pt"}
    root = ROOT / "bundles" / bundle
    main = stages(bundle)[-1]
    assert_done(run_bundle(bundle, "train", run_id=f"train_{main}", cwd=root, tracking="mlflow", **options))
    assert list(tmp_path.rglob("mlruns*"))


@pytest.mark.parametrize("bundle", [name for name in BUNDLES if baselines(name)])
def test_baselines_train(bundle, tmp_path):
    options = {"output_dir": tmp_path, "model_path": tmp_path / "baselines" / "model.pt"}
    assert_done(run_bundle(bundle, "baselines", **options))
    assert set(parts(options["model_path"])) >= baselines(bundle)
