"""Inference of each bundle from the command line: good files, bad files, several processes, the packed archive."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import BUNDLES, ROOT, assert_done, assert_outputs, assert_same, cases_done, demo_cases, run_bundle

from ci.pack_bundle import unpacked
from common.files import write_text

bundles = pytest.mark.parametrize("bundle", BUNDLES)


@bundles
def test_good_cases_are_done_and_bad_ones_are_named(bundle, tmp_path):
    """One file alone, oblique and flipped, among others that cannot be used."""
    data, out = tmp_path / "déjà vu", tmp_path / "out put"
    data.mkdir()
    item = demo_cases(bundle)[0]
    image = np.stack([nib.load(path).get_fdata() for path in item["image"]], axis=-1)
    if image.ndim == 3:  # of 2-D images a volume whose slices are alike
        image = np.repeat(image[:, :, None], 4, axis=2)
    turn = np.array([[0.0, -2.9, 0.3, 9], [3.0, 0.1, 0, -7], [0.1, 0.2, -4.1, 5], [0, 0, 0, 1]])
    half = image.shape[2] // 2
    voxels = np.squeeze(image[:, :, half - 1 : half + 2], axis=3 if image.shape[3] == 1 else ()).astype(np.float32)

    def save(name, content, affine=turn):
        nib.save(nib.Nifti1Image(content, affine), data / f"{name}.nii.gz")

    save("good case", voxels)
    save("flat", np.full_like(voxels, 40))
    save("nan", np.where(voxels == voxels.max(), np.nan, voxels))
    save("frames", np.stack([voxels, voxels], axis=-1) if voxels.ndim == 3 else voxels[..., :2])
    bad = {"nan", "flat", "frames", "truncated", "text"}
    content = item["image"][0].read_bytes()
    (data / "truncated.nii.gz").write_bytes(content[: len(content) // 2])
    (data / "text.nii").write_text("no image")
    if "organ" in item:
        organ = nib.load(item["organ"]).get_fdata()[:, :, half - 1 : half + 2].astype(np.uint8)
        save("good case_liver", organ)
        save("no_ct", voxels * 0.001)
        save("shifted", voxels)
        save("shifted_liver", organ, turn + np.array([[0, 0, 0, 10.0], *np.zeros((3, 4))]))
        bad |= {"no_ct", "shifted"}
    for case in bad:
        write_text(out / case / f"{case}_mask.nii.gz", "of an earlier run")

    process = run_bundle(bundle, "inference", dataset_dir=data, output_dir=out)

    text = process.stdout + process.stderr
    assert process.returncode == 1, text[-3000:]
    assert cases_done(out) == {"good case"}
    assert_outputs(bundle, out, "good case", data / "good case.nii.gz")
    page = (out / "report.html").read_text()
    for case in bad:
        assert f"{case}." in text, case
        assert case in page, case
    assert not list(out.rglob("*tmp*"))


@pytest.mark.slow
@bundles
def test_cases_are_shared_by_processes(bundle, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert_done(run_bundle(bundle, "inference", "evaluate", output_dir=alone, num_bootstraps=20))
    assert_done(
        run_bundle(
            bundle, "inference", "evaluate", "multi_gpu_inference", processes=2, output_dir=shared, num_bootstraps=20
        )
    )
    tables = [path.name for path in alone.glob("*.csv")]
    assert {"per_patient.csv", "summary.csv"} <= set(tables)
    for name in tables:
        assert (alone / name).read_text() == (shared / name).read_text()
    for item in demo_cases(bundle):
        assert_outputs(bundle, shared, item["case"], item["image"][0])


@pytest.mark.slow
@bundles
def test_of_two_processes_one_may_have_no_case(bundle, tmp_path):
    """One broken file of two: the other is done, and both processes end."""
    data, out, item = tmp_path / "data", tmp_path / "out", demo_cases(bundle)[0]
    data.mkdir()
    for path in item["image"]:
        shutil.copy(path, data / path.name)
        (data / f"broken_{path.name}").write_bytes(path.read_bytes()[:100])
    process = run_bundle(bundle, "inference", "multi_gpu_inference", processes=2, dataset_dir=data, output_dir=out)
    assert process.returncode == 1
    assert_outputs(bundle, out, item["case"], item["image"][0])
    page = (out / "report.html").read_text()
    assert f"broken_{item['case']}" in page
    assert f"broken_{item['case']}" not in cases_done(out)


@pytest.mark.slow
@bundles
def test_the_archive_runs_without_the_repository(bundle, tmp_path):
    assert_done(run_bundle(bundle, "inference", output_dir=tmp_path / "ours"))
    with unpacked(bundle) as root:
        assert_done(run_bundle(bundle, "inference", root=root, cwd="/", output_dir=tmp_path / "theirs"))
    assert_same(bundle, tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.slow
@bundles
def test_it_runs_from_any_folder(bundle, tmp_path):
    folder = ROOT / "bundles" / bundle
    for index, cwd in enumerate((ROOT, folder, "/")):
        assert_done(run_bundle(bundle, "inference", cwd=cwd, output_dir=tmp_path / str(index)))
        assert_same(bundle, tmp_path / "0", tmp_path / str(index))
