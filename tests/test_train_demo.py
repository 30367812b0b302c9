"""What ``ci.train_demo`` makes of a folder of real data: a split of its own, and nothing in the folder."""

import itertools
import json

import pytest

from ci.recipes import bundle_names, recipe_of
from ci.train_demo import split_anew, train_demo
from common.data.cases import list_cases

PARTS = ("training", "validation", "testing")
SPLIT = {"fractions": [0.6, 0.2, 0.2], "seed": 0}


@pytest.fixture
def real(tmp_path):
    """A folder of five patients, one of them with two scans, whom somebody has put into two parts."""
    folder = tmp_path / "real data"
    folder.mkdir()
    cases = [("a", "a1"), ("a", "a2"), ("b", "b"), ("c", "c"), ("d", "d"), ("e", "e")]
    items = [{"image": f"{case}.nii.gz", "label": f"{case}_label.nii.gz", "patient": p, "site": p} for p, case in cases]
    for item in items:
        for key in ("image", "label"):
            (folder / item[key]).touch()
    content = {"name": "made up", "training": items[:4], "validation": [], "testing": items[4:]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_real_cases_are_split_anew_by_patient_and_their_files_are_found(real, tmp_path):
    split_anew(real, tmp_path / "work", **SPLIT)
    parts = [list_cases(str(tmp_path / "work"), part, check=False) for part in PARTS]
    patients = [{item["patient"] for item in items} for items in parts]
    assert [len(names) for names in patients] == [3, 1, 1]
    assert set.union(*patients) == set("abcde")
    for item in itertools.chain(*parts):
        assert item["site"] == item["patient"]
        assert {item["image"], item["label"]} == {str(real / f"{item['case']}{end}.nii.gz") for end in ("", "_label")}


def test_the_folder_of_real_data_stays_as_it_is(real, tmp_path):
    before = {path: path.read_bytes() for path in real.iterdir()}
    split_anew(real, tmp_path / "work", **SPLIT)
    with pytest.raises(ValueError, match="expected a folder outside"):
        split_anew(real, real / "work", **SPLIT)
    assert {path: path.read_bytes() for path in real.iterdir()} == before


@pytest.mark.parametrize("bundle", [name for name in bundle_names() if not recipe_of(name).real])
def test_a_recipe_that_does_not_say_how_refuses_real_data(bundle, real, tmp_path):
    with pytest.raises(ValueError, match="has no 'real'"):
        train_demo(bundle, work_dir=str(tmp_path), real_dir=str(real))
