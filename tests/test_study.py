"""Each row of a study is something that can be run, and its numbers are those of the metrics."""

import numpy as np
import pytest
import torch
from monai.utils import ensure_tuple

from ci import bundle_parser
from ci.study.answers import Case
from ci.study.detection import STUDIES
from ci.study.segmentation import compare, rows_of, segmenters
from ci.study.tables import on_page
from common.metrics.segmentation import examine_sizes, summarise_sizes

METHODS = segmenters("ensemble_segmentation", 10)


@pytest.mark.parametrize("bundle", STUDIES)
def test_every_row_and_every_setting_can_be_made(bundle):
    plan = STUDIES[bundle]
    radius = list(ensure_tuple(bundle_parser(bundle, "inference").get_parsed_content("median_radius")))
    for method in [*plan.methods(radius), *plan.tuning()]:
        parser = bundle_parser(bundle, method.config, **plan.answer_settings, **method.settings)
        assert callable(parser.get_parsed_content(method.inferer)), method


@pytest.mark.parametrize("name", METHODS)
def test_every_segmenter_can_be_made(name):
    source = METHODS[name].source
    inferer = bundle_parser(source.bundle, source.config, **source.settings).get_parsed_content(source.inferer)
    assert inferer.with_members
    assert (inferer.num_samples > 1) == (METHODS[name].members > 1)


@pytest.fixture
def cases():
    truth = np.zeros((8, 8, 2), dtype=bool)
    truth[2:6, 2:6] = True
    organ, image = np.ones_like(truth), np.zeros(truth.shape, np.float32)
    return [Case(name, torch.zeros(1), image, organ, truth, [3.0, 3.0, 12.0]) for name in "abc"]


def members(cases, count=10):
    """Return draws that miss one row of the tumour each, another each time."""
    made = []
    for case in cases:
        drawn = np.repeat(case.truth[None].astype(np.float32), count, axis=0)
        for number in range(count):
            drawn[number, 2 + number % 4] = 0
        made.append(drawn)
    return made


def test_an_ensemble_is_ahead_of_its_single_runs(cases):
    drawn = {name: members(cases, method.members) for name, method in METHODS.items()}
    found = rows_of(METHODS, drawn, cases)
    assert len(found["one run"]) == 5
    table = {row["method"]: row for row in compare(found)}
    single = 2 * 12 / (12 + 16)
    assert table["ensemble"]["dice"] == 1
    assert table["one run"]["dice"] == pytest.approx(single)
    assert table["one run"]["dice_difference"] == table["one run"]["dice_difference_low"] == pytest.approx(1 - single)
    for name in ("one run", "U-Net (SegNet's place)"):
        assert np.isnan(table[name]["errors_auroc"])
    assert table["ensemble"]["retention_area"] == 0
    assert table["ensemble"]["dice_difference"] == 0
    assert "dice low" not in on_page(table["ensemble"])


def test_dice_grows_with_the_members(cases):
    pairs = zip(members(cases), cases, strict=True)
    rows = summarise_sizes([examine_sizes(m, c.organ, c.truth, c.spacing_mm) for m, c in pairs])
    assert [row["members"] for row in rows] == [1, 2, 3, 5, 7, 10]
    assert rows[0]["dice"] < rows[3]["dice"] == 1
    assert rows[0]["dice_std"] == pytest.approx(0)
