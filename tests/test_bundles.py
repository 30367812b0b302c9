"""The contract of a bundle, for every folder in ``bundles/``."""

import ast
import inspect
import json
import re
from pydoc import locate

import numpy as np
import pytest
import torch
from bundle_runs import outputs
from monai.bundle import ConfigParser, load
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.transforms import LoadImage

from ci import ROOT, bundle_names, bundle_parser, verify_bundle
from ci.figures import named_in_code
from ci.recipes import recipe_of
from common.checkpoints import load_parts
from common.data.files import CaseReader
from common.files import RESULTS

BUNDLES = [ROOT / "bundles" / name for name in bundle_names()]
CONFIGS = [path for bundle in BUNDLES for path in sorted((bundle / "configs").glob("*.json"))]
OVERLAYS = {
    "cam": ["inference"],
    "chaos": ["train", "inference"],
    "chexpert": ["train", "inference"],
    "code": ["train", "inference"],
    "ellipses": ["train", "inference"],
    "evaluate": ["inference"],
    "fpgan": ["train", "inference"],
    "handcrafted": ["inference"],
    "l2i": ["train", "inference"],
    "lgg": ["train", "inference"],
    "lits": ["train", "inference"],
    "multi_gpu_inference": ["inference"],
    "multi_gpu_train": ["train"],
    "nih": ["train", "inference"],
    "paper": ["train", "inference"],
    "regression": ["inference"],
    "repaint": ["train", "inference"],
    "segmentation": ["inference"],
    "slices": ["train", "inference"],
    "stargan": ["train", "inference"],
    "sweep": ["inference"],
    "t1": ["inference"],
    "vae": ["inference"],
}
MAY_DIFFER = {"patch_size", "imports", "inferer", "seed", "preprocessing", "reader", "schedule", "cases", "run", "amp"}
MAY_DIFFER |= {"display", "num_samples"}
"""Keys of one name that mean the same and need not be equal in train.json and inference.json."""

PARTS = {"grid", "translator", "inpainter", "segmenter"}
"""Arguments of an inferer that are definitions of their own, called as they are."""
NAMED_OTHERWISE = {"@task_patch_size": "@patch_size"}
"""Keys of train.json that are called otherwise in inference.json."""

OPEN_ENDED = ("NetworkParts", "ProgressBar")
"""Targets that hand on keywords of any name."""

bundles = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)


def read(path):
    return json.loads(path.read_text())


def parser_of(*paths):
    parser = ConfigParser()
    parser.read_config([str(path) for path in paths])
    return parser


def components(config, name=""):
    """Yield the id and the dictionary of everything in a config that has a ``_target_``."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield name, config
        for key, value in config.items():
            yield from components(value, f"{name}::{key}")
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from components(value, f"{name}::{index}")


def keys_of(config, above=""):
    """Yield the ids of everything in a config, as overlays name them."""
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        name = above + str(key).lstrip("+")
        yield name
        if isinstance(value, dict | list):
            yield from keys_of(value, f"{name}::")


def called(component):
    """Return what a component's ``_target_`` calls."""
    target = ConfigComponent(config=component, id="", locator=ComponentLocator()).resolve_module_name()
    return locate(target) if isinstance(target, str) else target


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.parent.name}/{p.name}")
def test_every_target_exists_and_takes_its_arguments(path):
    for name, component in components(read(path)):
        target = called(component)
        assert callable(target), f"{name}: {component['_target_']}"
        calls = [c.__init__ for c in target.__mro__[:-1]] if inspect.isclass(target) else [target]
        known = {p for call in calls for p in inspect.signature(call).parameters}
        open_ended = component["_target_"].endswith(OPEN_ENDED)
        given = {key for key in component if not key.startswith("_")}
        assert open_ended or given <= known, f"{name}: {component['_target_']} takes no {given - known}"


ALONE = [path for path in CONFIGS if path.stem in ("train", "inference", "baselines")]


@pytest.mark.parametrize("path", ALONE, ids=lambda p: f"{p.parent.parent.name}/{p.name}")
def test_what_a_config_refers_to_is_defined(path):
    config = read(path)
    for key in set(re.findall(r"@([A-Za-z]\w*)", path.read_text())):
        assert key in config, f"@{key} is nowhere"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.parent.name}/{p.name}")
def test_no_key_is_dead(path):
    read_by_tools = {
        "bundle_root",
        "dataset_dir",
        "imports",
        "initialize",
        "run",
        "finalize",
        "inferer",
        "inferers",
        "sample",
        "write_dataset",
        "_desc_",
        "displayable_configs",
    }
    if path.stem not in ("train", "inference", "baselines"):
        pytest.skip("an overlay, whose keys are looked up in what it lies over")
    config, text = read(path), path.read_text()
    stages = {key for key in config if key.startswith("train_")}
    for key in set(config) - read_by_tools - stages:
        assert re.search(rf"@{re.escape(key)}\b", text), f"nothing refers to {key}"


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.stem in OVERLAYS], ids=lambda p: f"{p.parent.parent.name}/{p.name}"
)
def test_an_overlay_sets_only_what_exists(path):
    bases, text = [read(path.with_name(f"{base}.json")) for base in OVERLAYS[path.stem]], path.read_text()
    known, taken = {key for base in bases for key in keys_of(base)}, set()
    for base in bases:
        for name, component in components(base):
            target = called(component)
            calls = [c.__init__ for c in target.__mro__[:-1]] if inspect.isclass(target) else [target]
            taken |= {f"{name[2:]}::{p}" for call in calls for p in inspect.signature(call).parameters}
            taken.add(f"{name[2:]}::_mode_")
    for key in read(path):
        plain = key.lstrip("+")
        assert plain in known | taken | {"_desc_", "finalize"} or f"@{plain}" in text, f"{key} is nowhere"


@bundles
def test_train_and_inference_build_the_same_network(bundle):
    train, inference = (read(bundle / "configs" / f"{name}.json") for name in ("train", "inference"))
    assert train["network_def"] == inference["network_def"]


@bundles
def test_numbers_of_one_name_are_equal_in_train_and_inference(bundle):
    train, inference = (parser_of(bundle / "configs" / f"{name}.json") for name in ("train", "inference"))
    shared = set(train.config) & set(inference.config) - MAY_DIFFER
    shared = {
        key for key in shared if not isinstance(train.config[key], dict | list) or key in ("hu_window", "channels")
    }
    for key in sorted(shared - {"dataset_dir", "output_dir", "model_path", "bundle_root", "device", "network"}):
        assert train.get_parsed_content(key) == inference.get_parsed_content(key), key


@bundles
def test_the_task_of_a_training_is_done_as_in_inference(bundle):
    """So that the threshold is fitted with the settings that it is then used with."""
    train, inference = (parser_of(bundle / "configs" / f"{name}.json") for name in ("train", "inference"))
    if "task" not in train.config:
        pytest.skip("its training does not try the task")
    parts = PARTS & inference.config["inferer"].keys()
    made_by_the_task, differs = parts - train.config["inferer"].keys(), set(recipe_of(bundle.name).task_differs)
    assert len(parts) == 2
    compare_definitions("inferer", train, inference, differs | made_by_the_task)
    for part in parts:
        assert inference.config["inferer"][part] == f"@{part}"
        compare_definitions(part, train, inference, differs)
    task = train.config["task"]
    for call in (task[key] for key in ("inferer", "full_inferer") if key in task):
        given = arguments(call, "inferer")
        assert made_by_the_task <= given.keys() <= made_by_the_task | differs
        for part in made_by_the_task:
            assert arguments(given[part], part).keys() <= differs


def compare_definitions(name, train, inference, differs):
    """Compare two definitions argument by argument, without the parts, which have definitions of their own."""
    ours, theirs = train.config[name], inference.config[name]
    assert ours["_target_"] == theirs["_target_"]
    given = {key: value for key, value in ours.items() if key[0] != "_" and key != "progress"}
    assert theirs.keys() - given.keys() - {"_target_"} <= differs, name
    assert given.keys() <= theirs.keys(), name
    for key, value in given.items():
        reference = NAMED_OTHERWISE.get(value, value) if isinstance(value, str) else value
        assert reference == theirs[key], f"{name}::{key}"
        if key not in differs | PARTS:
            compare_references(value, train, inference)


def compare_references(value, train, inference):
    """Compare what all keys that a value refers to stand for, and what those refer to."""
    for name in re.findall(r"@(\w+)", json.dumps(value)):
        other = NAMED_OTHERWISE.get(f"@{name}", f"@{name}")[1:]
        if isinstance(train.config[name], dict):
            assert train.config[name] == inference.config[other], name
            compare_references(train.config[name], train, inference)
        else:
            assert train.get_parsed_content(name) == inference.get_parsed_content(other), name


def arguments(call, name):
    """Return the arguments that a definition is called with, as expressions; none where it is only referred to."""
    tree = ast.parse(call.replace("$", "").replace("@", ""), mode="eval").body if isinstance(call, str) else call
    assert (tree.func if isinstance(tree, ast.Call) else tree).id == name
    assert not getattr(tree, "args", [])
    return {keyword.arg: keyword.value for keyword in getattr(tree, "keywords", [])}


@bundles
def test_the_papers_network_takes_images_of_the_papers_size(bundle):
    configs = bundle / "configs"
    form = read(configs / "metadata.json")["network_data_format"]
    images, answers = form["inputs"]["image"], form["outputs"]["pred"]
    with torch.device("meta"):  # all shapes, no numbers
        for base in OVERLAYS["paper"]:
            parser = parser_of(configs / f"{base}.json", configs / "paper.json")
            network, size = parser.get_parsed_content("network_def"), parser.get_parsed_content("patch_size")
            assert sum(p.numel() for p in network.parameters()) > 4_000_000
            answer = network.eval()(torch.empty(2, images["num_channels"], *size))
            assert answer.shape[:2] == (2, answers["num_channels"])
            assert answer.shape[2:] in (torch.Size(size), torch.Size())
            answer.sum().backward()


@bundles
def test_overlays_leave_train_and_inference_the_same_network(bundle):
    for overlay in verify_bundle.settings(bundle)[1:]:
        both = [bundle / "configs" / f"{base}.json" for base in ("train", "inference")]
        first, second = (
            parser_of(base, bundle / "configs" / f"{overlay}.json").get_parsed_content("network_def").state_dict()
            for base in both
        )
        assert {name: value.shape for name, value in first.items()} == {n: v.shape for n, v in second.items()}


@bundles
@pytest.mark.parametrize(
    "check",
    [
        verify_bundle.check_files,
        verify_bundle.check_metadata,
        verify_bundle.check_weights,
        verify_bundle.check_displayable,
        verify_bundle.check_network,
    ],
    ids=lambda check: check.__name__,
)
def test_the_bundle_passes_verification(bundle, check):
    check(bundle)


@bundles
@pytest.mark.parametrize(("config", "kind"), [("inference", "infer"), ("train", "train")])
def test_monais_properties_are_there(bundle, config, kind):
    verify_bundle.check_properties(bundle, config, kind)


@bundles
def test_a_refused_case_keeps_no_results_but_masks_that_a_data_set_may_have_too(bundle):
    overlays = [p.stem for p in (bundle / "configs").glob("*.json") if '"postprocessing::' in p.read_text()]
    for layers in [[], *([overlay] for overlay in overlays)]:
        saved = {f"{name}.nii.gz" for name in outputs(bundle.name, *layers)}
        assert saved - set(RESULTS) <= {"organ.nii.gz", "wanted.nii.gz"}
    assert "output_dir" in read(bundle / "configs" / "inference.json")["failures"]


@bundles
def test_demo_cases_have_splits_and_lesions(bundle):
    for path in (bundle / "demo").rglob("dataset.json"):
        demo = read(path)
        assert all(demo[split] for split in ("training", "validation", "testing"))
        assert any(item["image_label"] for item in demo["validation"])
        for item in demo["validation"]:
            assert (LoadImage(CaseReader)(path.parent / item["label"]) > 0).any() == item["image_label"]


@bundles
def test_overlay_weights_lie_in_folders_of_their_own(bundle):
    assert [path.name for path in (bundle / "models").glob("*.pt")] == ["model.pt"]


@bundles
def test_monai_loads_the_network_with_its_weights(bundle):
    network = load(bundle.name, bundle_dir=str(bundle.parent), load_ts_module=False, source="github")
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(
        torch.equal(value, weights[name].to(value))
        for name, value in network.state_dict().items()
        if value.isfinite().all()
    )


@bundles
def test_the_threshold_of_the_weights_was_fitted_with_the_bundles_settings(bundle):
    for overlay in verify_bundle.settings(bundle):
        parser = bundle_parser(bundle.name, "inference", *filter(None, [overlay]))
        network, inferer = (parser.get_parsed_content(name) for name in ("network_def", "inferer"))
        load_parts(network, bundle / "models" / overlay / "model.pt")
        fitted = network.threshold.isfinite()
        assert network.thresholds[0][1] == (inferer.settings if fitted else {})
        assert not inferer.threshold_warning(network)


@bundles
def test_a_threshold_is_kept_with_the_values_of_keys(bundle):
    parser = bundle_parser(bundle.name, "inference")
    settings = parser.get_parsed_content("inferer").settings
    shared = settings.keys() & parser.config.keys()
    assert {name: settings[name] for name in shared} == {name: parser.get_parsed_content(name) for name in shared}
    assert len(shared) >= len(settings) - 1  # not every method draws several samples


@bundles
def test_folder_configs_and_metadata_give_the_bundle_one_name(bundle):
    roots = [
        config["bundle_root"] for path in (bundle / "configs").glob("*.json") if "bundle_root" in (config := read(path))
    ]
    names = {
        "metadata": read(bundle / "configs" / "metadata.json")["name"],
        **{str(root): root["bundle"] for root in roots},
    }
    assert set(names.values()) == {bundle.name}, names


@bundles
def test_the_recipe_is_of_what_the_metadata_say(bundle):
    image = read(bundle / "configs" / "metadata.json")["network_data_format"]["inputs"]["image"]
    assert recipe_of(bundle.name).modality == image["modality"]


@bundles
def test_each_overlay_that_runs_at_once_has_a_recipe(bundle):
    assert set(recipe_of(bundle.name).overlays) == set(verify_bundle.settings(bundle)[1:])


@bundles
def test_the_recipe_sets_only_keys_that_exist(bundle):
    for overlay in verify_bundle.settings(bundle):
        recipe = recipe_of(bundle.name, overlay)
        for training in recipe.trainings:
            assert set(training) - {"config"} <= set(read(bundle / "configs" / f"{training['config']}.json"))
        for config, keys in recipe.fast.items():
            assert set(keys) <= set(read(bundle / "configs" / f"{config}.json"))


@bundles
def test_the_demo_has_the_cases_that_the_recipe_says(bundle):
    for overlay in verify_bundle.settings(bundle):
        demo, sizes = read(bundle / "demo" / overlay / "dataset.json"), recipe_of(bundle.name, overlay).demo
        there = [len(demo[split]) for split in ("training", "validation", "testing")]
        if "cells" in sizes:  # healthy and diseased ones of each site
            sizes = {split: np.sum(list(cells.values())) for split, cells in sizes["cells"].items()}
        assert there == [sizes["training"], sizes["validation"], sizes["testing"] + sizes.get("healthy_testing", 0)]


@bundles
def test_no_code_but_its_own_names_the_bundle(bundle):
    """Golden numbers come from programs of that name, one command is about one bundle, and one may build on another.

    An overlay may have the name of the bundle whose method it takes.
    """
    own = {f"tests/workflows/test_{name}.py" for name in bundle_names()} | {"ci/record_golden.py", "ci/guided_tasks.py"}
    own |= {"tests/test_tour.py"}  # of a notebook about two of them
    own |= {"tests/test_bundles.py"} if bundle.name in OVERLAYS else set()
    assert set(named_in_code(bundle.name)) <= own
