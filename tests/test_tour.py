"""The notebook that shows newcomers around."""

import os
import re

import nbformat
import nibabel as nib
import numpy as np
import pytest
from bundle_runs import ROOT, demo_cases
from nbclient import NotebookClient

from common.files import read_csv

PATH = ROOT / "docs" / "tour.ipynb"
CASE = "testing_a_000"


def cells(kind):
    return [cell for cell in nbformat.read(PATH, as_version=4).cells if cell.cell_type == kind]


def volume(path):
    return nib.load(path).get_fdata()


def test_it_is_stored_without_outputs():
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells("code"))


def test_files_that_its_text_names_exist():
    named = [name for cell in cells("markdown") for name in re.findall(r"[\w/]+\.(?:json|md|txt)\b", cell.source)]
    paths = [name if "/" in name or (ROOT / name).is_file() else f"bundles/gdpi/configs/{name}" for name in named]
    assert paths
    assert not [path for path in paths if not (ROOT / path).is_file()]


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """Run the notebook, and return it with the folder of its results; a cell that raises is an error."""
    folder, notebook = tmp_path_factory.mktemp("tour"), nbformat.read(PATH, as_version=4)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    client = NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(PATH.parent)}})
    client.execute(env=environment)
    (results,) = folder.glob("tour_*")
    return notebook, results


@pytest.mark.slow
def test_its_pictures_are_drawn(tour):
    outputs = [(cell.id, output) for cell in tour[0].cells for output in cell.get("outputs", [])]
    drawn = [cell for cell, output in outputs if "image/png" in output.get("data", {})]
    assert drawn == ["show", "change_run", "slices", "tumour_show", "find_show"]


@pytest.mark.slow
def test_each_case_has_the_files_that_it_lists(tour):
    (text,) = (cell.source for cell in tour[0].cells if cell.id == "files")
    endings = re.findall(r"^- `(\w+)(?:\.png)?`", text, re.MULTILINE)
    assert len(endings) == 5
    for case in (item["case"] for item in demo_cases("gdpi")):
        names = [path.name.split(".")[0] for path in (tour[1] / "maps" / case).iterdir()]
        assert sorted(names) == sorted(f"{case}{ending}" for ending in endings)


@pytest.mark.slow
def test_the_map_is_higher_in_lesions_than_in_the_rest_of_the_liver(tour):
    demo = ROOT / "bundles" / "gdpi" / "demo"
    lesions, liver = (volume(demo / f"{CASE}_{name}.nii.gz") > 0 for name in ("label", "liver"))
    anomaly = volume(tour[1] / "maps" / CASE / f"{CASE}_anomaly.nii.gz")
    assert anomaly[lesions].mean() > anomaly[liver & ~lesions].mean() + 10


@pytest.mark.slow
def test_without_the_filter_more_noise_is_left(tour):
    lesions = volume(ROOT / "bundles" / "gdpi" / "demo" / f"{CASE}_label.nii.gz") > 0
    filtered, unfiltered = (
        volume(tour[1] / name / CASE / f"{CASE}_anomaly.nii.gz")[~lesions] for name in ("maps", "unfiltered")
    )
    assert unfiltered.std() > 1.5 * filtered.std()


@pytest.mark.slow
def test_the_numbers_of_the_summary_lie_in_their_intervals(tour):
    rows = read_csv(tour[1] / "evaluated" / "summary.csv")
    numbers = np.array([[float(row[name]) for name in ("low", "value", "high")] for row in rows])
    found = numbers[np.isfinite(numbers).all(1)]
    assert len(found) >= 10
    assert (np.diff(found) >= 0).all()


@pytest.mark.slow
def test_two_tumours_are_put_into_each_ct_and_looked_for(tour):
    before = volume(ROOT / "bundles" / "difftumor" / "demo" / f"{CASE}.nii.gz")
    after, tumours = (volume(tour[1] / "tumours" / name / f"{CASE}.nii.gz") for name in ("imagesTs", "labelsTs"))
    assert (before - after)[tumours > 0].mean() > 10
    rows = read_csv(tour[1] / "found" / "per_patient.csv")
    assert [int(row["lesions"]) for row in rows] == [2, 2]
