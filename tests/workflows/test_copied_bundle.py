"""A bundle's folder under another name is a bundle, in a tree where nothing else has changed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from bundle_runs import BUNDLES, ROOT, assert_done

from ci.recipes import recipe_of, stages

NEEDED = ("bundles", "ci", "common", "tests", "pyproject.toml", "README.md")
STUDIED = [name for name in reversed(BUNDLES) if recipe_of(name).study.get("kind") in ("detection", "segmentation")]
ONE_OF_EACH_KIND = {recipe_of(name).study["kind"]: name for name in STUDIED}.values()
pytestmark = pytest.mark.slow


@pytest.fixture
def tree(tmp_path):
    """Return a copy of the repository."""
    folder = tmp_path / "tree"
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "eval"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def python(tree):
    """Run a module in the tree."""

    def run(*words, **options):
        arguments = [*words, *(f"--{name}={value}" for name, value in options.items())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
        command = [sys.executable, "-m", *map(str, arguments)]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=1800)
        assert_done(done)
        return done.stdout

    return run


def hashes(folder):
    """Return the SHA-256 of all files by their path, without what Python and its tools keep for themselves."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    kept = {name: path for name, path in paths.items() if not any(part[0] in "._" for part in name.parts[:-1])}
    return {str(name): hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


def copied(bundle, tree, name):
    """Copy a bundle's folder under another name, put that into its configs, and return the new folder."""
    folder = tree / "bundles" / name
    shutil.copytree(tree / "bundles" / bundle, folder)
    for path in (folder / "configs").glob("*.json"):
        config = json.loads(path.read_text())
        if "bundle_root" in config:
            config["bundle_root"]["bundle"] = name
        if path.name == "metadata.json":
            config["name"] = name
        path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("bundle", ONE_OF_EACH_KIND)
def test_it_runs_trains_is_tested_studied_benchmarked_and_packed(bundle, tree, python, tmp_path):
    name, before, fast = f"{bundle}_copied", hashes(tree), recipe_of(bundle).fast
    folder = copied(bundle, tree, name)
    inference, train = (folder / "configs" / f"{config}.json" for config in ("inference", "train"))

    python("monai.bundle", "run", config_file=inference, output_dir=tmp_path / "maps", **fast["inference"])
    assert list((tmp_path / "maps").rglob("*_mask.nii.gz"))

    epochs = {key: 2 for key in fast["train"] if key.endswith("max_epochs")}
    options = {**fast["train"], **epochs, "train_parts": "all", "output_dir": tmp_path / "training"}
    python("monai.bundle", "run", config_file=train, **options)
    for part in stages(bundle):
        assert (tmp_path / "training" / "checkpoints" / f"{part}_last.pt").is_file()
    assert hashes(folder)["models/model.pt"] != before[f"bundles/{bundle}/models/model.pt"]

    tests = [f"tests/test_{subject}.py" for subject in ("bundles", "study", "benchmark", "gpu_check")]
    chosen = f"{name} and not threshold_of_the_weights"  # which was fitted with the fast settings
    output = python("pytest", "-q", *tests, "tests/workflows/test_inference.py", "-k", chosen)
    assert " passed" in output
    assert "failed" not in output

    short = {"num_patients": 1, "num_rows": 1, "num_bootstraps": 5, "num_workers": 1}
    python("ci.study", name, output_dir=tmp_path / "study", **short)
    assert name in next((tmp_path / "study").rglob("report.html")).read_text()

    assert "peak memory" in python("ci.benchmark", name, slices=1, **fast["inference"])

    python("ci.pack_bundle", name, dst=tmp_path / "dist")
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.zip"))) as archive:
        assert {path.split("/")[0] for path in archive.namelist()} == {name}

    after = hashes(tree)
    assert {path: after.get(path) for path in before} == before
    assert all(path.startswith(f"bundles/{name}/") for path in after.keys() - before.keys())


def test_the_weights_learn_from_real_data_that_stay_as_they_are(tree, python, tmp_path):
    bundle = next(name for name in BUNDLES if recipe_of(name).real)
    path, recipe = tree / "bundles" / bundle / "recipe.json", recipe_of(bundle)
    training = {"config": "train", "train_parts": "all", **recipe.fast["train"]}
    real = {"fractions": [0.4, 0.4, 0.2], "seed": 0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "trainings": [training], "real": real}))
    shutil.copytree(tree / "bundles" / bundle / "demo", tmp_path / "real")
    before, model = hashes(tmp_path / "real"), tree / "bundles" / bundle / "models" / "model.pt"
    untrained = model.read_bytes()

    python("ci.train_demo", bundle, work_dir=tmp_path / "work", num_workers=1, real_dir=tmp_path / "real")

    assert hashes(tmp_path / "real") == before
    assert (tmp_path / "work" / "real" / "data" / "dataset.json").is_file()
    assert not (tmp_path / "work" / "data").exists()
    assert model.read_bytes() != untrained
