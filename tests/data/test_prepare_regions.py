"""Data sets of brain, pancreas and chest, from the folder that was downloaded to the one that is read."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest
from downloads import (
    AFFINE,
    SHAPE,
    film,
    save,
    sequences,
    tumour,
    write_brats_2020,
    write_brats_2021,
    write_brats_2023,
    write_chaos,
    write_chexpert,
    write_kaggle_3m,
    write_kits,
    write_msd_brain,
    write_msd_pancreas,
)
from monai.data import load_decathlon_datalist

from common.data.prepare import main, prepare

PARTS = ("training", "validation", "testing")
FILMS = {
    f"patient{patient:05}/study{study}/view1_frontal.jpg": {"Pleural Effusion" if patient % 2 else "No Finding": "1.0"}
    for patient in range(1, 7)
    for study in (1, 2)
}


def run(source, src, dst, fractions=(0, 0, 1), **options):
    """Prepare and return what ``dataset.json`` says."""
    prepare(source, str(src), str(dst), fractions=fractions, min_organ_pixels=1, **options)
    return json.loads((dst / "dataset.json").read_text())


def run_with_failures(source, src, dst):
    """Prepare and return the summary that the program ends with, and what ``dataset.json`` says."""
    with pytest.raises(SystemExit) as ended:
        run(source, src, dst)
    return ended.value.code, json.loads((dst / "dataset.json").read_text())


def parts_of(dataset, patient):
    return [part for part in PARTS for item in dataset[part] if item["patient"] == patient]


def cases(dataset):
    return sorted(item["case"] for part in PARTS for item in dataset[part])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_item_of_mr_has_four_images_and_a_label(tmp_path):
    write_brats_2023(tmp_path / "src", 2, 1, tumour(1, 2, 3))
    (item,) = run("brats", tmp_path / "src", tmp_path / "dst")["testing"]
    assert item == {
        "case": "BraTS-GLI-00002-001",
        "patient": "BraTS-GLI-00002",
        "image": [f"images/BraTS-GLI-00002-001_{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair")],
        "label": "labels/BraTS-GLI-00002-001.nii.gz",
        "image_label": 1,
    }


def test_the_dataset_json_of_mr_names_its_channels(tmp_path):
    write_brats_2021(tmp_path / "src", 0, tumour())
    dataset = run("brats", tmp_path / "src", tmp_path / "dst")
    assert dataset["modality"] == {"0": "t1", "1": "t1ce", "2": "t2", "3": "flair"}


def test_an_item_of_chaos_has_an_image_and_the_mask_of_what_is_looked_for(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 2, 0], labels[2, 1, 1] = 63, 126
    write_chaos(tmp_path / "src", 7, labels)
    dataset = run("chaos", tmp_path / "src", tmp_path / "dst")
    assert dataset["testing"] == [
        {
            "case": "chaos_7",
            "patient": "chaos_7",
            "image": "images/chaos_7.nii.gz",
            "label": "labels/chaos_7.nii.gz",
            "image_label": 1,
        }
    ]
    written = nib.load(tmp_path / "dst" / "labels" / "chaos_7.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels == 126)
    np.testing.assert_allclose(written.affine, AFFINE)
    assert dataset["description"].startswith("T2-SPIR MR of the abdomen; label: kidneys")


def test_sequences_that_are_files_are_linked_as_they_are_packed(tmp_path):
    files = write_brats_2020(tmp_path / "src", 1)
    (item,) = run("brats", tmp_path / "src", tmp_path / "dst")["testing"]
    links = [(tmp_path / "dst" / image).readlink() for image in item["image"]]
    assert links == [files[sequence] for sequence in ("t1", "t1ce", "t2", "flair")]


def test_sequences_in_one_file_are_written_apart(tmp_path):
    write_msd_brain(tmp_path / "src", (3,))
    (item,) = run("msd_brain", tmp_path / "src", tmp_path / "dst")["testing"]
    written = [np.asarray(nib.load(tmp_path / "dst" / image).dataobj) for image in item["image"]]
    np.testing.assert_array_equal(written, list(sequences(3).values()))


def test_what_is_written_lies_where_its_source_does(tmp_path):
    write_msd_brain(tmp_path / "src")
    (item,) = run("msd_brain", tmp_path / "src", tmp_path / "dst")["testing"]
    for path in (*item["image"], item["label"]):
        np.testing.assert_array_equal(nib.load(tmp_path / "dst" / path).affine, AFFINE)


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("brats", lambda src: write_brats_2020(src, 1)),
        ("brats", lambda src: write_brats_2023(src, 0, segmentation=tumour(1, 2, 3))),
        ("msd_brain", write_msd_brain),
    ],
    ids=["2020", "2023", "decathlon"],
)
def test_labels_of_mr_are_uint8_and_tell_the_parts_of_the_tumour(tmp_path, source, write):
    write(tmp_path / "src")
    (item,) = run(source, tmp_path / "src", tmp_path / "dst")["testing"]
    label = np.asarray(nib.load(tmp_path / "dst" / item["label"]).dataobj)
    np.testing.assert_array_equal(label, tumour(1, 2, 3), strict=True)


def test_paths_of_mr_are_those_that_monai_reads(tmp_path):
    write_brats_2021(tmp_path / "src", 0, tumour())
    run("brats", tmp_path / "src", tmp_path / "dst")
    (item,) = load_decathlon_datalist(tmp_path / "dst" / "dataset.json", data_list_key="testing")
    assert all(nib.load(path).shape == SHAPE for path in (*item["image"], item["label"]))


def test_time_points_of_a_patient_stay_in_one_part(tmp_path):
    for number in range(8):
        for time_point in (0, 1):
            write_brats_2023(tmp_path / "src", number, time_point, tumour(1, 2, 3))
    dataset = run("brats", tmp_path / "src", tmp_path / "dst", fractions=(0.5, 0.25, 0.25))
    assert [len(set(parts_of(dataset, f"BraTS-GLI-{number:05}"))) for number in range(8)] == [1] * 8


def test_the_log_counts_the_slices_of_a_brain(tmp_path, caplog):
    caplog.set_level("INFO")
    write_brats_2021(tmp_path / "src", 0, tumour())
    run("brats", tmp_path / "src", tmp_path / "dst")
    assert "BraTS2021_00000: 3 slices of the brain, 2 of them healthy, and 1 with lesions." in caplog.text


def write_without_segmentation(src):
    write_brats_2021(src, 0, tumour())
    write_brats_2021(src, 1)
    return src


def test_a_case_without_segmentation_has_no_label(tmp_path):
    dataset = run("brats", write_without_segmentation(tmp_path / "src"), tmp_path / "dst")
    assert [("label" in item, item["image_label"]) for item in dataset["testing"]] == [(True, 1), (False, 1)]


def test_a_tumour_that_nobody_drew_is_not_trained_on_as_healthy(tmp_path, caplog):
    dataset = run("brats", write_without_segmentation(tmp_path / "src"), tmp_path / "dst", fractions=(1, 0, 0))
    assert cases(dataset) == ["BraTS2021_00000"]
    assert "BraTS2021_00001 is left out of training: it has no healthy slice of the brain." in caplog.text


def test_slices_of_mr_can_be_split(tmp_path):
    write_brats_2021(tmp_path / "src", 0, tumour())
    write_brats_2021(tmp_path / "src", 1, tumour())
    dataset = run("brats", tmp_path / "src", tmp_path / "dst", fractions=(0.5, 0, 0.5), split="slice")
    assert [item["slices"] for part in PARTS for item in dataset[part]] == ["healthy", "healthy", "lesion", "lesion"]


def test_beside_bad_cases_the_others_are_prepared(tmp_path):
    write_brats_2021(tmp_path / "src", 0, tumour())
    write_brats_2021(tmp_path / "src", 1, tumour())["t2"].unlink()
    save(tumour()[:, :, :3], write_brats_2021(tmp_path / "src", 2, tumour())["seg"])
    summary, dataset = run_with_failures("brats", tmp_path / "src", tmp_path / "dst")
    assert cases(dataset) == ["BraTS2021_00000"]
    assert "2 of the cases could not be done" in summary


def test_an_mr_with_a_skull_is_warned_of_by_its_sequence(tmp_path, caplog):
    files = write_brats_2021(tmp_path / "src", 0, tumour())
    save(np.arange(1, 121).reshape(SHAPE).astype(np.int16), files["t2"])
    run("brats", tmp_path / "src", tmp_path / "dst")
    assert "BraTS2021_00000_t2: it does not look skull-stripped" in caplog.text


def test_an_affine_that_is_the_identity_is_nothing_unusual_in_mr(tmp_path, caplog):
    for path in write_brats_2021(tmp_path / "src", 0).values():
        save(nib.load(path).get_fdata(), path, np.eye(4))
    run("brats", tmp_path / "src", tmp_path / "dst")
    assert "identity" not in caplog.text


def test_an_item_of_the_pancreas_has_organ_and_label(tmp_path):
    (item,) = run("msd_pancreas", write_msd_pancreas(tmp_path / "src"), tmp_path / "dst")["testing"]
    assert item == {
        "case": "pancreas_001",
        "patient": "pancreas_001",
        "image": "images/pancreas_001.nii.gz",
        "organ": "organs/pancreas_001.nii.gz",
        "label": "labels/pancreas_001.nii.gz",
        "image_label": 1,
    }


def test_the_dataset_json_of_the_pancreas_says_what_its_masks_are(tmp_path):
    dataset = run("msd_pancreas", write_msd_pancreas(tmp_path / "src"), tmp_path / "dst")
    assert "organ: the pancreas with its lesions" in dataset["description"]


def test_the_log_counts_the_slices_of_a_pancreas(tmp_path, caplog):
    caplog.set_level("INFO")
    run("msd_pancreas", write_msd_pancreas(tmp_path / "src"), tmp_path / "dst")
    assert "pancreas_001: 2 slices of the pancreas, 1 of them healthy, and 1 with lesions." in caplog.text


def test_both_labels_are_written_where_that_is_asked_for(tmp_path):
    src = write_kits(tmp_path / "src")
    dataset = run("kits", src, tmp_path / "dst", both_labels=True)
    written = np.asarray(nib.load(tmp_path / "dst" / dataset["testing"][0]["label"]).dataobj)
    theirs = np.asarray(nib.load(src / "dataset" / "case_00000" / "segmentation.nii.gz").dataobj)
    np.testing.assert_array_equal(written, np.where(theirs == 3, 1, theirs))
    assert dataset["labels"] == {"0": "background", "1": "kidneys", "2": "tumour"}
    assert "Labels: 1 the organ, 2 its lesions." in dataset["description"]


def test_both_labels_need_an_organ(tmp_path):
    with pytest.raises(ValueError, match="both_labels is for data sets with masks of an organ"):
        run("brats", write_brats_2021(tmp_path / "src", 0)["t1"].parent.parent, tmp_path / "dst", both_labels=True)


def test_an_item_of_the_chest_has_a_film_and_an_image_label(tmp_path):
    src = write_chexpert(tmp_path / "src", {"patient00007/study3/view1_frontal.jpg": {"Pleural Effusion": "1.0"}})
    (item,) = run("chexpert", src, tmp_path / "dst")["testing"]
    assert item == {
        "case": "patient00007_study3_view1_frontal",
        "patient": "patient00007",
        "image": "images/patient00007_study3_view1_frontal.jpg",
        "image_label": 1,
    }


def test_films_are_linked(tmp_path):
    src = write_chexpert(tmp_path / "src", {"patient00007/study3/view1_frontal.jpg": {"No Finding": "1.0"}})
    (item,) = run("chexpert", src, tmp_path / "dst")["testing"]
    assert (tmp_path / "dst" / item["image"]).readlink() == src / "train/patient00007/study3/view1_frontal.jpg"


def test_healthy_and_diseased_films_are_trained_on(tmp_path):
    dataset = run("chexpert", write_chexpert(tmp_path / "src", FILMS), tmp_path / "dst", fractions=(1, 0, 0))
    assert [item["image_label"] for item in dataset["training"]] == [1, 1, 0, 0] * 3


def test_films_of_a_patient_stay_in_one_part(tmp_path):
    src = write_chexpert(tmp_path / "src", FILMS)
    dataset = run("chexpert", src, tmp_path / "dst", fractions=(0.34, 0.33, 0.33))
    assert [len(set(parts_of(dataset, f"patient{patient:05}"))) for patient in range(1, 7)] == [1] * 6


def test_the_log_counts_films_by_part_and_not_one_by_one(tmp_path, caplog):
    caplog.set_level("INFO")
    run("chexpert", write_chexpert(tmp_path / "src", FILMS), tmp_path / "dst")
    assert [line for line in caplog.messages if "images" in line] == [
        "all, 12 of 12 cases: 12 images, 6 healthy and 6 diseased.",
        "training, 0 of 12 cases: 0 images, 0 healthy and 0 diseased.",
        "validation, 0 of 12 cases: 0 images, 0 healthy and 0 diseased.",
        "testing, 12 of 12 cases: 12 images, 6 healthy and 6 diseased.",
    ]


def test_a_film_that_is_constant_is_named_and_left_out(tmp_path):
    src = write_chexpert(tmp_path / "src", FILMS, pixels=lambda row: film(row) * (row != 3))
    summary, dataset = run_with_failures("chexpert", src, tmp_path / "dst")
    assert len(cases(dataset)) == 11
    assert "train/patient00002/study2/view1_frontal.jpg: expected an image, got the same value 0" in summary


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("brats", lambda src: [write_brats_2021(src, number, tumour()) for number in range(4)]),
        ("msd_brain", lambda src: write_msd_brain(src, range(4))),
        ("msd_pancreas", lambda src: write_msd_pancreas(src, range(4))),
        ("kits", lambda src: [write_kits(src, number) for number in range(4)]),
        ("chexpert", lambda src: write_chexpert(src, FILMS)),
    ],
)
def test_running_it_twice_gives_the_same_bytes(tmp_path, source, write):
    write(tmp_path / "src")
    run(source, tmp_path / "src", tmp_path / "a", fractions=(0.5, 0.25, 0.25))
    run(source, tmp_path / "src", tmp_path / "b", fractions=(0.5, 0.25, 0.25))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_command_takes_the_finding_and_paths_with_spaces_and_unicode(tmp_path, monkeypatch):
    src = write_chexpert(tmp_path / "Röntgen 1", {"patient00001/study1/view1_frontal.jpg": {"Lung Opacity": "1.0"}})
    arguments = ["chexpert", "--src", str(src), "--dst", str(tmp_path / "films ✓"), "--fractions", "0,0,1"]
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments, "--finding", "Lung Opacity"])
    main()
    dataset = json.loads((tmp_path / "films ✓" / "dataset.json").read_text())
    assert dataset["description"].startswith("Frontal X-rays of the chest; image_label: 0 No Finding, 1 Lung Opacity.")


def test_the_command_ends_with_one_sentence_if_the_finding_is_unknown(tmp_path, monkeypatch):
    src = write_chexpert(tmp_path / "src", FILMS)
    arguments = ["chexpert", "--src", str(src), "--dst", str(tmp_path / "dst"), "--finding", "Cough"]
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
    with pytest.raises(SystemExit, match=r"finding must be one of Enlarged Cardiomediastinum, .*, got 'Cough'"):
        main()


def test_an_item_of_a_glioma_has_its_sequences_and_its_site(tmp_path):
    src = write_kaggle_3m(tmp_path, "TCGA_HT_7473_19970826")
    options = {"sequences": "flair", "brain_masks": str(tmp_path / "brains")}
    dataset = run("kaggle_3m", src, tmp_path / "dst", **options)
    (item,) = dataset["testing"]
    assert item == {
        "case": "TCGA_HT_7473_19970826",
        "patient": "TCGA_HT_7473",
        "image": "images/TCGA_HT_7473_19970826_flair.nii.gz",
        "label": "labels/TCGA_HT_7473_19970826.nii.gz",
        "image_label": 1,
        "site": "HT",
    }
    assert dataset["modality"] == {"0": "flair"}
