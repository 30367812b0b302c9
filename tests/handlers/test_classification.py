import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from evaluated import classified, run_classifier, table

from common.handlers.classification import Classification

CASES = [
    classified("c", [0.25, 0.75], 1, site="Basel"),
    classified("a", [0.625, 0.375], 0, site="Basel"),
    classified("d", [0.75, 0.25], 1, site="ADNI"),
    classified("b", [0.5, 0.5], 0, site="ADNI"),
]


def test_the_evaluator_has_the_metrics_of_all_cases_and_of_each_site():
    scores = Classification()
    metrics = run_classifier(CASES, scores).state.metrics
    assert {name: metrics[name] for name in ("accuracy", "kappa", "AUROC")} == {
        "accuracy": 0.75,
        "kappa": 0.5,
        "AUROC": 0.5,
    }
    assert (metrics["site Basel: AUROC"], metrics["site ADNI: AUROC"]) == (1, 0)


def test_there_are_tables_of_patients_and_of_the_run_and_none_of_slices(tmp_path):
    scores = Classification(str(tmp_path), num_resamples=10)
    run_classifier(CASES, scores)
    assert {path.name for path in tmp_path.iterdir()} == {"per_patient.csv", "summary.csv"}
    rows = table(tmp_path / "per_patient.csv")
    assert [row["case"] for row in rows] == ["a", "b", "c", "d"]
    assert list(rows[0].values()) == ["a", "a", "Basel", "0", "0.625", "0.375", "0"]
    assert [row["metric"] for row in table(tmp_path / "summary.csv")] == [row["metric"] for row in scores.rows]


def test_cases_whose_class_is_unknown_are_passed_over():
    scores = Classification()
    run_classifier([classified("a", [0.5, 0.5]), classified("b", [0.5, 0.25, 0.25], 2)], scores)
    assert [record.case for record in scores.records] == ["b"]


def test_sites_may_be_numbers():
    scores = Classification()
    run_classifier([classified("a", [0.75, 0.25], 0, site=3)], scores)
    assert [row["metric"] for row in scores.rows if row["value"] == 1] == ["accuracy", "site 3: accuracy"]


def test_the_page_has_the_summary_and_a_row_a_case():
    scores = Classification()
    run_classifier(CASES, scores)
    assert [section.title for section in scores.sections()] == ["Classification", "Classification by case"]


SHARED = """
    import sys
    sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
    import torch.distributed as dist
    from evaluated import run_classifier
    from test_classification import CASES
    from common.handlers.classification import Classification
    dist.init_process_group("gloo")
    run_classifier(CASES[dist.get_rank() :: 2], Classification({folder!r}, num_resamples=10))
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_write_what_one_does(tmp_path):
    here = Path(__file__).parent
    places = {"root": str(here.parents[1]), "tests": str(here.parent), "here": str(here)}
    script = tmp_path / "shared.py"
    script.write_text(textwrap.dedent(SHARED.format(folder=str(tmp_path / "shared"), **places)))
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29573", str(script)]
    subprocess.run(start, check=True, timeout=300)
    run_classifier(CASES, Classification(str(tmp_path / "alone"), num_resamples=10))
    for name in ("per_patient.csv", "summary.csv"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
