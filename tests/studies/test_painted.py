import json

import numpy as np
import pytest
from PIL import Image

from common.data.cases import list_cases
from common.studies.painted import SCANNERS, write_painted

RNG = np.random.default_rng(0)


@pytest.fixture
def films(tmp_path):
    """A data set of smooth films, of each part four of each class."""
    content = {}
    for part in ("training", "validation", "testing"):
        content[part] = []
        for i in range(8):
            case = f"{part}{i}"
            rows, columns = np.mgrid[:48, :60]
            film = 60 + 2 * rows + columns + 10 * (i % 2)
            Image.fromarray(film.astype(np.uint8)).save(tmp_path / f"{case}.png")
            content[part].append({"image": f"{case}.png", "case": case, "patient": case, "image_label": i % 2})
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


CELLS = {"T": [1, 2], "A": [0, 2], "B": [3, 0]}


@pytest.mark.parametrize("scanners", SCANNERS)
def test_each_film_is_made_by_one_scanner_and_those_for_testing_by_all(films, scanners):
    out = films / "out"
    write_painted(str(films), str(out), CELLS, {"T": [1, 1]}, scanners)
    content = json.loads((out / "dataset.json").read_text())
    found = {
        site: [sum(i["site"] == site and i["image_label"] == k for i in content["training"]) for k in (0, 1)]
        for site in "TAB"
    }
    assert found == CELLS
    assert len({i["patient"] for i in content["training"]}) == 8
    assert [i["site"] for i in content["testing"]] == ["T", "A", "B"] * 8
    cases = list_cases(str(out), "testing", modality="xray", progress=False)
    assert len(cases) == 24
    pixels = [np.load(case["image"]) for case in cases[:3]]
    assert all(film.shape == (96, 96) and film.min() >= 0 and film.max() <= 1 for film in pixels)
    assert not np.allclose(pixels[0], pixels[1], atol=0.02)
    assert not np.allclose(pixels[0], pixels[2], atol=0.02)


def test_the_same_command_writes_the_same(films):
    for name in ("one", "two"):
        write_painted(str(films), str(films / name), CELLS, {"T": [1, 1]})
    for path in (films / "one").iterdir():
        assert path.read_bytes() == (films / "two" / path.name).read_bytes()
    write_painted(str(films), str(films / "three"), CELLS, {"T": [1, 1]}, seed=1)
    assert (films / "one" / "dataset.json").read_text() != (films / "three" / "dataset.json").read_text()


def test_more_films_than_there_are_and_other_scanners_are_refused(films):
    with pytest.raises(ValueError, match="expected 5 more films of class 1 for training, got 4"):
        write_painted(str(films), str(films / "out"), {"T": [0, 5]}, {})
    with pytest.raises(ValueError, match="scanners must be one of tone, marks, got 'x'"):
        write_painted(str(films), str(films / "out"), CELLS, {}, "x")
