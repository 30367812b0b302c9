"""Tumours put into scans from the command line, and data sets of them."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import ROOT, assert_done, run_bundle
from scipy.ndimage import label

DEMO = ROOT / "bundles" / "difftumor" / "demo"
CASE = "testing_a_000"
pytestmark = pytest.mark.slow


def one_case(folder):
    """Copy a healthy case of the demonstration."""
    folder.mkdir()
    for ending in ("", "_organ"):
        shutil.copy(DEMO / f"{CASE}{ending}.nii.gz", folder)
    return folder


def volume(path):
    return np.asarray(nib.load(path).dataobj)


def made(out, case=CASE):
    return {name: volume(out / case / f"{case}_{name}.nii.gz") for name in ("synthetic", "mask", "organ")}


def run(out, data, *configs, **options):
    process = run_bundle("difftumor", "inference", *configs, output_dir=out, dataset_dir=data, **options)
    assert_done(process)
    return made(out)


@pytest.mark.parametrize(("size", "low_mm", "high_mm"), [("tiny", 3, 11), ("small", 7, 21), ("medium", 16, 42)])
def test_sizes_numbers_and_seeds_are_those_asked_for(size, low_mm, high_mm, tmp_path):
    data, image = one_case(tmp_path / "data"), volume(DEMO / f"{CASE}.nii.gz")
    first, same, other = (
        run(tmp_path / str(i), data, size=size, num_tumours=1, seed=seed) for i, seed in enumerate((1, 1, 2))
    )
    assert label(first["mask"], np.ones((3, 3, 3)))[1] == 1
    assert low_mm < np.cbrt(6 * first["mask"].sum() * 8 / np.pi) < high_mm
    assert (first["organ"][first["mask"] > 0] == 1).all()
    far = np.abs(first["synthetic"] - image) == 0
    assert 0.5 < far.mean() < 1
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["mask"], other["mask"])
    assert nib.load(tmp_path / "0" / CASE / f"{CASE}_synthetic.nii.gz").header["descrip"] == b"SYNTHETIC tumours"


def test_handcrafted_tumours_need_no_weights(tmp_path):
    data = one_case(tmp_path / "data")
    found = run(tmp_path / "out", data, "handcrafted", num_tumours=1, model_path=tmp_path / "nothing.pt")
    change = volume(DEMO / f"{CASE}.nii.gz") - found["synthetic"]
    assert change[found["mask"] > 0].mean() > 5


@pytest.mark.parametrize("form", ["msd", "nnunet"])
def test_a_data_set_is_written_from_healthy_scans(form, tmp_path):
    out = tmp_path / "out"
    data = one_case(tmp_path / "data")
    run(out, data, run_id="write_dataset", dataset_form=form, num_tumours=2)
    content = json.loads((out / "dataset.json").read_text())
    labels = volume(next((out / "labelsTr").glob("*.nii.gz")))
    assert set(np.unique(labels)) == ({0, 1} if form == "msd" else {0, 1, 2})
    assert content["labels"]


def test_an_organ_of_a_mask_of_several_is_taken_for_all_cases(tmp_path):
    data = one_case(tmp_path / "data")
    organ = nib.load(data / f"{CASE}_organ.nii.gz")
    several = np.asarray(organ.dataobj) * 5
    several[:40] = np.where(several[:40] > 0, 2, 0)
    (data / f"{CASE}_organ.nii.gz").unlink()
    nib.save(nib.Nifti1Image(several.astype(np.uint8), organ.affine), tmp_path / "organs.nii.gz")
    found = run(tmp_path / "out", data, organ_path=tmp_path / "organs.nii.gz", organ_labels=5, num_tumours=1)
    assert np.array_equal(found["organ"] > 0, several == 5)


def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path):
    data, healthy = one_case(tmp_path / "data"), one_case(tmp_path / "healthy")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": {"cfg": 1}}, tmp_path / "lightning.pt")
    shutil.copy(DEMO / f"{CASE}_organ.nii.gz", data / f"{CASE}_label.nii.gz")
    for options, reason in (
        ({}, "expected a scan without tumours"),
        ({"allow_tumours": True, "num_tumours": 0}, "num_tumours"),
        ({"allow_tumours": True, "model_path": tmp_path / "lightning.pt"}, "Lightning"),
        ({"allow_tumours": True}, "there is no organ to put a tumour into"),  # the label says that all of it is tumour
        ({"dataset_dir": healthy, "size": "large", "num_tumours": 60}, "there is no place for tumour"),
    ):
        options = {"output_dir": tmp_path / "out", "dataset_dir": data, **options}
        process = run_bundle("difftumor", "inference", **options)
        assert process.returncode != 0
        assert reason in process.stdout + process.stderr


def test_evaluation_compares_made_tumours_with_real_ones(tmp_path):
    assert_done(run_bundle("difftumor", "inference", "evaluate", output_dir=tmp_path, num_bootstraps=20))
    with open(tmp_path / "summary.csv", newline="", encoding="utf-8") as file:
        found = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
    assert found["share inside the organ"] == 1
    assert "real tumours: mean contrast_hu" in found
    assert (tmp_path / "per_tumour.csv").stat().st_size > 0
