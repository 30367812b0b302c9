import csv
import subprocess
import sys

import numpy as np
import pytest

from common.files import write_csv
from common.report.readings import score_readings, write_readings
from common.report.tumours import PIXELS, TumourView


def views(count, value):
    image = np.full((3, PIXELS, PIXELS), value, dtype=np.float32)
    return [TumourView(f"case{i}", image + i, np.zeros(image.shape, dtype=bool)) for i in range(count)]


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def written(folder, real=5, made=3, pairs=4, seed=0):
    return write_readings(folder, {"real": views(real, 0), "synthetic": views(made, 100)}, "liver", pairs, seed)


def test_as_many_real_as_synthetic_ones_are_asked_for(tmp_path):
    assert written(tmp_path) == 6
    kinds = [row["kind"] for row in rows(tmp_path / "readings_key.csv")]
    assert sorted(kinds) == ["real"] * 3 + ["synthetic"] * 3


def test_the_page_does_not_say_which_is_which(tmp_path):
    written(tmp_path)
    page = (tmp_path / "readings.html").read_text()
    assert page.count("<fieldset") == 6
    assert "case" not in page
    for kind in ("real", "synthetic"):
        assert page.count(f'value="{kind}"') == 6
    assert "http" not in page.replace("data:image", "")


def test_seeds_give_other_orders(tmp_path):
    for seed in (0, 1):
        written(tmp_path / str(seed), real=3, made=3, seed=seed)
    first, second = (rows(tmp_path / str(seed) / "readings_key.csv") for seed in (0, 1))
    assert first != second


def test_without_tumours_of_both_kinds_nothing_is_written(tmp_path):
    assert written(tmp_path, made=0) == 0
    assert not list(tmp_path.iterdir())


KEY = [
    {"item": 1, "kind": "real", "organ": "liver", "case": "a"},
    {"item": 2, "kind": "real", "organ": "liver", "case": "b"},
    {"item": 3, "kind": "synthetic", "organ": "liver", "case": "c"},
    {"item": 4, "kind": "synthetic", "organ": "kidney", "case": "d"},
]


def answered(folder, kinds, organs):
    write_csv(folder / "readings_key.csv", KEY)
    said = [{"item": i, "kind": k, "organ": o} for i, (k, o) in enumerate(zip(kinds, organs, strict=True), 1)]
    write_csv(folder / "answers.csv", said)
    return folder / "answers.csv", folder / "readings_key.csv"


def test_answers_are_scored_with_real_tumours_as_the_positives(tmp_path):
    paths = answered(tmp_path, ["real", "synthetic", "real", "synthetic"], ["liver", "kidney", "liver", "kidney"])
    found = {row["organ"]: row for row in score_readings(*paths)}
    assert found["all"] == {
        "organ": "all", "items": 4, "sensitivity": 50, "specificity": 50, "accuracy": 50, "right organ": 75
    }  # fmt: skip
    assert (found["liver"]["specificity"], found["kidney"]["specificity"]) == (0, 100)
    assert np.isnan(found["kidney"]["sensitivity"])


def test_what_is_not_answered_is_wrong(tmp_path):
    paths = answered(tmp_path, ["", "", "", ""], ["", "", "", ""])
    assert score_readings(*paths)[-1]["accuracy"] == 0


def test_answers_to_another_page_are_refused(tmp_path):
    answers, key = answered(tmp_path, ["real"] * 4, ["liver"] * 4)
    write_csv(key, KEY[:2])
    with pytest.raises(ValueError, match=r"expected answers to items of .*, got \['3', '4'\]"):
        score_readings(answers, key)


def test_the_command_prints_a_line_an_organ(tmp_path):
    answers, key = answered(tmp_path, ["real", "real", "synthetic", "real"], ["liver"] * 4)
    command = [sys.executable, "-m", "common.report.readings", str(answers), str(key)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "organ all, items 4, sensitivity 100, specificity 50, accuracy 75, right organ 75" in done.stdout
