import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import table
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch import nn

from common.handlers.sites import SiteScores

RNG = np.random.default_rng(0)


def case(name, site, label, certain=0.9):
    """A case whose pixels are its answer: probabilities, distances and a vector."""
    said = 1 if label else 0
    probability = [1 - certain, certain] if said else [certain, 1 - certain]
    latent = RNG.normal(size=3) * 0.1 + (1 if label else -1)
    known = {} if label is None else {"image_label": label}
    values = torch.tensor([*probability, 0.5, 1.0, *latent], dtype=torch.float32)
    return {"image": values[None], "case": name, "patient": name, "site": site, **known}


CASES = [
    *(case(f"t{i}", "T", i % 2) for i in range(6)),
    *(case(f"a{i}", "A", 1) for i in range(6)),
    *(case(f"b{i}", "B", 0) for i in range(5)),
    case("new", "", None),
]


def run(cases, scores):
    parts = ("probability", "distance", "latent")

    def told(output):
        said = output["pred"].reshape(-1, 7)[0].split([2, 2, 3])
        return {**output, **dict(zip(parts, said, strict=True))}

    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset(cases), batch_size=1),
        nn.Identity(),
        inferer=lambda inputs, network: inputs,
        postprocessing=told,
        val_handlers=[scores],
    )
    evaluator.run()
    return evaluator.state.metrics


def test_target_source_and_sites_have_metrics_and_vectors_have_theirs(tmp_path):
    scores = SiteScores(str(tmp_path), target_sites=["T"])
    metrics = run(CASES, scores)
    assert metrics["target: accuracy"] == metrics["source: AUROC"] == metrics["site T: kappa"] == 1
    assert metrics["calibration error"] == pytest.approx(0.1, abs=1e-6)
    assert metrics["accuracy by the nearest centre"] == pytest.approx(8 / 17)
    assert "site A: AUROC" not in metrics
    assert metrics["silhouette of the classes"] > 0.7
    assert metrics["sites told by chance"] == pytest.approx(1 / 3)
    assert {path.name for path in tmp_path.iterdir()} == {"per_patient.csv", "summary.csv"}
    rows = {row["case"]: row for row in table(tmp_path / "per_patient.csv")}
    assert (rows["new"]["image_label"], rows["new"]["prediction"], rows["a0"]["image_label"]) == ("", "0", "1")


def test_the_page_shows_where_vectors_lie_and_what_sites_look_like():
    scores = SiteScores(target_sites=["T"])
    run(CASES, scores)
    titles = [section.title for section in scores.sections() if section.rows or section.pictures]
    assert titles == [
        *("Classification", "Where the vectors lie", "Intensities of the sites", "Classification by case")
    ]


def test_without_a_class_there_are_pictures_alone():
    scores = SiteScores()
    assert run([case(name, "A", None) for name in "abcde"], scores) == {}
    assert [section.title for section in scores.sections() if section.pictures] == [
        "Where the vectors lie",
        "Intensities of the sites",
    ]


def test_where_the_network_looked_is_drawn_of_each_case_and_shown_of_each_site_and_class(tmp_path):
    seen = []
    scores = SiteScores(str(tmp_path), evidence=lambda image: seen.append(image) or image[0], num_looked=4)
    square = [{**one, "image": one["image"].expand(1, 7, 7).contiguous()} for one in CASES]
    run(square, scores)
    assert len(seen) == len(CASES) == len(list(tmp_path.rglob("*_evidence.png")))
    (looked,) = (section for section in scores.sections() if section.title == "Where the network looked")
    assert {picture.caption[0] for picture in looked.pictures} == {"a", "b", "n", "t"}


SHARED = """
    import sys
    sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
    import torch.distributed as dist
    from test_sites import CASES, run
    from common.handlers.sites import SiteScores
    dist.init_process_group("gloo")
    run(CASES[dist.get_rank() :: 2], SiteScores({folder!r}, num_resamples=10, target_sites=["T"]))
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
    run(CASES, SiteScores(str(tmp_path / "alone"), num_resamples=10, target_sites=["T"]))
    for name in ("per_patient.csv", "summary.csv"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_site_may_be_a_number():
    scores = SiteScores(target_sites=["3"])
    assert run([case("a", 3, 0), case("b", 4, 1)], scores)["target: accuracy"] == 1
