import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ci import bundle_names
from ci.dicom_series import write_series
from common.data.listing import RESULT_NAMES, found_items
from common.sequences import SEQUENCES

CT = np.linspace(-1000, 400, 336).reshape(8, 7, 6).astype(np.int16)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, -3, 0, 70], [0, 0, 5, -300], [0, 0, 0, 1]])
MSD = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(source, modality="ct", sequences=None, split="testing", **options):
    return found_items(Path(source), split, modality, sequences, **options)


def cases(items):
    return [item["case"] for item in items]


def write_json(folder, items, encoding="utf-8", split="testing", **content):
    (folder / "dataset.json").write_text(json.dumps({split: items, **content}), encoding=encoding)
    return folder


def test_a_mark_of_byte_order_before_dataset_json_is_read(tmp_path):
    assert cases(found(write_json(tmp_path, [{"image": "a.nii"}], encoding="utf-8-sig"))) == ["a"]


def test_the_test_split_of_the_decathlon_has_plain_strings(tmp_path):
    (item,) = found(write_json(tmp_path, ["./imagesTs/liver_131.nii.gz"], split="test"), split="test")
    assert item == {"image": str(tmp_path / "imagesTs/liver_131.nii.gz"), "case": "liver_131", "patient": "liver_131"}


def test_nifti_files_series_and_folders_are_all_found(tmp_path):
    touch(tmp_path, "a.nii.gz", "p1/b.nii")
    write_series(tmp_path / "p2" / "CT", CT, AFFINE)
    assert cases(found(tmp_path)) == ["a", "b", "p2_CT"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    touch(tmp_path, "siteA/001.nii.gz", "siteB/001.nii.gz", "siteB/002.nii.gz")
    assert cases(found(tmp_path)) == ["siteA_001", "siteB_001", "002"]


def test_what_is_left_out_is_named(tmp_path, caplog):
    touch(tmp_path, "a.nii", "b.mha", "c.nrrd", "d.img", "e.dcm", "notes.txt", ".hidden.mha")
    (tmp_path / "broken.nii").symlink_to(tmp_path / "none.nii")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.nii").symlink_to(tmp_path / "self.nii")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    assert cases(found(tmp_path)) == ["a"]
    named = {Path(line.split("left out: ")[1].split(": ")[0]).name for line in caplog.text.splitlines()}
    assert named == {"b.mha", "c.nrrd", "d.img", "e.dcm", "broken.nii", "loop", "self.nii", "pipe.nii.gz"}


def test_a_folder_may_end_as_an_image_does(tmp_path):
    assert cases(found(touch(tmp_path, "x.nii.gz/x.nii"))) == ["x"]


def test_a_folder_may_be_a_link(tmp_path):
    touch(tmp_path, "there/a.nii")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "there")
    assert cases(found(tmp_path / "here")) == ["a"]


def test_dicom_of_other_modalities_is_named(tmp_path, caplog):
    touch(tmp_path, "a_flair.nii")
    write_series(tmp_path / "p2", CT, AFFINE)
    assert cases(found(tmp_path, "mr", ["flair"])) == ["a"]
    assert "p2: DICOM, which is read of CT alone" in caplog.text


@pytest.mark.parametrize("modality", ["ct", "mr", "xray"])
def test_results_of_a_run_are_no_cases_of_the_next(tmp_path, modality):
    ending = ".png" if modality == "xray" else ".nii.gz"
    touch(tmp_path, f"a{ending}", *(f"eval/a/a_{result}.nii.gz" for result in RESULT_NAMES), "eval/a/a_overlay.png")
    assert cases(found(tmp_path, modality)) == ["a"]


@pytest.mark.parametrize("bundle", bundle_names())
def test_all_that_a_bundle_writes_for_a_case_is_known(bundle):
    config = Path(__file__).parents[2] / "bundles" / bundle / "configs/inference.json"
    transforms = json.loads(config.read_text())["postprocessing"]["transforms"]
    saved = [key for t in transforms if "SaveMapsd" in t["_target_"] for key in t["keys"]]
    assert set(saved) <= set(RESULT_NAMES)


def test_a_patient_may_be_a_folder_of_files_that_are_called_as_sequences(tmp_path):
    touch(tmp_path, "p1/T1.nii.gz", "p1/FLAIR.nii.gz", "p2/T1.nii.gz", "p2/FLAIR.nii.gz")
    items = found(tmp_path, "mr", ["t1", "flair"])
    assert cases(items) == ["p1", "p2"]
    assert items[0]["image"] == [str(tmp_path / "p1/T1.nii.gz"), str(tmp_path / "p1/FLAIR.nii.gz")]


def test_files_of_several_folders_are_never_one_patient(tmp_path):
    touch(tmp_path, "siteA/001_t1.nii", "siteB/001_flair.nii")
    items = found(tmp_path, "mr", ["t1", "flair"])
    assert cases(items) == ["siteA_001", "siteB_001"]
    assert [len(item["image"]) for item in items] == [1, 1]


def test_bids_is_read(tmp_path):
    names = ("acq-3d_T1w", "ce-gad_T1w", "T2w", "FLAIR")
    touch(tmp_path, *(f"sub-01/ses-1/anat/sub-01_ses-1_{name}.nii.gz" for name in names))
    (item,) = found(tmp_path, "mr", SEQUENCES)
    assert item["case"] == "sub-01_ses-1"
    assert [Path(image).name for image in item["image"]] == [f"sub-01_ses-1_{name}.nii.gz" for name in names]


def test_sequences_in_one_file_are_picked_by_modality(tmp_path):
    write_json(tmp_path, [{"image": "a.nii"}], modality=MSD)
    assert [found(tmp_path, "mr", order)[0]["channels"] for order in (SEQUENCES, ["flair"])] == [[1, 2, 3, 0], [0]]


def test_sequences_in_files_are_picked_by_modality_by_name_or_by_order(tmp_path):
    by_modality = [{"image": ["0.nii", "1.nii", "2.nii", "3.nii"], "case": "a"}]
    by_name = [{"image": [f"a_{name}.nii" for name in ("flair", "t2", "t1ce", "t1")], "case": "a"}]
    for items, content, picked in (
        (by_modality, {"modality": MSD}, ["1.nii", "0.nii"]),
        (by_name, {}, ["a_t1.nii", "a_flair.nii"]),
        (by_modality, {}, ["0.nii", "3.nii"]),
    ):
        (item,) = found(write_json(tmp_path, items, **content), "mr", ["t1", "flair"])
        assert [Path(image).name for image in item["image"]] == picked


def test_names_that_contradict_the_modality_are_refused(tmp_path):
    items = [{"image": ["a_t1.nii", "a_flair.nii", "a_t1ce.nii", "a_t2.nii"], "case": "a"}]
    (item,) = found(write_json(tmp_path, items, modality=MSD), "mr", SEQUENCES)
    assert "expected flair, t1, t1ce, t2 in this order, got a_t1.nii" in item["refused"]


@pytest.mark.parametrize(
    ("names", "sequences"),
    [
        (["a_t1.nii", "b_t1.nii", "a_t2.nii", "a_flair.nii"], SEQUENCES),
        (["a_flair.nii", "1.nii", "2.nii", "3.nii"], SEQUENCES),
        (["a_t1.nii"], ["flair"]),
        ("a_t1.nii", ["flair"]),
    ],
)
def test_a_name_that_is_out_of_its_place_is_refused(tmp_path, names, sequences):
    (item,) = found(write_json(tmp_path, [{"image": names, "case": "a"}]), "mr", sequences)
    assert re.search(r"nii: expected .*flair in this order, got a_|nii: expected flair in this order", item["refused"])


def test_one_file_of_another_sequence_is_refused(tmp_path):
    (item,) = found(touch(tmp_path, "a_t1.nii") / "a_t1.nii", "mr", ["flair"])
    assert "a_t1.nii: expected flair in this order, got a_t1.nii" in item["refused"]


def test_a_word_in_all_names_is_that_of_a_study(tmp_path):
    (item,) = found(write_json(tmp_path, [{"image": [f"T1-study_{i}.nii" for i in range(4)]}]), "mr", SEQUENCES)
    assert "refused" not in item


@pytest.mark.parametrize(
    ("names", "content", "doubted"),
    [
        ("0123", {}, True),
        ("0123", {"modality": MSD}, False),
        (["t1", "1", "t2", "3"], {}, True),
        (SEQUENCES, {}, False),
    ],
)
def test_files_that_nothing_names_are_taken_in_order_with_a_doubt(tmp_path, names, content, doubted):
    items = [{"image": [f"a_{name}.nii" for name in names]}]
    (item,) = found(write_json(tmp_path, items, **content), "mr", SEQUENCES)
    assert ("doubt" in item) == doubted


def test_a_modality_without_a_sequence_that_a_run_takes_is_refused(tmp_path):
    write_json(tmp_path, [{"image": "a.nii"}], modality={"0": "T1w", "1": "T2w"})
    with pytest.raises(ValueError, match=r"dataset.json: expected a modality that names t1, flair, got .*T2w"):
        found(tmp_path, "mr", ["t1", "flair"])


@pytest.mark.parametrize("modality", [{"0": "MRI"}, "MR", {"0": "CT"}])
def test_a_modality_that_names_no_sequence_says_nothing(tmp_path, modality):
    write_json(tmp_path, [{"image": ["a.nii", "b.nii", "c.nii", "d.nii"], "case": "a"}], modality=modality)
    assert len(found(tmp_path, "mr", SEQUENCES)[0]["image"]) == 4


LESION = {"1": "lesion"}
PARTS = {"1": "non-enhancing", "2": "edema", "3": "enhancing"}
MSD_BRAIN = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}


@pytest.mark.parametrize(
    ("labels", "options", "refused"),
    [
        ({"0": "background", "1": "liver", "2": "cancer"}, {"label_values": LESION}, True),
        ({"0": "background", "1": "cancer"}, {"label_values": LESION}, False),
        ({"0": "background", "1": "liver", "2": "cancer"}, {}, False),
        (MSD_BRAIN, {"label_values": PARTS}, False),
        (MSD_BRAIN, {"label_values": PARTS, "regions": [[1, 2, 3], [3]]}, True),
        (
            {"1": "non-enhancing core", "2": "oedema", "3": "enhancing"},
            {"label_values": PARTS, "regions": [[3]]},
            False,
        ),
    ],
)
def test_labels_that_mean_something_else_are_refused(tmp_path, labels, options, refused):
    write_json(tmp_path, [{"image": "a.nii"}], labels=labels)
    if refused:
        with pytest.raises(ValueError, match=r"dataset.json: expected labels of 1 .*, got 1 .*prepare"):
            found(tmp_path, **options)
    else:
        assert cases(found(tmp_path, **options)) == ["a"]


def test_a_film_in_any_folder_is_found(tmp_path):
    (tmp_path / "p1").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "p1" / "view1.png")
    nib.save(nib.Nifti1Image(CT, AFFINE), tmp_path / "a.nii")
    assert cases(found(tmp_path, "xray")) == ["view1"]
