"""A study of segmentations: its numbers are those of the metrics."""

import csv

import numpy as np
import pytest
import torch
from studied import HEAD, small_bundle

from common.metrics.segmentation import examine_sizes, summarise_sizes
from common.studies.cases import Case
from common.studies.plan import Method
from common.studies.runner import examined
from common.studies.segmentation import Samples, compare, samples_of, segmentation_study
from common.studies.tables import on_page

PLAN = {
    "region": HEAD,
    "rows": [
        {"name": "ours", "inferer": "ensemble"},
        {"name": "many", "inferer": "ensemble", "members": 7},
        {"name": "once", "inferer": "ensemble", "members": 1, "settings": {"ensemble::segmenter::dropout": False}},
    ],
}


@pytest.fixture
def cases():
    truth = np.zeros((8, 8, 2), dtype=bool)
    truth[2:6, 2:6] = True
    organ, image = np.ones_like(truth), np.zeros(truth.shape, np.float32)
    return [Case(name, torch.zeros(1), image, organ, truth, [3.0, 3.0, 12.0]) for name in "abc"]


def members(case, count=10):
    """Return draws that miss one row of the tumour each, another each time."""
    drawn = np.repeat(case.truth[None].astype(np.float32), count, axis=0)
    for number in range(count):
        drawn[number, 2 + number % 4] = 0
    return drawn


def test_an_ensemble_is_ahead_of_its_single_runs(cases):
    taken = {"calls": 100.0, "gradients": 0.0, "seconds": 2.0}  # of ten members
    draws = [
        Samples("ours", members, lambda case: taken, 5, is_first=True),
        Samples("once", members, lambda case: taken, 1, is_first=False),
    ]
    found = {}
    for _, records in examined([(each.name, each.records) for each in draws], cases):
        for (row, _), of_cases in records.items():
            found.setdefault(row, []).append(of_cases)
    assert [len(found[row]) for row in ("ensemble", "one run", "once")] == [1, 5, 1]
    table = {row["method"]: row for row in compare(found, 50)}
    single = 2 * 12 / (12 + 16)
    assert table["ensemble"]["dice"] == 1
    assert table["one run"]["dice"] == pytest.approx(single)
    assert table["one run"]["dice_difference"] == table["one run"]["dice_difference_low"] == pytest.approx(1 - single)
    for name in ("one run", "once"):
        assert np.isnan(table[name]["errors_auroc"])
    assert table["ensemble"]["retention_area"] == 0
    assert [table[name]["calls_a_slice"] for name in ("ensemble", "one run", "once")] == [50, 10, 10]
    assert table["one run"]["brier"] == pytest.approx(4 / 64)
    assert table["ensemble"]["brier"] == pytest.approx((4 * 0.4**2 + 12 * 0.2**2) / 64)
    assert table["ensemble"]["dice_difference"] == 0
    assert "dice low" not in on_page(table["ensemble"])


def test_dice_grows_with_the_members(cases):
    rows = summarise_sizes([examine_sizes(members(c), c.organ, c.truth, c.spacing_mm) for c in cases])
    assert [row["members"] for row in rows] == [1, 2, 3, 5, 7, 10]
    assert rows[0]["dice"] < rows[3]["dice"] == 1
    assert rows[0]["dice_std"] == pytest.approx(0)


def test_a_method_draws_as_many_as_it_says_or_as_the_study_does(tmp_path):
    compared = [Method("ours", inferer="ensemble"), Method("many", inferer="ensemble", members=7)]
    ours, many = samples_of(small_bundle(tmp_path), compared, tmp_path, 6)
    assert (ours.is_first, many.is_first) == (True, False)
    assert (ours.compared, many.compared) == (5, 7)
    inferers = [each.members.parser.get_parsed_content("ensemble") for each in (ours, many)]
    assert [inferer.num_samples for inferer in inferers] == [6, 7]
    assert all(inferer.with_members for inferer in inferers)


def test_the_tables_have_the_ensemble_its_single_runs_and_the_others(tmp_path):
    segmentation_study(
        "small", small_bundle(tmp_path), PLAN, tmp_path, num_patients=3, num_members=6, num_bootstraps=20
    )
    for scanner in "ab":
        with open(tmp_path / "6_members" / f"study_{scanner}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["method"] for row in rows] == ["ensemble", "one run", "many", "once"]
        assert float(rows[3]["dice"]) == 1
        assert float(rows[0]["dice_difference"]) == 0
        with open(tmp_path / "6_members" / f"members_{scanner}.csv", newline="") as file:
            assert [row["members"] for row in csv.DictReader(file)] == ["1", "2", "3", "5"]
    page = (tmp_path / "6_members" / "report.html").read_text()
    assert "3 patients" in page
    assert "many 7" in page


def test_an_ensemble_of_fewer_than_are_compared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="num_members must be >= 5, got 4"):
        segmentation_study("small", small_bundle(tmp_path), PLAN, tmp_path, num_members=4)
