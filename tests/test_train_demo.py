"""A demonstration is remade with one command; a folder of real data gets a split of its own, and nothing in it."""

import itertools
import json
import shutil

import pytest
import torch

from ci import ROOT, bundle_names
from ci.recipes import recipe_of
from ci.train_demo import halve, split_anew, train_demo
from common.checkpoints import load_parts
from common.data.cases import list_cases
from common.networks.parts import NetworkParts

PARTS = ("training", "validation", "testing")
SPLIT = {"fractions": [0.6, 0.2, 0.2], "seed": 0}


@pytest.fixture
def real(tmp_path):
    """A folder of five patients, one of them with two scans, whom somebody has put into two parts."""
    folder = tmp_path / "real data"
    folder.mkdir()
    cases = [("a", "a1"), ("a", "a2"), ("b", "b"), ("c", "c"), ("d", "d"), ("e", "e")]
    items = [{"image": f"{case}.nii.gz", "label": f"{case}_label.nii.gz", "patient": p, "site": p} for p, case in cases]
    for item in items:
        for key in ("image", "label"):
            (folder / item[key]).touch()
    content = {"name": "made up", "training": items[:4], "validation": [], "testing": items[4:]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_real_cases_are_split_anew_by_patient_and_their_files_are_found(real, tmp_path):
    split_anew(real, tmp_path / "work", **SPLIT)
    parts = [list_cases(str(tmp_path / "work"), part, check=False) for part in PARTS]
    patients = [{item["patient"] for item in items} for items in parts]
    assert [len(names) for names in patients] == [3, 1, 1]
    assert set.union(*patients) == set("abcde")
    for item in itertools.chain(*parts):
        assert item["site"] == item["patient"]
        assert {item["image"], item["label"]} == {str(real / f"{item['case']}{end}.nii.gz") for end in ("", "_label")}


def test_the_folder_of_real_data_stays_as_it_is(real, tmp_path):
    before = {path: path.read_bytes() for path in real.iterdir()}
    split_anew(real, tmp_path / "work", **SPLIT)
    with pytest.raises(ValueError, match="expected a folder outside"):
        split_anew(real, real / "work", **SPLIT)
    assert {path: path.read_bytes() for path in real.iterdir()} == before


@pytest.mark.parametrize("bundle", [name for name in bundle_names() if not recipe_of(name).real])
def test_a_recipe_that_does_not_say_how_refuses_real_data(bundle, real, tmp_path):
    with pytest.raises(ValueError, match="has no 'real'"):
        train_demo(bundle, work_dir=str(tmp_path), real_dir=str(real))


def test_halved_weights_load_into_single_precision(tmp_path):
    network = NetworkParts("layer", layer=torch.nn.Linear(3, 2))
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    halve(path)
    halved = torch.load(path, weights_only=True)
    assert halved["layer.weight"].dtype == torch.float16
    assert halved["threshold"].isnan()
    other = NetworkParts("layer", layer=torch.nn.Linear(3, 2))
    load_parts(other, path)
    assert other.layer.weight.dtype == torch.float32
    torch.testing.assert_close(other.layer.weight, network.layer.weight, atol=1e-3, rtol=1e-3)


NAMES = [(name, overlay) for name in bundle_names() for overlay in recipe_of(name).overlays]
"""Overlays that have weights of their own."""


def small(name, overlay=""):
    """Return a recipe with the same steps, each of them short."""
    recipe, fast = recipe_of(name, overlay), recipe_of(name).fast
    trainings = [{**training, **fast[training["config"]], "val_interval": 1} for training in recipe.trainings]
    return recipe._replace(data=recipe.demo, trainings=trainings)


def written(*folders):
    """Return when each file of some folders was written."""
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*") if path.is_file()}


def images(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "overlay"), [(bundle_names()[0], ""), *NAMES])
def test_it_makes_data_and_weights_and_goes_on_where_it_ended(bundle, overlay, tmp_path, monkeypatch):
    committed, tree, recipe = ROOT / "bundles" / bundle, tmp_path / "tree", small(bundle, overlay)
    for folder in ("common", f"bundles/{bundle}"):  # a config answers from the place of the common that runs it
        shutil.copytree(ROOT / folder, tree / folder)
    demo, models = (tree / "bundles" / bundle / folder / overlay for folder in ("demo", "models"))
    shutil.rmtree(demo)
    shutil.rmtree(models)
    monkeypatch.setattr("ci.ROOT", tree)
    monkeypatch.setattr("ci.train_demo.ROOT", tree)
    monkeypatch.setattr("ci.train_demo.recipe_of", lambda *names: recipe)
    work, shipped = tmp_path / "work", written(committed / "demo", committed / "models")

    train_demo(bundle, work_dir=str(work), num_workers=1, overlay=overlay)
    drawn, data = images(demo), written(work / "data")
    assert len(json.loads(drawn["dataset.json"])["training"]) == recipe.demo["training"]
    weights, last = torch.load(models / "model.pt", weights_only=True), written(*work.glob("*/checkpoints"))
    assert all(value.isfinite().all() for value in weights.values())
    assert last

    train_demo(bundle, work_dir=str(work), num_workers=1, overlay=overlay)  # what is trained stays
    assert images(demo) == drawn
    assert written(work / "data") == data
    assert written(*work.glob("*/checkpoints")) == last
    torch.testing.assert_close(torch.load(models / "model.pt", weights_only=True), weights, rtol=0, atol=0)
    assert written(committed / "demo", committed / "models") == shipped
