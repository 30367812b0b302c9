"""Runs that tests make short are still runs of the method, and say that the threshold is not theirs."""

import html

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
    for module in network.get_submodule(network.main).modules():  # of an autoencoder halves may be called by themselves
        module.register_forward_hook(lambda *call: calls.append(call))
    image = parser.get_parsed_content("dataset")[0]["image"][None].to(parser.get_parsed_content("device"))
    with torch.no_grad():
        found = inferer(image, network)[0, 0]
    assert calls
    assert found.any()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_short_run_says_in_log_and_report_that_its_threshold_was_fitted_with_other_settings(bundle, tmp_path, caplog):
    """One of weights without a threshold has nothing to say."""
    options = {**recipe_of(bundle).fast["inference"], "output_dir": str(tmp_path)}
    first = bundle_parser(bundle, "inference").get_parsed_content("cases")[:1]
    parser = bundle_parser(bundle, "inference", cases=first, **options)
    parser.get_parsed_content("run")
    network, inferer = (parser.get_parsed_content(name) for name in ("network", "inferer"))
    warning, page = inferer.threshold_warning(network), (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("the threshold was fitted with" in warning) == bool(network.thresholds[0][1])
    assert [record.message for record in caplog.records if "threshold" in record.message] == [warning] * bool(warning)
    assert html.escape(warning) in page.partition("<h2>")[0]
