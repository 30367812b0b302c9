import json
import runpy
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.cases import list_cases
from common.phantoms.abdomen_ct import abdomen_ct
from common.phantoms.brain_mr import brain_mr
from common.phantoms.chest_xray import chest_xray
from common.sequences import SEQUENCES

SPLITS = ("training", "validation", "testing")
FIRST_TESTING_SEED = 300_000

SMALL = ["--shape", "40,32,6", "--spacing", "9,9,12"]
SMALL_BRAIN = ["--shape", "16,19,3", "--spacing", "12,12,20"]
SMALL_CHEST = ["--shape", "24,28", "--spacing", "16,16"]


def run(dst, *options, phantom="abdomen_ct", size=SMALL):
    """Write a data set as from the command line and return what ``dataset.json`` says."""
    arguments = sys.argv
    sys.argv = ["phantoms", phantom, "--dst", str(dst), *size, *options]
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


def test_a_phantom_that_is_unknown_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"phantom must be one of abdomen_ct, .*, got 'knee_mr'"):
        run(tmp_path, phantom="knee_mr")


def test_further_patients_without_lesions_come_last(tmp_path):
    content = run(tmp_path, "--testing", "1", "--healthy_testing", "2")
    assert [item["image_label"] for item in content["testing"]] == [1, 0, 0]
    assert not list(tmp_path.glob("*_wanted*"))


def test_an_unknown_scanner_is_refused(tmp_path):
    with pytest.raises(ValueError, match="scanner must be one of"):
        run(tmp_path, "--testing", "1", "--scanner", "c")


@pytest.fixture(scope="module")
def pancreases(tmp_path_factory):
    """A data set of tumours of the pancreas: its folder and what its ``dataset.json`` says."""
    folder = tmp_path_factory.mktemp("pancreases")
    counts = ["--training", "4", "--validation", "1", "--testing", "2", "--healthy_testing", "1", "--twins"]
    options = [*counts, "--healthy_share", "0.25"]
    return folder, run(folder, *options, phantom="pancreas_ct", size=["--shape", "60,48,6", "--spacing", "4,4,10"])


def test_masks_of_the_pancreas_contain_its_tumours(pancreases):
    folder, content = pancreases
    for item in [item for split in SPLITS for item in content[split]]:
        organ, label = (voxels(folder / item[key]) for key in ("organ", "label"))
        assert set(np.unique(organ)) == {0, 1}
        assert (organ[label > 0] == 1).all()
        assert label.any() == item["image_label"]
    assert (folder / "testing_a_000_organ.nii.gz").is_file()
    assert not list(folder.glob("*_liver*"))


def test_patients_without_tumours_of_the_pancreas_are_a_share_of_training_and_the_last_of_testing(pancreases):
    found = {split: [item["image_label"] for item in pancreases[1][split]] for split in SPLITS}
    assert sorted(found["training"]) == [0, 1, 1, 1]
    assert (found["validation"], found["testing"]) == ([1], [1, 1, 0])


def test_the_twin_of_a_pancreas_differs_by_its_tumours_alone(pancreases):
    folder, content = pancreases
    for item in content["testing"]:
        twin = voxels(folder / item["image"].replace(".nii.gz", "_twin.nii.gz"))
        assert (voxels(folder / item["image"]) != twin).any() == item["image_label"]


def test_a_pancreas_is_the_one_that_was_asked_for(pancreases):
    expected = abdomen_ct(FIRST_TESTING_SEED + 1, (60, 48, 6), (4, 4, 10), lesion_organ="pancreas")
    np.testing.assert_array_equal(voxels(pancreases[0] / "testing_a_001.nii.gz"), expected.image)
    assert [item["case"] for item in list_cases(str(pancreases[0]), progress=False)][1] == "testing_a_001"


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """A data set of brains with patients in all splits: its folder and what its ``dataset.json`` says."""
    folder = tmp_path_factory.mktemp("brains")
    counts = ["--training", "4", "--validation", "2", "--testing", "2", "--healthy_testing", "2", "--twins", "True"]
    return folder, run(folder, *counts, phantom="brain_mr", size=SMALL_BRAIN)


def test_a_brain_is_one_file_a_sequence_on_the_grid_of_its_label(brains):
    folder, content = brains
    item = content["testing"][1]
    expected = brain_mr(FIRST_TESTING_SEED + 1, (16, 19, 3), (12, 12, 20), tumour=True)
    assert item["image"] == [f"testing_a_001_{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair")]
    np.testing.assert_array_equal([voxels(folder / name) for name in item["image"]], expected.image)
    for name in [*item["image"], item["label"]]:
        np.testing.assert_allclose(nib.load(folder / name).affine, expected.affine, rtol=1e-6)
        assert nib.aff2axcodes(nib.load(folder / name).affine) == ("R", "A", "S")


def test_labels_of_brains_are_the_parts_of_tumours(brains):
    folder, content = brains
    labels = [nib.load(folder / item["label"]) for item in content["training"] + content["testing"]]
    assert {label.get_data_dtype() for label in labels} == {np.dtype(np.uint8)}
    assert set(np.unique([label.dataobj for label in labels])) == {0, 1, 2, 3}


def test_brains_without_tumours_are_a_share_of_training_and_the_last_of_testing(brains):
    found = {split: [item["image_label"] for item in brains[1][split]] for split in SPLITS}
    assert found == {"training": [0, 1, 0, 1], "validation": [1, 1], "testing": [1, 1, 0, 0]}
    for item in [item for split in SPLITS for item in brains[1][split]]:
        assert voxels(brains[0] / item["label"]).any() == item["image_label"]


def test_names_of_brains_are_those_of_their_cases(brains):
    for split in SPLITS:
        cases = [f"{split}_a_{i:03d}" for i in range(len(brains[1][split]))]
        assert [item["case"] for item in brains[1][split]] == cases
        assert [item["patient"] for item in brains[1][split]] == cases


def test_the_twin_of_a_brain_differs_by_its_tumour_alone(brains):
    folder, content = brains
    for item in content["testing"]:
        for name, sequence in zip(item["image"], SEQUENCES, strict=True):
            twin = voxels(folder / f"{item['case']}_twin_{sequence}.nii.gz")
            assert (voxels(folder / name) != twin).any() == item["image_label"]


def test_by_default_brains_have_no_twins_and_healthy_patients_are_for_training_alone(tmp_path):
    content = run(tmp_path, "--training", "2", "--testing", "1", phantom="brain_mr", size=SMALL_BRAIN)
    assert [item["image_label"] for item in content["training"] + content["testing"]] == [0, 1, 1]
    assert len(list(tmp_path.glob("*.nii.gz"))) == 3 * (len(SEQUENCES) + 1)


def test_a_brain_is_the_same_in_a_larger_data_set_and_on_another_scanner(brains, tmp_path):
    for scanner in "ab":
        run(tmp_path, "--testing", "1", "--scanner", scanner, phantom="brain_mr", size=SMALL_BRAIN)
    name = "testing_a_000_t2.nii.gz"
    assert (tmp_path / name).read_bytes() == (brains[0] / name).read_bytes()
    label = voxels(tmp_path / "testing_a_000_label.nii.gz")
    np.testing.assert_array_equal(voxels(tmp_path / "testing_b_000_label.nii.gz"), label)


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    """A data set of chest films with patients in all splits: its folder and what its ``dataset.json`` says."""
    folder = tmp_path_factory.mktemp("chests")
    counts = ["--training", "4", "--validation", "2", "--testing", "2"]
    return folder, run(folder, *counts, phantom="chest_xray", size=SMALL_CHEST)


def test_half_of_each_split_of_chests_has_an_effusion(chests):
    folder, content = chests
    found = {split: [item["image_label"] for item in content[split]] for split in SPLITS}
    assert found == {"training": [0, 1, 0, 1], "validation": [0, 1], "testing": [0, 1]}
    for item in [item for split in SPLITS for item in content[split]]:
        assert np.asarray(Image.open(folder / item["label"])).any() == item["image_label"]


def test_any_share_of_each_split_of_chests_can_be_healthy(tmp_path):
    options = ["--training", "4", "--testing", "4", "--healthy_share", "0.25", "--healthy_testing", "1"]
    content = run(tmp_path, *options, phantom="chest_xray", size=SMALL_CHEST)
    found = {split: [item["image_label"] for item in content[split]] for split in SPLITS}
    assert found == {"training": [0, 1, 1, 1], "validation": [], "testing": [0, 1, 1, 1, 0]}


def test_the_twin_of_a_film_differs_by_its_effusion_alone(tmp_path):
    run(tmp_path, "--testing", "2", "--twins", phantom="chest_xray", size=SMALL_CHEST)
    paths = [tmp_path / f"testing_a_001{ending}.png" for ending in ("", "_twin", "_label")]
    film, twin, label = (np.asarray(Image.open(path)) for path in paths)
    assert (film[label > 0] != twin[label > 0]).any()
    np.testing.assert_array_equal(film[label == 0], twin[label == 0])


def test_a_film_hangs_with_the_head_up_and_the_patients_right_on_its_left(chests):
    folder, content = chests
    item = content["testing"][1]
    expected = chest_xray(FIRST_TESTING_SEED + 1, (24, 28), (16.0, 16.0), diseased=True)
    film, label = (Image.open(folder / item[key]) for key in ("image", "label"))
    assert (film.mode, film.size) == ("L", (24, 28))
    np.testing.assert_array_equal(np.asarray(film)[0, 0], expected.image[-1, -1])
    np.testing.assert_array_equal(np.asarray(film)[::-1, ::-1].T, expected.image)
    np.testing.assert_array_equal(np.asarray(label)[::-1, ::-1].T, 255 * expected.effusion)


def test_names_of_films_are_those_of_their_cases(chests):
    item = chests[1]["validation"][0]
    assert item["case"] == item["patient"] == "validation_a_000"
    assert (item["image"], item["label"]) == ("validation_a_000.png", "validation_a_000_label.png")


def test_a_film_is_the_same_in_a_larger_data_set_and_another_on_another_scanner(chests, tmp_path):
    for scanner in "ab":
        run(tmp_path, "--testing", "1", "--scanner", scanner, phantom="chest_xray", size=SMALL_CHEST)
    film = (tmp_path / "testing_a_000.png").read_bytes()
    assert film == (chests[0] / "testing_a_000.png").read_bytes()
    assert film != (tmp_path / "testing_b_000.png").read_bytes()


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(tmp_path):
    for workers in ("1", "2"):
        options = ["--dst", str(tmp_path / workers), "--testing", "3", "--num_workers", workers, *SMALL]
        command = [sys.executable, "-m", "common.phantoms", "abdomen_ct", *options]
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_labels_may_have_the_organ_and_its_lesions(tmp_path):
    apart, both = tmp_path / "apart", tmp_path / "both"
    run(apart, "--testing", "1", phantom="liver_tumour_ct")
    said = run(both, "--testing", "1", "--both_labels", phantom="liver_tumour_ct")
    (item,) = said["testing"]
    assert "organ" not in item
    organ, lesions = (voxels(apart / f"testing_a_000_{name}.nii.gz") for name in ("organ", "label"))
    np.testing.assert_array_equal(voxels(both / item["label"]), organ + lesions)
    assert item["image_label"] == 1
    assert said["labels"] == {"0": "background", "1": "organ", "2": "tumour"}


def test_labels_without_an_organ_cannot_have_both(tmp_path):
    with pytest.raises(ValueError, match="both_labels is for phantoms of an organ"):
        run(tmp_path / "out", "--testing", "1", "--both_labels", phantom="brain_mr", size=SMALL_BRAIN)


def test_brains_of_several_sites_have_their_site_and_class(tmp_path):
    cells = '{"training": {"S1": [1, 2], "HCP": [2, 0]}, "validation": {}, "testing": {"S1": [2, 2]}}'
    said = run(tmp_path, "--cells", cells, phantom="multisite_brain", size=[])
    trained = [(item["site"], item["image_label"]) for item in said["training"]]
    assert trained == [("S1", 0), ("S1", 1), ("S1", 1), ("HCP", 0), ("HCP", 0)]
    for item in said["testing"]:
        assert voxels(tmp_path / item["label"]).any() == item["image_label"]
    assert list_cases(str(tmp_path), modality="mr", sequences=None, progress=False)[0]["site"] == "S1"


def test_scanners_may_have_patients_of_one_class(tmp_path):
    cells = '{"training": {"a": [1, 1], "b": [0, 2], "c": [1, 0]}, "testing": {"c": [1, 0]}}'
    said = run(tmp_path, "--cells", cells, phantom="brain_mr", size=SMALL_BRAIN)
    trained = [(item["case"], item["site"], item["image_label"]) for item in said["training"]]
    assert trained == [
        ("training_a_000", "a", 0),
        ("training_a_001", "a", 1),
        ("training_b_002", "b", 1),
        ("training_b_003", "b", 1),
        ("training_c_004", "c", 0),
    ]
    for item in said["training"]:
        assert voxels(tmp_path / item["label"]).any() == item["image_label"]


def test_ellipses_have_their_twin_where_it_is_asked_for(tmp_path):
    well, ill = run(tmp_path, "--training", "2", "--twins", "True", phantom="ellipses", size=[])["training"]
    assert [item["image_label"] for item in (well, ill)] == [0, 1]
    image, twin, label = (voxels(tmp_path / ill[key]) for key in ("image", "twin", "label"))
    assert image.shape == (64, 64)
    assert np.abs(twin - image)[label > 0].min() > np.abs(twin - image)[label == 0].mean()
    alone = run(tmp_path / "alone", "--training", "1", phantom="ellipses", size=[])
    assert "twin" not in alone["training"][0]


def test_ellipses_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"square, and of scanner a or b, got \[64, 32\] and 'a'"):
        run(tmp_path, "--training", "1", phantom="ellipses", size=["--shape", "64,32"])


def test_training_patients_can_be_dealt_into_folds(tmp_path):
    parts = [run(tmp_path / str(k), "--training", "5", "--fold", str(k), "--folds", "2") for k in range(2)]
    names = [[[item["patient"] for item in part[split]] for split in ("training", "testing")] for part in parts]
    assert names[0][0] == names[1][1] == ["training_a_001", "training_a_003"]
    assert names[0][1] == names[1][0]
    with pytest.raises(ValueError, match="fold must be one of 0 to 1, got 2"):
        run(tmp_path / "2", "--training", "5", "--fold", "2", "--folds", "2")
