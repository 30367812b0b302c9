"""What is timed, and how settings are compared."""

import re

import numpy as np
import pytest
from studied import ENSEMBLE, small_bundle

from ci import bundle_names, bundle_parser
from ci.benchmark import benchmark, compare, compare_bundles, demo_case, split_time
from ci.recipes import recipe_of
from common.studies.plan import methods

NUMBER = r"-?\d+(?:\.\d+)?|nan|inf"


@pytest.fixture
def configs(tmp_path):
    bundle = small_bundle(tmp_path)
    return lambda keys: bundle("inference", **{"inferer": {**ENSEMBLE, "slice_batch_size": 16}, **keys})


@pytest.fixture
def network(configs):
    return configs({}).get_parsed_content("network").eval()


@pytest.fixture
def case(configs):
    return demo_case(configs({"dataset::first": 2}), 2)


def printed(capsys):
    return {line[:36].strip(): line[37:] for line in capsys.readouterr().out.splitlines()}


def test_the_slices_are_those_with_the_largest_lesions_of_the_first_case(configs):
    parser = configs({"dataset::first": 2})
    one, every = demo_case(parser, 1), demo_case(parser, None)
    assert one.name == "testing 2"
    assert one.inputs.shape == (1, 1, 16, 16, 1)
    assert one.truth.sum() == every.truth.sum() == 4
    assert every.inputs.shape[-1] == 3
    assert one.spacing_mm == [1, 1, 4]


def test_the_time_of_the_networks_is_told_from_what_the_inferer_adds(configs, network, case, capsys):
    inferers = [configs({"inferer::slice_batch_size": size}).get_parsed_content("inferer") for size in (16, 1)]
    split_time(inferers[0], network, case, inferers[1])
    lines = printed(capsys)
    assert lines["calls of segmenter"].startswith("1, ")  # five draws of two slices
    assert "ratio" in lines["s a slice, one at a time"]
    assert "gradients of segmenter" not in lines


def test_settings_are_compared_with_the_first_and_what_varies_adds_up(configs, network, case, capsys):
    scores = {"Dice": "Dice, mean of slices"}
    rows = [
        {"name": "once", "settings": {"num_samples": 1}},
        {"name": "five times", "with": ["five"], "vary": {"seed": [0, 1, 2]}},
        {"name": "scored", "settings": {"inferer::segmenter::dropout": False}, "scores": scores},
    ]
    compare(rows, {"five": {"num_samples": 5}}, configs, network, case)
    lines = printed(capsys)
    assert list(lines) == ["once", "five times", "scored"]
    assert lines["once"].endswith("1.00 times the first")
    assert lines["scored"].endswith(", Dice 1.000")


def test_another_bundle_is_timed_on_the_same_slices(configs, network, case, capsys, monkeypatch):
    asked = []

    def other(*names):
        asked.append(names)
        return configs({"inferer::num_samples": 20})

    monkeypatch.setattr("ci.benchmark.bundle_parser", other)
    inferer = configs({"inferer::num_samples": 1}).get_parsed_content("inferer")
    compare_bundles(["one", "other/overlay"], inferer, network, case)
    assert asked == [("one", "inference"), ("other", "inference", "overlay")]
    lines = printed(capsys)
    assert list(lines) == ["one", "other/overlay"]
    assert re.fullmatch(rf"({NUMBER}) ms an image, ({NUMBER}) times the ({NUMBER}) ms above", lines["other/overlay"])


@pytest.mark.parametrize("short", [False, True], ids=["in full", "in a short run"])
@pytest.mark.parametrize("bundle", bundle_names())
def test_every_setting_of_a_recipe_can_be_made(bundle, short):
    recipe = recipe_of(bundle)
    fast = recipe.fast["inference"] if short else {}
    for row in recipe.benchmark:
        options = {name: value for name, value in row.items() if name not in ("long", "scores")}
        for method in methods([options], recipe.study.get("shared", {})):
            parser = bundle_parser(bundle, "inference", **{**fast, **method.settings})
            assert callable(parser.get_parsed_content("inferer"))
            assert "variants" not in parser or parser.get_parsed_content("variants").num_steps > 0


@pytest.mark.slow
@pytest.mark.parametrize("bundle", bundle_names())
def test_it_prints_times_ratios_and_memory(bundle, capsys):
    benchmark(bundle, slices=2, **recipe_of(bundle).fast["inference"])
    device, *lines = capsys.readouterr().out.splitlines()
    assert device.startswith("device ")
    assert lines[-1].startswith("peak memory, MB ")
    numbers = [[float(number) for number in re.findall(NUMBER, line[36:])] for line in lines]
    assert all(np.isfinite(each).all() and max(each) > 0 for each in numbers)
    ratios = [line for line in lines if "ratio" in line]
    assert ratios
    assert all(float(re.findall(NUMBER, line.partition("ratio")[2])[0]) > 0 for line in ratios)


def test_a_curve_is_the_study_of_that_name(monkeypatch):
    asked = []
    monkeypatch.setattr("ci.benchmark.study", lambda *args, **options: asked.append((args, options)))
    benchmark("any", curve=True, num_patients=2)
    assert asked == [(("any",), {"plan": "steps", "num_patients": 2})]


@pytest.mark.parametrize("bundle", [name for name in bundle_names() if "steps" in recipe_of(name).studies])
def test_a_curve_begins_with_the_default(bundle):
    rows = recipe_of(bundle).plan("steps")["rows"]
    assert rows[0].keys() <= {"name", "drawn"}
    assert rows[0]["name"].endswith("the default")
