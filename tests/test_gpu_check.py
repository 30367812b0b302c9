"""What a GPU is checked with, as far as a CPU can tell."""

import pytest
import torch
from studied import ENSEMBLE, SEGMENTER, small_bundle

from ci import bundle_names
from ci.benchmark import demo_case
from ci.gpu_check import demo_maps, fill_difference, first_call, gates_hold, gpu_check, time_at_size
from ci.recipes import recipe_of


@pytest.fixture
def configs(tmp_path):
    bundle = small_bundle(tmp_path)

    def parser(amp=False, slice_batch_size=16, **keys):
        segmenter = {**SEGMENTER, "dropout": False, "amp": amp}
        inferer = {**ENSEMBLE, "segmenter": segmenter, "slice_batch_size": slice_batch_size}
        return bundle("inference", **{"inferer": inferer, "dataset::first": 2, **keys})

    return parser


def test_the_network_a_training_step_and_the_inferer_are_timed_at_each_precision(configs, capsys):
    time_at_size(configs, [1, 2], {"float32": {}, "bfloat16": {"amp": True}})
    names = [line[:36].strip() for line in capsys.readouterr().out.splitlines()]
    assert names[:3] == ["network, float32", "network, bfloat16", "training step, one image"]
    assert names[3:] == [f"{name}, {count} slices at once" for name in ("float32", "bfloat16") for count in (1, 2)]


def test_the_main_network_is_asked_what_the_inferer_asks_it(configs):
    parser = configs(num_samples=3)
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    (images,), options = first_call(network, inferer, demo_case(parser, None))
    assert images.shape == (2 * 3, 1, 16, 16)  # of three slices two show a head
    assert options == {}
    assert not network.segmenter._forward_pre_hooks


def test_the_demonstration_is_compared_with_itself_in_fast_arithmetic(configs, capsys):
    assert gates_hold(configs)
    assert "1.000, at least" in capsys.readouterr().out


def test_a_gate_does_not_hold_where_fast_arithmetic_finds_something_else(configs, capsys):
    def broken(amp=False, **keys):
        return configs(**keys, **({"inferer::grid::organ": "image", "inferer::threshold": 0.0} if amp else {}))

    assert not gates_hold(broken)


def test_fillings_are_compared_where_something_was_filled_and_the_image_everywhere_else():
    image, hole = torch.zeros(4, 4, 1), torch.zeros(4, 4, 1)
    hole[1, 1], hole[2, 2] = 1, 1
    assert fill_difference(image, 10 * hole, 11.5 * hole) == (1.5, True)
    assert fill_difference(image, 10 * hole, 10 * hole + 0.01 * (1 - hole)) == (0, False)


def test_maps_have_their_names(configs):
    maps = demo_maps(configs, fast=False)
    assert list(maps) == ["image", "mean", "uncertainty", "mask", "organ"]
    assert maps["mask"].sum() == 4


@pytest.mark.parametrize("bundle", bundle_names())
def test_a_recipe_says_no_more_than_is_asked(bundle):
    recipe = recipe_of(bundle).gpu_check
    assert set(recipe) <= {"settings", "gates"}
    assert set(recipe.get("gates", {})) <= {"round_trip", "max_fill_difference"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("bundle", bundle_names())
def test_without_a_device_it_ends_with_one_sentence(bundle, capsys):
    with pytest.raises(SystemExit, match=r"^expected a CUDA device, found none\.$"):
        gpu_check(bundle)
    assert not capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.parametrize("bundle", bundle_names())
def test_its_gates_hold(bundle, capsys):
    gpu_check(bundle, batches=(1,))
    assert "peak memory" in capsys.readouterr().out
