"""The weights that come with a bundle find what they found when the figures in its folder were measured."""

import pytest
import torch
from bundle_runs import BUNDLES, ROOT
from evaluated import table

from ci import bundle_parser
from ci.recipes import recipe_of
from ci.verify_bundle import settings


def figures():
    """Yield each setting that has weights with each of its figures; of a whole demonstration they take long."""
    for bundle in BUNDLES:
        folder = ROOT / "bundles" / bundle
        for overlay in settings(folder):
            for figure in recipe_of(bundle, overlay).demo_scores:
                cases, changed = figure.get("cases"), figure.get("settings", {}).values()
                name = "-".join(filter(None, [bundle, overlay, *(cases or ["demo"]), *map(str, changed)]))
                marks = [] if cases else [pytest.mark.slow]
                yield pytest.param(bundle, overlay, cases, figure, id=name, marks=marks)


def evaluate(bundle, overlay, cases, folder, **options):
    """Return the summary of an evaluation of some testing cases, or of all, by metric."""
    layers = ["inference", *filter(None, [overlay]), "evaluate"]
    testing = bundle_parser(bundle, *layers).get_parsed_content("cases")
    shown = [item for item in testing if cases is None or item["case"] in cases]
    parser = bundle_parser(bundle, *layers, cases=shown, output_dir=str(folder), num_bootstraps=0, **options)
    parser.get_parsed_content("run")
    return {row["metric"]: float(row["value"]) for row in table(folder / "summary.csv")}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("bundle", "overlay", "cases", "figure"), figures())
def test_the_shipped_weights_find_what_they_found(bundle, overlay, cases, figure, device, tmp_path):
    found = evaluate(bundle, overlay, cases, tmp_path, device=torch.device(device), **figure.get("settings", {}))
    scores = {name: found[name] for name in figure["scores"]}
    assert scores == {name: pytest.approx(score, abs=figure["margin"]) for name, score in figure["scores"].items()}
