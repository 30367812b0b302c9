import json
import runpy
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.cases import list_cases

SMALL = ["--shape", "40,32,6", "--spacing", "9,9,12"]


def run(dst, *options):
    """Write a data set as from the command line and return what ``dataset.json`` says."""
    arguments = sys.argv
    sys.argv = ["phantoms", "abdomen_ct", "--dst", str(dst), *SMALL, *options]
    try:
        runpy.run_module("common.phantoms", run_name="__main__")
    finally:
        sys.argv = arguments
    return json.loads((dst / "dataset.json").read_text())


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A data set with patients in all splits: its folder and what its ``dataset.json`` says."""
    folder = tmp_path_factory.mktemp("phantoms") / "new" / "folder"
    counts = ["--training", "4", "--validation", "1", "--testing", "2", "--healthy_share", "0.5", "--twins"]
    return folder, run(folder, *counts)


def test_each_split_has_as_many_patients_as_asked(written):
    assert {split: len(written[1][split]) for split in ("training", "validation", "testing")} == {
        "training": 4,
        "validation": 1,
        "testing": 2,
    }


@pytest.mark.parametrize("split", ["training", "validation", "testing"])
def test_what_is_written_passes_the_checks_of_a_run(written, split):
    items = list_cases(str(written[0]), split, progress=False)
    assert [item["case"] for item in items] == [f"{split}_a_{i:03d}" for i in range(len(items))]


def test_no_patient_is_in_two_splits(written):
    livers = [voxels(path).tobytes() for path in written[0].glob("*_000_liver.nii.gz")]
    assert len(livers) == len(set(livers)) == 3


def test_images_have_the_shape_and_spacing_asked_for(written):
    image = nib.load(written[0] / "testing_a_000.nii.gz")
    assert image.shape == (40, 32, 6)
    assert image.header.get_zooms() == (9, 9, 12)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_masks_are_uint8_on_the_grid_of_their_image(written):
    image = nib.load(written[0] / "testing_a_000.nii.gz")
    for suffix in ("_liver", "_label"):
        mask = nib.load(written[0] / f"testing_a_000{suffix}.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        assert set(np.unique(mask.dataobj)) == {0, 1}
        np.testing.assert_array_equal(mask.affine, image.affine)


def test_a_share_of_the_training_patients_is_healthy_and_all_others_have_lesions(written):
    assert [item["image_label"] for item in written[1]["training"]].count(0) == 2
    assert all(item["image_label"] == 1 for split in ("validation", "testing") for item in written[1][split])


def test_image_label_says_whether_there_are_lesions(written):
    for split in ("training", "validation", "testing"):
        for item in written[1][split]:
            assert voxels(written[0] / item["label"]).any() == item["image_label"]


def test_a_twin_differs_from_its_patient_by_lesions_alone(written):
    for split in ("training", "testing"):
        for item in written[1][split]:
            image = voxels(written[0] / item["image"])
            twin = voxels(written[0] / item["image"].replace(".nii.gz", "_twin.nii.gz"))
            assert (image <= twin).all()
            assert (image < twin).any() == item["image_label"]


def test_by_default_all_training_patients_are_healthy_and_there_are_no_twins(tmp_path):
    assert [item["image_label"] for item in run(tmp_path, "--training", "3")["training"]] == [0, 0, 0]
    assert not list(tmp_path.glob("*_twin*"))


@pytest.mark.parametrize(("share", "healthy"), [("0", 0), ("0.3", 3), ("0.75", 7), ("1", 10)])
def test_any_share_can_be_healthy(tmp_path, share, healthy):
    items = run(tmp_path, "--training", "10", "--healthy_share", share, "--shape", "20,16,3", "--spacing", "18,18,24")
    empty = [not voxels(tmp_path / item["label"]).any() for item in items["training"]]
    assert abs(sum(empty) - healthy) <= 1


def test_a_patient_is_the_same_in_a_larger_data_set(written, tmp_path):
    run(tmp_path, "--testing", "1")
    name = "testing_a_000.nii.gz"
    assert (tmp_path / name).read_bytes() == (written[0] / name).read_bytes()


def test_a_patient_is_the_same_on_another_scanner(written, tmp_path):
    run(tmp_path, "--testing", "1", "--scanner", "b")
    np.testing.assert_array_equal(
        voxels(tmp_path / "testing_b_000_label.nii.gz"), voxels(written[0] / "testing_a_000_label.nii.gz")
    )
    assert (voxels(tmp_path / "testing_b_000.nii.gz") != voxels(written[0] / "testing_a_000.nii.gz")).any()


def test_an_unknown_scanner_is_refused(tmp_path):
    with pytest.raises(ValueError, match="scanner must be one of"):
        run(tmp_path, "--testing", "1", "--scanner", "c")


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(tmp_path):
    for workers in ("1", "2"):
        options = ["--dst", str(tmp_path / workers), "--testing", "3", "--num_workers", workers, *SMALL]
        command = [sys.executable, "-m", "common.phantoms", "abdomen_ct", *options]
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
