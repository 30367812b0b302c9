"""A segmenter that learns from tumours which are made while it is trained."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import ROOT, assert_done, run_bundle

SEGMENTER, SYNTHESIS = ROOT / "bundles" / "difftumor_segmentation", ROOT / "bundles" / "difftumor"


def config(bundle, name):
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


def test_the_synthesizer_is_the_file_of_the_bundle_that_learned_it():
    ours, theirs = (SEGMENTER / "models" / "synthesizer" / "model.pt", SYNTHESIS / "models" / "model.pt")
    assert ours.read_bytes() == theirs.read_bytes()


def test_tumours_are_made_as_by_the_bundle_that_learned_them():
    ours, theirs = config(SEGMENTER, "train"), config(SYNTHESIS, "inference")
    renamed = json.loads(json.dumps(ours["synthesizer_def"]).replace("synthesizer_def", "network_def"))
    assert renamed == theirs["network_def"]
    for name in set(ours) & set(theirs) & set(config(SYNTHESIS, "metadata")["options"]) - {"max_epochs"}:
        value = theirs[name]
        shown = isinstance(value, str) and value.startswith("@displayable_configs::")
        assert ours[name] == (theirs["displayable_configs"][name] if shown else value), name
    for name, other in {"synthesis_patch_size": "patch_size", **{n: n for n in ("hu_window", "voxel_mm")}}.items():
        assert ours[name] == theirs[other]
    for name in ("schedule", "late_schedule"):
        assert ours[name] == theirs[name]


@pytest.mark.slow
@pytest.mark.parametrize("synthesis", ["handcrafted", "constant", "none"])
def test_other_tumours_need_no_weights(synthesis, tmp_path):
    options = {"output_dir": tmp_path, "model_path": tmp_path / "model.pt", "synthesizer_path": tmp_path / "nothing.pt"}
    assert_done(run_bundle("difftumor_segmentation", "train", synthesis=synthesis, **options))
    process = run_bundle("difftumor_segmentation", "train", synthesis="diffusion", **options)
    assert process.returncode != 0
    assert "no weights at" in process.stdout + process.stderr


@pytest.mark.slow
def test_a_training_from_a_pool_equals_one_on_the_fly(tmp_path):
    found = []
    for name, pool in (("fly", None), ("made", tmp_path / "pool"), ("kept", tmp_path / "pool")):
        options = {"output_dir": tmp_path / name, "model_path": tmp_path / f"{name}.pt", "max_epochs": 3}
        options |= {"synthetic_share": 1.0} | ({} if pool is None else {"pool_dir": pool})
        assert_done(run_bundle("difftumor_segmentation", "train", **options))
        found.append(torch.load(tmp_path / f"{name}.pt", weights_only=True))
    assert len(list((tmp_path / "pool").iterdir())) == 3
    for weights in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_healthy_scans_may_lie_in_a_folder_of_their_own_with_masks_of_the_organ(tmp_path):
    data, demo = tmp_path / "healthy", SEGMENTER / "demo"
    data.mkdir()
    for number in range(2):
        scan = nib.load(demo / "training_a_000.nii.gz")
        nib.save(scan, data / f"case{number}.nii.gz")
        organ = (np.asarray(nib.load(demo / "training_a_000_label.nii.gz").dataobj) > 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(organ, scan.affine), data / f"case{number}_organ.nii.gz")
    options = {"output_dir": tmp_path, "model_path": tmp_path / "model.pt", "volumes_per_batch": 4}
    process = run_bundle("difftumor_segmentation", "train", healthy_dir=data, **options)
    assert_done(process)
    assert "with a mask of the organ" in process.stdout + process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"early_only": True}, {"backbone": "dynunet"}])
def test_other_settings_train(options, tmp_path):
    paths = {"output_dir": tmp_path, "model_path": tmp_path / "model.pt"}
    assert_done(run_bundle("difftumor_segmentation", "train", train_parts="all", **paths, **options))


@pytest.mark.slow
def test_labels_of_tumours_alone_do_beside_masks_of_the_organ(tmp_path):
    options = {"label_values": '{"1": "tumour"}', "dataset_dir": SYNTHESIS / "demo"}
    paths = {"output_dir": tmp_path, "model_path": tmp_path / "model.pt"}
    assert_done(run_bundle("difftumor_segmentation", "train", **options, **paths))
    assert_done(run_bundle("difftumor_segmentation", "inference", "evaluate", num_bootstraps=10, **options, **paths))
    assert (tmp_path / "per_patient.csv").read_text().count("testing_a") == 4
