"""What CDM alone does: it learns from tags, and finds kidneys."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import ROOT, assert_done, run_bundle
from downloads import write_chaos

from ci import bundle_parser
from common.data.prepare import prepare

DEMO = ROOT / "bundles" / "cdm" / "demo"


def tagged(folder):
    """Write the demonstration with a tag for each slice in the place of its masks."""
    content = json.loads((DEMO / "dataset.json").read_text())
    for split in ("training", "validation"):
        for item in content[split]:
            label = nib.load(DEMO / item.pop("label")).get_fdata()
            tags = folder / f"{item['case']}.csv"
            with open(tags, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["slice", "label"])
                writer.writerows([z, int(label[:, :, z].any())] for z in range(label.shape[2]))
            item["image"] = [str(DEMO / name) for name in item["image"]]
            item["slice_labels"] = str(tags)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def batches(stage, **settings):
    parser = bundle_parser("cdm", "train", **settings)
    parser.get_parsed_content("initialize")
    content = parser.get_parsed_content(stage)
    return list(getattr(content, "trainer", content).data_loader)


@pytest.mark.parametrize("stage", ["classifier", "train::trainer"])
def test_masks_never_reach_the_trainer(tmp_path, stage):
    """With masks and with tags alone a stage sees the same, and nothing of a mask."""
    with_masks, with_tags = (batches(stage, dataset_dir=str(folder)) for folder in (DEMO, tagged(tmp_path)))
    for one, other in zip(with_masks, with_tags, strict=True):
        tensors = {key for key, value in one.items() if isinstance(value, torch.Tensor)}
        assert tensors == {"image", "organ", "slice_class"}
        for key in tensors:
            assert torch.equal(one[key], other[key])
        for classes in one["slice_class"][:, 0]:  # a whole slice is of one class
            assert torch.equal(classes, classes.amax(0, keepdim=True) * classes.amax(1, keepdim=True))


@pytest.mark.slow
def test_tags_are_enough_to_train(tmp_path):
    model = tmp_path / "model.pt"
    process = run_bundle("cdm", "train", dataset_dir=tagged(tmp_path), output_dir=tmp_path / "out", model_path=model)
    assert_done(process)
    assert 0 < torch.load(model, weights_only=True)["threshold"] < 1  # the mean of Otsu's of tagged slices


@pytest.mark.slow
def test_kidneys_of_chaos_are_prepared_trained_and_found(tmp_path):
    rng = np.random.default_rng(0)
    for case in range(4):
        labels = np.zeros((48, 40, 6), np.uint8)
        labels[10:18, 14:24, 2:5], labels[30:38, 14:24, 2:5] = 126, 189
        voxels = (rng.integers(100, 300, labels.shape) + 400 * (labels > 0)).astype(np.uint16)
        write_chaos(tmp_path / "src", case, labels, voxels, np.diag([-7.0, -7, 8, 1]))
    data = tmp_path / "data"
    prepare("chaos", str(tmp_path / "src"), str(data), fractions=(0.5, 0.25, 0.25), fold=1, min_organ_pixels=1)
    options = {"dataset_dir": data, "output_dir": tmp_path / "out", "model_path": tmp_path / "model.pt"}
    assert_done(run_bundle("cdm", "train", "chaos", **options))
    evaluation = {"num_bootstraps": 20, "lesion_slices_only": True, "min_area": 0.05, "num_repeats": 2}
    process = run_bundle("cdm", "inference", "chaos", "evaluate", **options, **evaluation)
    assert_done(process)
    assert "3 slices of 1 cases are compared with labels" in process.stdout + process.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "repeats.csv").open()))
    assert all(row["repeats"] == "2" for row in rows)
    case = json.loads((data / "dataset.json").read_text())["testing"][0]["case"]
    mask = nib.load(tmp_path / "out" / case / f"{case}_mask.nii.gz")
    assert mask.shape == (48, 40, 6)
