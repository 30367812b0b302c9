"""Runs that tests make short are still runs of the method."""

import pytest
import torch
from bundle_runs import BUNDLES

from ci import bundle_parser
from ci.recipes import recipe_of
from common.checkpoints import load_parts


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_short_inference_calls_the_main_network_and_finds_something(bundle):
    parser = bundle_parser(bundle, "inference", **recipe_of(bundle).fast["inference"])
    network, inferer = (parser.get_parsed_content(name) for name in ("network", "inferer"))
    load_parts(network.eval(), parser.get_parsed_content("model_path"))
    calls = []
    network.get_submodule(network.main).register_forward_hook(lambda *call: calls.append(call))
    image = parser.get_parsed_content("dataset")[0]["image"][None].to(parser.get_parsed_content("device"))
    with torch.no_grad():
        found = inferer(image, network)[0, 0]
    assert calls
    assert found.any()
