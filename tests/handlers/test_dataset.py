import json

import nibabel as nib
import numpy as np
import pytest
import torch
from evaluated import AFFINE, item, run
from monai.data import MetaTensor, load_decathlon_datalist

from common.data.cases import list_cases
from common.handlers.dataset import SyntheticDataset, TrainingPairs

CHANNELS = ("synthetic", "mask", "organ")
SIZE = (24, 24, 6)


def made(case):
    base = item(case)
    organ, mask = torch.zeros(SIZE), torch.zeros(SIZE)
    organ[2:22, 2:22, 1:5] = 1
    mask[5:9, 5:9, 2:4] = 1
    noise = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    image = 60 * organ - 100 * (1 - organ) - 30 * mask + 9 * noise
    channels = torch.stack([image, image, mask, organ])
    return {**base, "image": MetaTensor(channels, affine=torch.from_numpy(AFFINE)), "label": mask[None]}


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def test_a_data_set_of_the_decathlons_form_is_read_by_monai_and_by_the_bundles(tmp_path):
    run([made("b"), made("a")], SyntheticDataset(str(tmp_path)), channels=CHANNELS)
    listed = load_decathlon_datalist(str(tmp_path / "dataset.json"), data_list_key="training")
    assert [entry["case"] for entry in listed] == ["a", "b"]
    cases = list_cases(str(tmp_path), "training", label_values={"1": "lesion"}, progress=False)
    assert [case["image_label"] for case in cases] == [1, 1]
    image = nib.load(cases[0]["image"])
    assert image.get_data_dtype() == np.int16
    assert image.header["descrip"].item().decode() == "SYNTHETIC tumours"
    np.testing.assert_allclose(image.affine, AFFINE)
    assert set(np.unique(voxels(cases[0]["label"]))) == {0, 1}
    assert (voxels(cases[0]["organ"])[voxels(cases[0]["label"]) > 0] == 1).all()


def test_cases_for_testing_have_folders_of_their_own(tmp_path):
    run([made("a")], SyntheticDataset(str(tmp_path), split="testing"), channels=CHANNELS)
    assert (tmp_path / "imagesTs" / "a.nii.gz").is_file()
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert [len(content[split]) for split in ("training", "validation", "testing")] == [0, 0, 1]


def test_nnunets_raw_form_has_organ_and_tumour_in_one_label(tmp_path):
    run([made("a")], SyntheticDataset(str(tmp_path), form="nnunet"), channels=CHANNELS)
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert content["numTraining"] == len(list((tmp_path / "imagesTr").glob("*_0000.nii.gz"))) == 1
    assert set(np.unique(voxels(tmp_path / "labelsTr" / "a.nii.gz"))) == {0, 1, 2}


def test_other_forms_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one of msd, nnunet"):
        SyntheticDataset(str(tmp_path), form="bids")


def test_synthetic_images_and_their_masks_are_listed_for_training(tmp_path):
    run([item("b"), item("a")], TrainingPairs(str(tmp_path), "synthetic", "wanted"))
    found = json.loads((tmp_path / "dataset.json").read_text())
    assert [entry["case"] for entry in found["training"]] == ["a", "b"]
    assert found["training"][0] == {
        "case": "a",
        "patient": item("a")["patient"],
        "image": "a/a_synthetic.nii.gz",
        "label": "a/a_wanted.nii.gz",
        "image_label": 1,
    }
    assert found["validation"] == found["testing"] == []
