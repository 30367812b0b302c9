import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ci import bundle_names
from common import __main__ as program
from common.__main__ import main

ROOT = Path(__file__).parents[1]
NAMES = bundle_names()
NAME = NAMES[0]
CONFIGS = f"bundles/{NAME}/configs"


@pytest.fixture
def runs(monkeypatch):
    """Keep what would be run, and let it end with status 3."""
    kept = []

    def run(command, check, env):
        assert env == {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
        kept.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(program.subprocess, "run", run)
    monkeypatch.chdir(ROOT)
    return kept


def test_inference_is_the_run_that_is_printed_and_ends_as_it_does(runs, capsys):
    assert main(["infer", NAME, "ct.nii.gz", "-o", "out"]) == 3
    said = f"-m monai.bundle run --config_file={CONFIGS}/inference.json --output_dir=out --dataset_dir=ct.nii.gz"
    assert runs == [[sys.executable, *said.split()]]
    assert capsys.readouterr().out == f"python {said}\n"


def test_keys_of_configs_are_handed_on_wherever_they_stand(runs):
    main(["infer", NAME, "--seed", "-1", "--amp", "--organ_source=network", "ct.nii.gz", "--debug", "-o", "out"])
    assert (
        runs[0][-6:] == ["--dataset_dir=ct.nii.gz", "--seed", "-1", "--amp", "--organ_source=network", "--debug"][-6:]
    )


def test_overlays_lie_over_the_config_and_below_the_evaluation(runs):
    main(["evaluate", NAME, "-c", "paper"])
    files = [f"{CONFIGS}/{name}.json" for name in ("inference", "paper", "evaluate")]
    assert runs[0][4:6] == [f"--config_file={files}", f"--output_dir={NAME}_out"]


def test_training_leaves_the_weights_of_the_bundle_alone(runs):
    main(["train", NAME, "data", "-o", "out", "--max_epochs", "2"])
    assert "--model_path=out/model.pt" in runs[0]
    main(["train", NAME, "data", "-o", "out", "--model_path", "mine.pt"])
    assert "--model_path=out/model.pt" not in runs[1]


def test_from_elsewhere_configs_are_found_by_their_whole_path(runs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main(["infer", NAME])
    assert runs[0][4] == f"--config_file={ROOT / CONFIGS / 'inference.json'}"


def test_all_bundles_are_listed_with_their_task(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize("name", NAMES)
def test_the_options_of_a_bundle_have_defaults_and_meanings(name, capsys):
    main(["info", name])
    told = " ".join(capsys.readouterr().out.split())
    assert "paper: overlay of train.json and of inference.json" in told
    assert "seed 0 of all that is drawn" in told
    assert "max_epochs" in told
    assert "multi_gpu" not in told


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["infer", "nothing"], f"there is no bundle nothing; there are {NAME}, "),
        (["infer", NAME, "-c", "nothing"], f"{NAME} has no overlay nothing; it has "),
        (["list", "--nothing"], "unrecognized arguments: --nothing"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(typed, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_an_installation_without_bundles_says_how_to_get_them(tmp_path):
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=shutil.ignore_patterns("__pycache__"))
    process = subprocess.run(
        [sys.executable, "-m", "common", "list"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "clone the repository and install it by `pip install -e .` there" in process.stderr


def test_packed_into_a_bundle_the_program_knows_that_one(tmp_path):
    shutil.copytree(ROOT / CONFIGS, tmp_path / "configs")
    shutil.copytree(ROOT / "common", tmp_path / "scripts" / "common", ignore=shutil.ignore_patterns("__pycache__"))
    process = subprocess.run(
        [sys.executable, "-m", "common", "list"], cwd=tmp_path / "scripts", capture_output=True, text=True, check=False
    )
    assert process.stdout.startswith(tmp_path.name)
