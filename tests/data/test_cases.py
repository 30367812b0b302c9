import functools
import json
import logging
import operator
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ci.dicom_series import write_series
from common.data import cases
from common.data.cases import list_cases, shard, tell_healthy, with_both_classes, with_healthy_slices, with_lesions
from common.files import BadFileError, Failures

CT = np.linspace(-1000, 400, 336).reshape(8, 7, 6).astype(np.int16)
MASK = (CT > 0).astype(np.uint8)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, -3, 0, 70], [0, 0, 5, -300], [0, 0, 0, 1]])
SHIFTED = AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 4 * np.array([[1], [0], [0], [0]])


def save(voxels, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def write_dataset(folder, **splits):
    """Write ``dataset.json`` with cases ``a`` and ``b`` for testing, or with other splits, and their files."""
    for name in ("a", "b"):
        save(CT, folder / "images" / f"{name}.nii.gz")
        save(MASK, folder / "masks" / f"{name}.nii.gz")
    testing = [item("a"), item("b", patient=7)]
    (folder / "dataset.json").write_text(json.dumps({"name": "CT", "training": [], "testing": testing, **splits}))
    return folder


def item(name, **more):
    return {"image": f"images/{name}.nii.gz", "organ": f"masks/{name}.nii.gz", "label": f"masks/{name}.nii.gz", **more}


def write_folder(folder):
    """Write four cases: with masks, with an organ of the other name, without masks, and without compression."""
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii"):
        save(CT, folder / name)
    for name in ("a_liver.nii.gz", "a_label.nii.gz", "b_organ.nii", "d_liver.nii.gz"):
        save(MASK, folder / name)
    return folder


def listed(source, **options):
    return list_cases(str(source), progress=False, **options)


def names(items):
    return [item["case"] for item in items]


def keys(items):
    return [sorted(set(item) - {"case", "patient", "image", "organ_from"}) for item in items]


def listed_with_failures(source, **options):
    """Return the names of the cases that are left, and the reasons for the others."""
    failures = Failures()
    return names(listed(source, failures=failures, **options)), failures.reasons


def test_a_data_set_is_listed_by_its_dataset_json(tmp_path):
    assert names(listed(write_dataset(tmp_path))) == ["a", "b"]


def test_the_paths_of_a_data_set_start_at_its_folder(tmp_path):
    assert listed(write_dataset(tmp_path))[0]["image"] == str(tmp_path / "images" / "a.nii.gz")


def test_each_split_has_its_own_cases(tmp_path):
    write_dataset(tmp_path, training=[item("b")])
    assert names(listed(tmp_path, split="training")) == ["b"]


def test_a_patient_is_the_case_unless_the_data_set_says_whose_it_is(tmp_path):
    assert [item["patient"] for item in listed(write_dataset(tmp_path))] == ["a", "7"]


def test_a_case_may_have_a_name_of_its_own(tmp_path):
    write_dataset(tmp_path, testing=[item("a", case="first"), item("a", case="second")])
    assert names(listed(tmp_path)) == ["first", "second"]


@pytest.mark.parametrize("key", ["case", "patient", "site"])
def test_a_name_stays_a_name_if_there_is_a_folder_of_that_name(tmp_path, key):
    write_dataset(tmp_path, testing=[item("a", **{key: "images"})])
    assert listed(tmp_path)[0][key] == "images"


def test_other_entries_of_an_item_are_kept(tmp_path):
    write_dataset(tmp_path, testing=[item("a", site="A", image_label=1)])
    assert (listed(tmp_path)[0]["site"], listed(tmp_path)[0]["image_label"]) == ("A", 1)


@pytest.mark.parametrize("options", [{}, {"modality": "mr", "sequences": None}], ids=["CT", "MR"])
def test_a_case_may_have_a_class_and_a_site_and_no_masks(tmp_path, options):
    write_dataset(tmp_path, testing=[{"image": "images/a.nii.gz", "image_label": 0, "site": "A"}])
    assert listed(tmp_path, **options) == [
        {"image": str(tmp_path / "images/a.nii.gz"), "image_label": 0, "site": "A", "case": "a", "patient": "a"}
    ]


@pytest.mark.parametrize("name", ["a.nii.gz", "d.nii"])
def test_one_file_is_one_case_with_the_masks_beside_it(tmp_path, name):
    (only,) = listed(write_folder(tmp_path) / name)
    assert (only["case"], only["organ"]) == (name[0], str(tmp_path / f"{name[0]}_liver.nii.gz"))


def test_in_a_folder_masks_are_no_cases(tmp_path):
    assert names(listed(write_folder(tmp_path))) == ["a", "b", "c", "d"]


def test_in_a_folder_masks_belong_to_the_case_they_are_called_after(tmp_path):
    assert keys(listed(write_folder(tmp_path))) == [["label", "organ"], ["organ"], [], ["organ"]]


@pytest.mark.parametrize("split", ["training", "validation", "testing"])
def test_a_folder_without_dataset_json_has_the_same_cases_in_any_split(tmp_path, split):
    assert len(listed(write_folder(tmp_path), split=split)) == 4


def test_files_that_macos_adds_are_passed_over(tmp_path):
    (write_folder(tmp_path) / "._a.nii.gz").write_bytes(b"\0\5\x16\7 macOS")
    assert names(listed(tmp_path)) == ["a", "b", "c", "d"]


def test_what_is_wanted_lies_beside_its_case_and_on_its_grid(tmp_path):
    save(CT, tmp_path / "a.nii.gz")
    wanted = save(MASK, tmp_path / "a_wanted.nii.gz")
    (found,) = listed(tmp_path)
    assert found["wanted"] == str(wanted)
    save(MASK, wanted, SHIFTED)
    with pytest.raises(BadFileError, match=r"a_wanted\.nii\.gz: expected the affine of"):
        listed(tmp_path)


def test_what_is_wanted_has_the_values_of_a_label(tmp_path):
    save(CT, tmp_path / "a.nii.gz")
    save(2 * MASK, tmp_path / "a_wanted.nii.gz")
    assert len(listed(tmp_path, label_values={"1": "core", "2": "rim"})) == len(listed(tmp_path)) == 1
    with pytest.raises(BadFileError, match=r"a_wanted.nii.gz: expected a mask of the values 0, 1, got also 2"):
        listed(tmp_path, label_values={"1": "lesion"})


def test_other_files_in_a_folder_are_passed_over(tmp_path):
    (write_folder(tmp_path) / "notes.txt").write_text("Befund")
    assert names(listed(tmp_path)) == ["a", "b", "c", "d"]


def test_one_dicom_series_is_one_case_called_as_its_folder(tmp_path):
    write_series(tmp_path / "CT Bauch", CT, AFFINE)
    assert names(listed(tmp_path / "CT Bauch")) == ["CT Bauch"]


def test_the_image_of_a_dicom_case_is_its_folder(tmp_path):
    write_series(tmp_path / "CT", CT, AFFINE)
    assert listed(tmp_path / "CT")[0]["image"] == str(tmp_path / "CT")


def test_each_folder_with_a_dicom_series_is_a_case_called_by_its_way(tmp_path):
    for folder in ("Ärztin/CT 5 mm", "Ärztin/late", "other"):
        write_series(tmp_path / folder, CT, AFFINE)
    assert names(listed(tmp_path)) == ["other", "Ärztin_CT 5 mm", "Ärztin_late"]


def test_files_beside_a_dicom_series_do_not_matter(tmp_path):
    write_series(tmp_path / "CT", CT, AFFINE)
    (tmp_path / "CT" / "._image_1").write_bytes(bytes(200))
    (tmp_path / "CT" / "README").write_text("Befund")
    assert names(listed(tmp_path)) == ["CT"]


def test_a_dicom_series_that_lacks_a_slice_is_named(tmp_path):
    write_series(tmp_path / "CT", CT, AFFINE)[2].unlink()
    with pytest.raises(BadFileError, match=r"CT: expected slices every 5 mm"):
        listed(tmp_path)


@pytest.mark.parametrize("folder", ["with spaces", "Ärztin ✓"])
def test_folders_may_be_called_anything(tmp_path, folder):
    save(CT, tmp_path / folder / "Bauch, März.nii.gz")
    assert names(listed(tmp_path / folder)) == ["Bauch, März"]


@pytest.mark.parametrize(
    ("organ_source", "expected"),
    [
        ("auto", [["label", "organ"], ["organ"], [], ["organ"]]),
        ("network", [["label"], [], [], []]),
        ("totalsegmentator", [["label"], [], [], []]),
    ],
)
def test_organ_masks_are_taken_if_they_are_wanted(tmp_path, organ_source, expected):
    assert keys(listed(write_folder(tmp_path), organ_source=organ_source)) == expected


def test_a_case_without_the_organ_mask_that_is_demanded_is_refused(tmp_path):
    with pytest.raises(
        BadFileError, match=r"c.nii.gz: expected an organ mask beside it or in dataset.json, got none\."
    ):
        listed(write_folder(tmp_path), organ_source="file")


def test_cases_with_the_organ_mask_that_is_demanded_are_done(tmp_path):
    done, _ = listed_with_failures(write_folder(tmp_path), organ_source="file")
    assert done == ["a", "b", "d"]


def test_an_organ_source_that_is_unknown_is_refused(tmp_path):
    with pytest.raises(ValueError, match="organ_source must be auto, file, network or totalsegmentator, got 'liver'"):
        listed(write_folder(tmp_path), organ_source="liver")


def test_a_case_says_where_its_organ_comes_from_and_the_log_how_many_have_one(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    from_file = [item.get("organ_from") for item in listed(write_folder(tmp_path))]
    assert from_file == ["mask from a file", "mask from a file", None, "mask from a file"]
    assert "4 testing cases, 3 with a mask of the organ" in caplog.text
    sought = listed(tmp_path, organ_source="totalsegmentator")
    assert {item["organ_from"] for item in sought} == {"found by TotalSegmentator"}


def spoil_image(folder):
    path = folder / "a.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])


SPOILED = {
    "image cut off": (spoil_image, "a.nii.gz: expected a readable NIfTI file"),
    "image of MR": (lambda f: save(np.abs(CT), f / "a.nii.gz"), "a.nii.gz: expected a CT in Hounsfield units"),
    "constant image": (lambda f: save(0 * CT, f / "a.nii.gz"), "a.nii.gz: expected an image, got the same value 0"),
    "organ empty": (
        lambda f: save(0 * MASK, f / "a_liver.nii.gz"),
        "a_liver.nii.gz: expected a mask of the organ, got an empty one",
    ),
    "organ of another shape": (
        lambda f: save(MASK[1:], f / "a_liver.nii.gz"),
        r"a_liver.nii.gz: expected the grid of .*a.nii.gz, shape \(8, 7, 6\), got \(7, 7, 6\)",
    ),
    "organ elsewhere": (
        lambda f: save(MASK, f / "a_liver.nii.gz", SHIFTED),
        "a_liver.nii.gz: expected the affine of .*a.nii.gz, got one that moves a corner by 24 mm",
    ),
    "label elsewhere": (
        lambda f: save(MASK, f / "a_label.nii.gz", SHIFTED),
        "a_label.nii.gz: expected the affine of .*a.nii.gz",
    ),
    "label cut off": (
        lambda f: (f / "a_label.nii.gz").write_bytes(b"\x1f\x8b"),
        "a_label.nii.gz: expected a readable NIfTI file",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILED.values(), ids=SPOILED)
def test_a_bad_file_ends_the_run_with_its_name_and_the_reason(tmp_path, spoil, reason):
    spoil(write_folder(tmp_path))
    with pytest.raises(BadFileError, match=reason):
        listed(tmp_path)


@pytest.mark.parametrize("spoil", [spoil for spoil, _ in SPOILED.values()], ids=SPOILED)
def test_beside_a_bad_file_the_other_cases_are_done(tmp_path, spoil):
    spoil(write_folder(tmp_path))
    done, reasons = listed_with_failures(tmp_path)
    assert (done, list(reasons)) == (["b", "c", "d"], ["a"])


def test_an_empty_label_is_a_healthy_case(tmp_path):
    save(0 * MASK, write_folder(tmp_path) / "a_label.nii.gz")
    assert names(listed(tmp_path)) == ["a", "b", "c", "d"]


def test_an_organ_mask_that_is_not_wanted_may_be_bad(tmp_path):
    save(0 * MASK, write_folder(tmp_path) / "a_liver.nii.gz")
    assert len(listed(tmp_path, organ_source="network")) == 4


def test_the_only_frame_of_four_axes_is_accepted(tmp_path):
    save(CT[..., None], write_folder(tmp_path) / "a.nii.gz")
    assert len(listed(tmp_path)) == 4


@pytest.mark.parametrize("voxels", [CT[..., 0], CT[..., :1]], ids=["2-D", "volume of one"])
def test_one_slice_is_accepted(tmp_path, voxels):
    assert len(listed(save(voxels, tmp_path / "a.nii.gz"))) == 1


def test_files_are_trusted_if_they_are_not_to_be_checked(tmp_path):
    spoil_image(write_folder(tmp_path))
    assert len(listed(tmp_path, check=False)) == 4


@pytest.mark.parametrize("key", ["image", "organ", "label"])
def test_a_file_of_the_data_set_that_is_not_there_is_named(tmp_path, key):
    write_dataset(tmp_path, testing=[{**item("a"), key: "none.nii.gz"}])
    with pytest.raises(BadFileError, match=r"none.nii.gz: expected a NIfTI file, got none there\."):
        listed(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "\ufeffa", "[]", '{"training": []}', "[" * 100_000])
def test_a_dataset_json_that_is_none_or_lacks_the_split_is_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match=r"dataset.json: expected JSON with a list 'testing', got .*\.$"):
        listed(tmp_path)


@pytest.mark.parametrize(
    "testing",
    [
        [{"label": "masks/a.nii.gz"}],
        [5],
        [{"image": 5}],
        [{"image": []}],
        [{"image": "images/a.nii.gz", "organ": None}],
        {"image": "images/a.nii.gz"},
    ],
    ids=["no image", "a number alone", "a number", "no channels", "null for a mask", "no list"],
)
def test_items_without_the_path_of_an_image_are_refused(tmp_path, testing):
    write_dataset(tmp_path, testing=testing)
    with pytest.raises(ValueError, match=r"dataset.json: expected .*, got "):
        listed(tmp_path)


def test_several_channels_where_one_is_expected_fail_their_case_alone(tmp_path):
    write_dataset(tmp_path, testing=[{"image": ["images/a.nii.gz", "images/b.nii.gz"]}, item("b")])
    done, reasons = listed_with_failures(tmp_path)
    assert (done, list(reasons)) == (["b"], ["a"])


def test_a_list_of_one_channel_is_one_image(tmp_path):
    assert names(listed(write_dataset(tmp_path, testing=[{"image": ["images/a.nii.gz"]}]))) == ["a"]


def test_a_split_without_cases_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}: expected training cases, got none, as that list of"):
        listed(write_dataset(tmp_path), split="training")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}: expected testing cases, got none, and no file at all\."):
        listed(tmp_path)


def test_a_folder_without_images_is_refused_with_what_is_there(tmp_path):
    for name in ("b.txt", "a.pdf"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"expected testing cases, got none, but 2 files: a.pdf, b.txt\."):
        listed(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no: expected a data set, a folder or a file, got nothing there"):
        listed(tmp_path / "no")


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(BadFileError, match=r"a.txt: expected a readable NIfTI file"):
        listed(tmp_path / "a.txt")


def test_two_cases_of_one_name_are_refused_with_both_files(tmp_path):
    save(CT, tmp_path / "a.nii")
    save(CT, tmp_path / "a.nii.gz")
    with pytest.raises(BadFileError, match=r"got 'a' for all of .*a.nii, .*a.nii.gz; give each a 'case' of its own"):
        listed(tmp_path)


def test_twins_fail_and_the_others_are_done(tmp_path):
    write_dataset(tmp_path, testing=[item("a"), item("a"), item("b"), item("b", case="A")])
    done, reasons = listed_with_failures(tmp_path)
    assert (done, sorted(reasons)) == (["b"], ["A", "a"])


def test_two_series_whose_ways_give_one_name_are_refused(tmp_path):
    for folder in ("a/b", "a_b"):
        write_series(tmp_path / folder, CT, AFFINE)
    with pytest.raises(BadFileError, match=r"got 'a_b' for all of .*a/b, .*a_b; give"):
        listed(tmp_path)


@pytest.mark.parametrize("spoil", [spoil for spoil, _ in SPOILED.values()], ids=SPOILED)
def test_a_reason_is_one_sentence(tmp_path, spoil):
    spoil(write_folder(tmp_path))
    (reason,) = listed_with_failures(tmp_path)[1].values()
    assert re.fullmatch(rf"{tmp_path}/a\S*: expected .+, got .+\.", reason)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_each_case_is_worked_on_by_one_process(world_size):
    items = [{"case": str(i)} for i in range(5)]
    parts = [shard(items, rank, world_size) for rank in range(world_size)]
    assert sorted(names(functools.reduce(operator.iadd, parts, []))) == names(items)


def test_a_process_may_have_no_case():
    assert [len(shard([{"case": "a"}, {"case": "b"}], rank, 3)) for rank in range(3)] == [1, 1, 0]


SEQUENCES = ("t1", "t1ce", "t2", "flair")
HEAD = np.zeros((8, 7, 6), dtype=np.float32)
HEAD[2:6, 2:6] = np.linspace(100, 900, 96).reshape(4, 4, 6)


def write_heads(folder, name="BraTS20_Training_001_{}.nii.gz", sequences=SEQUENCES, affine=AFFINE):
    """Write a case with a file a sequence."""
    for number, sequence in enumerate(sequences, start=1):
        save(number * HEAD, folder / name.format(sequence), affine)
    return folder


@pytest.mark.parametrize(
    ("name", "words", "case"),
    [
        ("BraTS20_Training_001_{}.nii.gz", SEQUENCES, "BraTS20_Training_001"),
        ("BraTS-GLI-00000-000-{}.nii.gz", ("t1n", "t1c", "t2w", "t2f"), "BraTS-GLI-00000-000"),
        ("brats_train_001_{}_080_w.nii", SEQUENCES, "brats_train_001_080_w"),
        ("Ärztin {}.nii.gz", ("T1", "T1Gd", "T2", "FLAIR"), "Ärztin"),
    ],
)
def test_files_of_the_sequences_of_a_head_are_one_case(tmp_path, name, words, case):
    (found,) = listed(write_heads(tmp_path, name, words), modality="mr")
    assert found["case"] == case
    assert found["image"] == [str(tmp_path / name.format(word)) for word in words]


def test_each_case_may_have_a_folder_of_its_own(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_heads(tmp_path / name, f"{name}_{{}}.nii.gz")
    assert names(listed(tmp_path, modality="mr")) == ["a", "b"]


def test_some_sequences_are_enough_where_others_are_not_wanted(tmp_path):
    options = {"modality": "mr", "sequences": ["flair"]}
    write_heads(tmp_path, "a_{}.nii.gz")
    write_heads(tmp_path, "b_{}.nii.gz", ["flair"])
    save(HEAD, tmp_path / "c.nii.gz")
    expected = [[str(tmp_path / f"{case}_flair.nii.gz")] for case in "ab"]
    assert [found["image"] for found in listed(tmp_path, **options)] == [*expected, str(tmp_path / "c.nii.gz")]
    (tmp_path / "dataset.json").write_text(
        json.dumps({"testing": [{"image": [f"a_{name}.nii.gz" for name in SEQUENCES], "case": "a"}]})
    )
    assert [found["image"] for found in listed(tmp_path, **options)] == expected[:1]
    assert len(listed(tmp_path, modality="mr")[0]["image"]) == 4


def test_a_file_of_four_volumes_is_not_one_sequence(tmp_path):
    save(np.stack([HEAD] * 4, -1), tmp_path / "a.nii.gz")
    with pytest.raises(BadFileError, match="expected volumes of flair, got 4 volumes"):
        listed(tmp_path, modality="mr", sequences=["flair"])


def test_images_of_any_part_of_the_body_are_cases_of_their_own(tmp_path, caplog):
    write_heads(tmp_path, "a_{}.nii.gz", SEQUENCES[:2], np.diag([2.0, 2, 5, 1]))
    save((HEAD > 500).astype(np.uint8), tmp_path / "a_t1_label.nii.gz", np.diag([2.0, 2, 5, 1]))
    items = listed(tmp_path, modality="mr", sequences=None)
    assert [(item["case"], "label" in item) for item in items] == [("a_t1", True), ("a_t1ce", False)]
    assert not any("mm" in message for message in caplog.messages)


def test_an_image_of_any_part_of_the_body_is_one_file(tmp_path):
    write_dataset(tmp_path, testing=[{"image": ["a.nii.gz", "b.nii.gz"]}])
    with pytest.raises(BadFileError, match="expected an image in 1 files or one, got"):
        listed(tmp_path, modality="mr", sequences=None)


def test_unknown_sequences_are_refused(tmp_path):
    with pytest.raises(ValueError, match="sequences must be some of t1, t1ce, t2, flair, got dwi"):
        listed(tmp_path, modality="mr", sequences=["dwi"])


def test_cases_without_what_is_required_are_left_out(tmp_path):
    write_heads(tmp_path, "a_{}.nii.gz")
    with pytest.raises(FileNotFoundError, match="expected testing cases with wanted, got none"):
        listed(tmp_path, modality="mr", required=["wanted"])
    write_heads(tmp_path, "b_{}.nii.gz")
    save((HEAD > 500).astype(np.uint8), tmp_path / "b_wanted.nii.gz")
    assert names(listed(tmp_path, modality="mr", required=["wanted"])) == ["b"]


@pytest.mark.parametrize(("image", "label"), [("a_{}.nii.gz", "a_seg.nii.gz"), ("b-{}.nii", "b-seg.nii")])
def test_a_segmentation_beside_the_sequences_is_the_label(tmp_path, image, label):
    save((HEAD > 500).astype(np.uint8), tmp_path / label)
    (found,) = listed(write_heads(tmp_path, image), modality="mr")
    assert found["label"] == str(tmp_path / label)
    assert found["case"] == label[0]


def test_a_head_without_the_wanted_sequence_fails_alone(tmp_path):
    for name in ("a_t1", "a_t2", "a_seg", "b_t2", "c_flair"):
        save(HEAD, tmp_path / f"{name}.nii.gz")
    failures = Failures()
    assert names(listed(tmp_path, modality="mr", sequences=["flair"], failures=failures)) == ["c"]
    assert failures.reasons.keys() == {"a", "b"}
    assert failures.reasons["a"].endswith("a_seg.nii.gz: expected flair, got none of them beside it.")


def test_sequences_have_the_order_that_is_asked_for(tmp_path):
    order = ["flair", "t1", "t1ce", "t2"]
    (found,) = listed(write_heads(tmp_path, "a_{}.nii.gz"), modality="mr", sequences=order)
    item = {"image": [f"a_{sequence}.nii.gz" for sequence in SEQUENCES]}
    (tmp_path / "dataset.json").write_text(json.dumps({"testing": [item]}))
    (listed_there,) = listed(tmp_path, modality="mr", sequences=order)
    assert found["image"] == listed_there["image"] == [str(tmp_path / f"a_{sequence}.nii.gz") for sequence in order]


def test_a_segmentation_beside_one_file_of_all_sequences_is_the_label(tmp_path):
    save(np.stack([HEAD, 2 * HEAD, 3 * HEAD, 4 * HEAD], -1), tmp_path / "a.nii.gz")
    save((HEAD > 500).astype(np.uint8), tmp_path / "a_seg.nii.gz")
    (found,) = listed(tmp_path, modality="mr")
    assert (found["image"], found["label"]) == (str(tmp_path / "a.nii.gz"), str(tmp_path / "a_seg.nii.gz"))


def test_four_sequences_may_lie_in_one_file(tmp_path):
    save(np.stack([HEAD, 2 * HEAD, 3 * HEAD, 4 * HEAD], -1), tmp_path / "a.nii.gz")
    assert names(listed(tmp_path, modality="mr")) == names(listed(tmp_path / "a.nii.gz", modality="mr")) == ["a"]


def test_a_head_without_all_sequences_or_on_several_grids_fails_alone(tmp_path):
    write_heads(tmp_path, "good_{}.nii.gz")
    write_heads(tmp_path, "few_{}.nii.gz", SEQUENCES[:3])
    write_heads(tmp_path, "moved_{}.nii.gz")
    save(HEAD, tmp_path / "moved_flair.nii.gz", SHIFTED)
    save(np.stack([HEAD, 2 * HEAD], -1), tmp_path / "two.nii.gz")
    failures = Failures()
    assert names(listed(tmp_path, modality="mr", failures=failures)) == ["good"]
    assert "expected t1, t1ce, t2, flair in 4 files or one, got few_t1" in failures.reasons["few"]
    assert "expected the affine of" in failures.reasons["moved"]
    assert "expected volumes of t1, t1ce, t2, flair, got 2 volumes" in failures.reasons["two"]


def test_a_sequence_that_is_a_copy_of_another_is_remarked_on(tmp_path):
    write_heads(tmp_path, "a_{}.nii.gz")
    (tmp_path / "a_t2.nii.gz").write_bytes((tmp_path / "a_t1.nii.gz").read_bytes())
    (found,) = listed(tmp_path, modality="mr")
    assert found["remarks"].startswith("a_t1.nii.gz and a_t2.nii.gz hold the same voxels")


def test_files_of_one_name_in_several_folders_are_all_looked_at(tmp_path):
    for number, sequence in enumerate(SEQUENCES):
        save(number * HEAD, tmp_path / sequence / "a.nii.gz")
    images = [f"{sequence}/a.nii.gz" for sequence in SEQUENCES]
    (tmp_path / "dataset.json").write_text(json.dumps({"testing": [{"image": images}]}))
    with pytest.raises(BadFileError, match=r"t1/a.nii.gz: expected an image, got the same value 0"):
        listed(tmp_path, modality="mr")


def test_a_doubt_about_the_order_of_files_is_said(tmp_path):
    write_heads(tmp_path, "a_{}.nii.gz")
    for number, sequence in enumerate(SEQUENCES):
        (tmp_path / f"a_{sequence}.nii.gz").rename(tmp_path / f"{number}.nii.gz")
    items = [{"image": [f"{number}.nii.gz" for number in range(4)], "case": "a"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"testing": items}))
    (found,) = listed(tmp_path, modality="mr")
    assert found["remarks"].startswith("its files are taken for t1, t1ce, t2, flair, as neither")


def test_a_sequence_that_lies_there_twice_is_refused(tmp_path):
    write_heads(tmp_path, "a_{}.nii.gz", ("t1", "t1w"))
    with pytest.raises(BadFileError, match=r"a_t1w.nii.gz: expected one file of t1, got also .*a_t1.nii.gz\."):
        listed(tmp_path, modality="mr")


def test_what_is_unlike_brats_is_said_and_done_all_the_same(tmp_path, caplog):
    (found,) = listed(write_heads(tmp_path), modality="mr", voxel_mm=[1, 1, 1])
    assert found["remarks"].startswith("its voxels are 2 x 3 x 5 mm, coarse beside the 1 x 1 x 1 mm")
    assert found["remarks"] in caplog.text


def test_every_sequence_is_looked_at(tmp_path):
    write_heads(tmp_path, "a_{}.nii.gz")
    save(HEAD + 50, tmp_path / "a_t2.nii.gz")
    (found,) = listed(tmp_path, modality="mr")
    assert found["remarks"] == "it does not look skull-stripped, as only 0.0% of its voxels are 0 (a_t2.nii.gz)"


INSIDE = [90 - 2 * 7, 70 - 3 * 6, -300 + 5 * 5]
"""World coordinates of the image's last voxel."""


def test_a_marked_point_comes_with_its_case(tmp_path):
    write_dataset(tmp_path, testing=[item("a", point=INSIDE), item("b")])
    a, b = listed(tmp_path)
    assert a["point"] == INSIDE
    assert "point" not in b


@pytest.mark.parametrize("wrong", [[7, 6, 5], [*INSIDE[:2], 0], INSIDE[:2], "images/a.nii.gz", [*INSIDE[:2], "5"], {}])
def test_a_marked_point_beyond_the_image_is_refused(tmp_path, wrong):
    write_dataset(tmp_path, testing=[item("a", point=wrong)])
    with pytest.raises(BadFileError, match=r"a.nii.gz: expected a point in the image, x, y and z in mm, got"):
        listed(tmp_path)


def test_tags_are_checked_before_a_run_and_fail_their_case_alone(tmp_path):
    tags = {"a": "slice,label\n6,1\n", "b": "slice,label\n5,1\n", "c": ""}
    for name, text in tags.items():
        (tmp_path / f"{name}.csv").write_text(text)
    write_dataset(tmp_path, testing=[item("a", case=name, slice_labels=f"{name}.csv") for name in tags])
    done, reasons = listed_with_failures(tmp_path)
    assert (done, list(reasons)) == (["b"], ["a", "c"])
    assert reasons["a"].endswith("a.csv: expected slices of 6, got number 6.")


@pytest.mark.parametrize("wrong", [2, "yes", -1])
def test_a_class_that_is_none_is_refused(tmp_path, wrong):
    write_dataset(tmp_path, testing=[item("a", image_label=wrong)])
    with pytest.raises(BadFileError, match="expected an image_label of 0 or 1, got"):
        listed(tmp_path)


def write_film(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_pictures_and_arrays_are_x_rays(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7), dtype=np.uint8)
    for name in ("a.png", "b.jpg", "c.1.JPEG"):
        write_film(tmp_path / name, pixels)
    np.save(tmp_path / "d.npy", pixels / 255)
    (tmp_path / "notes.txt").write_text("")
    items = listed(tmp_path, modality="xray")
    assert [item["image"][-5:] for item in items] == ["a.png", "b.jpg", ".JPEG", "d.npy"]
    assert names(items) == ["a", "b", "c.1", "d"]
    assert names(listed(tmp_path / "d.npy", modality="xray")) == ["d"]


def test_masks_beside_films_are_theirs_and_may_be_empty(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7), dtype=np.uint8)
    write_film(tmp_path / "a.jpg", pixels)
    write_film(tmp_path / "a_label.png", 0 * pixels)
    np.save(tmp_path / "a_organ.npy", pixels > 9)
    (found,) = listed(tmp_path, modality="xray")
    assert (found["label"][-12:], found["organ"][-12:]) == ("/a_label.png", "/a_organ.npy")


def test_a_mask_of_another_size_than_its_film_is_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7), dtype=np.uint8)
    write_film(tmp_path / "a.png", pixels)
    write_film(tmp_path / "wide.png", pixels[:, :5])
    dataset = [{"image": "a.png", "label": "wide.png", "case": "a"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"testing": dataset}))
    with pytest.raises(BadFileError, match=r"expected the size of .*a.png, \(7, 9\), got \(5, 9\)"):
        listed(tmp_path, modality="xray")


def test_another_modality_is_refused(tmp_path):
    with pytest.raises(ValueError, match="modality must be one of ct, mr, xray, got 'pet'"):
        listed(tmp_path, modality="pet")


def tagged(folder, name, tags, num_slices=None):
    (folder / f"{name}.csv").write_text("slice,label\n" + "".join(f"{i},{tag}\n" for i, tag in enumerate(tags)))
    save(np.zeros((3, 4, num_slices or len(tags)), np.float32), folder / f"{name}.nii.gz")
    return {"case": name, "image": str(folder / f"{name}.nii.gz"), "slice_labels": str(folder / f"{name}.csv")}


def test_both_classes_may_come_from_tags_masks_or_whole_images(tmp_path):
    healthy, diseased = tagged(tmp_path, "a", [0, 0]), tagged(tmp_path, "b", [1, 1])
    label = (HEAD > 500).astype(np.uint8)
    label[..., 0] = 0
    save(label, tmp_path / "both.nii.gz")
    for items in ([healthy, diseased], [{"label": str(tmp_path / "both.nii.gz")}], [healthy, {"image_label": 1}]):
        assert with_both_classes(items) == items


def test_slices_that_tags_do_not_list_are_healthy(tmp_path):
    items = [tagged(tmp_path, "a", [1, 1], num_slices=3)]
    assert with_both_classes(items) == items


def test_tags_of_a_dicom_series_may_leave_slices_out_too(tmp_path):
    write_series(tmp_path / "series", np.zeros((4, 5, 3), np.int16), np.eye(4))
    items = [{**tagged(tmp_path, "a", [1]), "image": str(tmp_path / "series")}]
    assert with_both_classes(items) == items


@pytest.mark.parametrize(("tags", "word"), [([0, 0], "healthy"), ([1], "diseased")])
def test_cases_of_one_class_alone_are_refused(tmp_path, tags, word):
    items = [tagged(tmp_path, name, tags) for name in "ab"]
    with pytest.raises(ValueError, match=f"expected healthy and diseased slices .*, got {word} ones alone in 2 cases"):
        with_both_classes(items)


def test_a_name_that_is_a_path_fails_its_case_alone(tmp_path):
    write_dataset(tmp_path, testing=[item("a", case="siteA/001"), item("b", case="../../x"), item("b", case="x")])
    done, reasons = listed_with_failures(tmp_path)
    assert (done, sorted(reasons)) == (["x"], ["../../x", "siteA/001"])


def test_a_name_of_two_lines_forges_none_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_dataset(tmp_path, testing=[item("a", case="a\nERROR b is left out"), item("b")])
    done, reasons = listed_with_failures(tmp_path)
    assert (done, list(reasons)) == (["b"], [r"a\nERROR b is left out"])
    assert not any("\n" in record.getMessage() for record in caplog.records)


def write_msd(folder, values=(0, 1, 2), **content):
    """Write a case whose label has values, as the Medical Segmentation Decathlon has them."""
    write_dataset(folder, **content)
    for name in ("a", "b"):
        save(np.resize(np.array(values, np.uint8), CT.shape), folder / "masks" / f"{name}.nii.gz")
    return folder


ITEMS = [{"image": "images/a.nii.gz", "label": "masks/a.nii.gz"}]
LESION = {"1": "lesion"}


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 0.5, 1), (0, 1, 255)])
def test_a_label_of_other_values_is_refused_with_the_way_out(tmp_path, values):
    write_msd(tmp_path, testing=ITEMS)
    save(np.resize(np.array(values, np.float32), CT.shape), tmp_path / "masks/a.nii.gz")
    with pytest.raises(BadFileError, match=r"a.nii.gz: expected a mask of the values 0, 1, got also .*prepare.*or set"):
        listed(tmp_path, label_values=LESION)


def test_a_label_may_have_all_values_that_a_run_understands(tmp_path):
    write_msd(tmp_path, testing=ITEMS)
    assert len(listed(tmp_path, label_values={"1": "core", "2": "rim"})) == len(listed(tmp_path)) == 1


def test_an_organ_mask_of_several_organs_is_refused(tmp_path):
    write_msd(tmp_path, testing=[{"image": "images/a.nii.gz", "organ": "masks/a.nii.gz"}])
    with pytest.raises(BadFileError, match="expected a mask of the values 0, 1, got also 2; write the organ"):
        listed(tmp_path)


def test_a_position_that_is_no_number_is_that_of_its_case_alone(tmp_path):
    write_dataset(tmp_path, testing=[item("a", point=[float("nan"), 0, 0]), item("b")])
    done, reasons = listed_with_failures(tmp_path)
    assert (done, list(reasons)) == (["b"], ["a"])


def test_what_nobody_foresaw_is_recorded_with_its_type_and_place(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("RAISE_FAULTS")
    write_dataset(tmp_path)

    def fault(path, *args, read=cases.read_nifti):
        return len(None) if Path(path).name == "a.nii.gz" else read(path, *args)

    monkeypatch.setattr(cases, "read_nifti", fault)
    done, reasons = listed_with_failures(tmp_path)
    assert done == ["b"]
    assert reasons["a"] == "object of type 'NoneType' has no len() (TypeError while checking its files)."
    assert "Traceback" in caplog.text


def test_faults_of_the_program_are_loud_in_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "read_nifti", lambda path: len(None))
    with pytest.raises(TypeError):
        listed_with_failures(write_dataset(tmp_path))


def test_one_organ_of_a_mask_of_several_is_asked_for_by_its_values(tmp_path):
    save(CT, tmp_path / "ct.nii.gz")
    several = save(np.where(CT > 0, 5, 2).astype(np.uint8), tmp_path / "elsewhere" / "organs.nii.gz")
    options = {"organ_path": str(several)}
    (case,) = listed(tmp_path / "ct.nii.gz", organ_labels=[2, 5], **options)
    assert case["organ"] == str(several)
    with pytest.raises(BadFileError, match=r"expected a mask of the organ \(organ_labels 7\), got an empty one"):
        listed(tmp_path / "ct.nii.gz", organ_labels=7, **options)
    with pytest.raises(BadFileError, match="organs"):
        listed(tmp_path / "ct.nii.gz", **options)


def test_scans_with_lesions_are_refused_where_healthy_ones_are_expected(tmp_path):
    write_dataset(tmp_path)
    save(MASK * 0, tmp_path / "masks" / "b.nii.gz")
    split = [item("a"), {**item("b"), "organ": "masks/a.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"testing": split}))
    left, reasons = listed_with_failures(tmp_path, lesions=False)
    assert left == ["b"]
    assert "expected a scan without tumours" in reasons["a"]


def test_cases_with_lesions_are_those_whose_label_is_not_empty(tmp_path):
    write_dataset(tmp_path)
    save(MASK * 0, tmp_path / "masks" / "b.nii.gz")
    items = [{"label": str(tmp_path / "masks" / f"{name}.nii.gz"), "case": name} for name in ("a", "b")]
    assert names(with_lesions([*items, {"case": "c"}])) == ["a"]


def test_cases_without_tumours_are_healthy_whatever_their_labels_hold(tmp_path):
    paths = {name: str(save(MASK * value, tmp_path / f"{name}.nii.gz")) for name, value in (("one", 1), ("two", 2))}
    items = [{"case": name, "label": path} for name, path in paths.items()]
    unlabelled = [
        {"case": "c"},
        {"case": "d", "image_label": 0, "organ": paths["one"]},
        {"case": "e", "image_label": 1},
    ]
    both = {item["case"]: item["healthy"] for item in tell_healthy(items + unlabelled, both=True)}
    assert both == {"one": True, "two": False, "d": True}
    assert not any(item["healthy"] for item in tell_healthy(items, both=False))
    added = tell_healthy([], both=True, healthy=[{"case": "f", "organ": paths["one"]}, {"case": "g"}])
    assert added == [{"case": "f", "organ": paths["one"], "healthy": True}]


def test_what_is_all_diseased_teaches_no_healthy_slices(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    whole = save(np.ones_like(MASK), tmp_path / "whole.nii.gz")
    part = np.ones_like(MASK)
    part[:, :, 0] = 0
    known = [
        {"case": "ill film", "image_label": 1},
        {"case": "normal film", "image_label": 0},
        {"case": "ill throughout", "label": str(whole), "image_label": 1},
        {"case": "ill in part", "label": str(save(part, tmp_path / "part.nii.gz")), "image_label": 1},
        {"case": "unknown"},
    ]
    assert [each["case"] for each in with_healthy_slices(known)] == ["normal film", "ill in part", "unknown"]
    assert [message.split(":")[0] for message in caplog.messages] == ["ill film", "ill throughout"]
