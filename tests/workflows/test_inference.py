"""Inference of each bundle from the command line: good files, bad files, several processes, the packed archive."""

import json
import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import ROOT, assert_done, run_bundle

from ci.pack_bundle import pack

OUTPUTS = {"gdpi": ("anomaly", "healthy", "mask", "organ")}
bundles = pytest.mark.parametrize("bundle", OUTPUTS)


def demo_cases(bundle):
    folder = ROOT / "bundles" / bundle / "demo"
    return [
        {key: folder / value if key in ("image", "organ", "label") else value for key, value in item.items()}
        for item in json.loads((folder / "dataset.json").read_text())["testing"]
    ]


def assert_outputs(bundle, folder, case, image):
    source = nib.load(image)
    for name in OUTPUTS[bundle]:
        result = nib.load(folder / case / f"{case}_{name}.nii.gz")
        assert result.shape == source.shape
        np.testing.assert_allclose(result.affine, source.affine, atol=1e-3)
        assert np.isfinite(result.get_fdata()).all()
    assert (folder / case / f"{case}_overlay.png").stat().st_size > 5000


@bundles
def test_good_cases_are_done_and_bad_ones_are_named(bundle, tmp_path):
    """One file alone, oblique and flipped, among others that cannot be used."""
    data, out = tmp_path / "déjà vu", tmp_path / "out put"
    data.mkdir()
    item = demo_cases(bundle)[0]
    image, organ = nib.load(item["image"]), nib.load(item["organ"])
    turn = np.array([[0.0, -2.9, 0.3, 9], [3.0, 0.1, 0, -7], [0.1, 0.2, -4.1, 5], [0, 0, 0, 1]])
    middle = np.s_[:, :, 6:9]
    for name, volume in (("good case", image), ("good case_liver", organ)):
        nib.save(nib.Nifti1Image(volume.get_fdata()[middle], turn), data / f"{name}.nii.gz")
    voxels = image.get_fdata()[middle].astype(np.float32)
    for name, content in {
        "nan": np.where(np.arange(3) == 1, np.nan, voxels),
        "flat": np.full_like(voxels, 40),
        "frames": np.stack([voxels, voxels], axis=-1),
        "no_ct": voxels * 0.001,
    }.items():
        nib.save(nib.Nifti1Image(content, turn), data / f"{name}.nii.gz")
    (data / "truncated.nii.gz").write_bytes(Path(item["image"]).read_bytes()[:20_000])
    (data / "text.nii").write_text("no image")
    nib.save(nib.Nifti1Image(voxels, turn), data / "shifted.nii.gz")
    moved = turn + np.array([[0, 0, 0, 10.0], *np.zeros((3, 4))])
    nib.save(nib.Nifti1Image(organ.get_fdata()[middle].astype(np.uint8), moved), data / "shifted_liver.nii.gz")

    process = run_bundle(bundle, "inference", dataset_dir=data, output_dir=out)

    bad = {"nan", "flat", "frames", "no_ct", "truncated", "text", "shifted"}
    text = process.stdout + process.stderr
    assert process.returncode == 1, text[-3000:]
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"good case"}
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
    for name in ("per_slice.csv", "per_patient.csv", "summary.csv"):
        assert (alone / name).read_text() == (shared / name).read_text()
    for item in demo_cases(bundle):
        assert_outputs(bundle, shared, item["image"].name.removesuffix(".nii.gz"), item["image"])


@pytest.mark.slow
@bundles
def test_the_archive_runs_without_the_repository(bundle, tmp_path):
    with zipfile.ZipFile(pack(bundle, str(tmp_path / "dist"))) as archive:
        archive.extractall(tmp_path / "elsewhere")
    assert_done(run_bundle(bundle, "inference", output_dir=tmp_path / "ours"))
    root = tmp_path / "elsewhere" / bundle
    assert_done(run_bundle(bundle, "inference", root=root, cwd="/", output_dir=tmp_path / "theirs"))
    for path in sorted((tmp_path / "ours").rglob("*.nii.gz")):
        other = tmp_path / "theirs" / path.relative_to(tmp_path / "ours")
        np.testing.assert_array_equal(nib.load(path).get_fdata(), nib.load(other).get_fdata())


@pytest.mark.slow
@bundles
def test_it_runs_from_any_folder(bundle, tmp_path):
    folder = ROOT / "bundles" / bundle
    results = []
    for index, cwd in enumerate((ROOT, folder, "/")):
        out = tmp_path / str(index)
        assert_done(run_bundle(bundle, "inference", cwd=cwd, output_dir=out))
        results.append([nib.load(path).get_fdata() for path in sorted(out.rglob("*_mask.nii.gz"))])
        shutil.rmtree(out)
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_gdpi_draws_slices(tmp_path):
    assert_done(run_bundle("gdpi", "inference", run_id="sample", output_dir=tmp_path, sample_steps=4, num_generated=2))
    assert (tmp_path / "samples.png").stat().st_size > 5000
