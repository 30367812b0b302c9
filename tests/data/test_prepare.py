import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ci.dicom_series import write_series
from common.data.cases import list_cases
from common.data.prepare import SliceCounts, count_slices, main, prepare, split_patients
from common.data.sources import SOURCES
from common.data.sources.scans import Channel, Volume
from common.phantoms.abdomen_ct import ORGANS, abdomen_ct

MIN_ORGAN_PIXELS = 50
AFFINE = np.diag([9.0, 9.0, 12.0, 1.0])


@cache
def patient(seed, num_lesions=None):
    return abdomen_ct(seed, shape=(40, 32, 6), spacing=(9, 9, 12), num_lesions=num_lesions)


def liver(ct):
    return (ct.organs == ORGANS["liver"]).astype(np.uint8)


def lesions(ct):
    return (ct.lesions > 0).astype(np.uint8)


def annotation(ct):
    return liver(ct) + lesions(ct)


def save(voxels, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def write_lits(src, numbers, batch="Training Batch 1", extension=".nii"):
    for n in numbers:
        ct = patient(n % 4)
        save(ct.image, src / batch / f"volume-{n}{extension}")
        save(annotation(ct), src / batch / f"segmentation-{n}{extension}")
    return src


def write_msd(src, cases=("liver_0", "liver_1", "liver_2")):
    for seed, case in enumerate(cases):
        ct = patient(seed)
        save(ct.image, src / "imagesTr" / f"{case}.nii.gz")
        save(annotation(ct), src / "labelsTr" / f"{case}.nii.gz")
        for folder in ("imagesTr", "labelsTr"):
            (src / folder / f"._{case}.nii.gz").write_bytes(b"\0\5\x16\7 macOS")
    save(patient(3).image, src / "imagesTs" / "liver_9.nii.gz")
    (src / "dataset.json").write_text('{"name": "Liver", "test": ["./imagesTs/liver_9.nii.gz"]}')
    return src


def write_ircad(src, number, ct, tumour_folders=("livertumor01", "livertumor02")):
    folder = src / f"3Dircadb1.{number}"
    write_series(folder / "PATIENT_DICOM", ct.image, AFFINE)
    masks = {"liver": liver(ct), "rightkidney": (ct.organs == ORGANS["kidney_right"])}
    for i, name in enumerate(tumour_folders):
        masks[name] = (ct.lesions > 0) & (ct.lesions % len(tumour_folders) == i)
    for name, mask in masks.items():
        write_series(folder / "MASKS_DICOM" / name, (mask > 0).astype(np.uint8) * np.uint8(255), AFFINE)
    return folder


def zip_up(folder, name):
    """Replace a folder by the zip file that is downloaded."""
    shutil.make_archive(str(folder / name), "zip", folder, name)
    shutil.rmtree(folder / name)


def run(source, src, dst, **options):
    """Prepare and return what ``dataset.json`` says."""
    prepare(source, str(src), str(dst), min_organ_pixels=MIN_ORGAN_PIXELS, **options)
    return json.loads((dst / "dataset.json").read_text())


def run_with_failures(source, src, dst, **options):
    """Prepare and return the summary that the program ends with, and what ``dataset.json`` says."""
    with pytest.raises(SystemExit) as ended:
        run(source, src, dst, **options)
    return ended.value.code, json.loads((dst / "dataset.json").read_text())


def cases(dataset, *parts):
    return sorted(item["case"] for part in parts or ("training", "validation", "testing") for item in dataset[part])


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def lits(tmp_path_factory):
    """LiTS as it is laid out, prepared: the folder and what its ``dataset.json`` says."""
    root = tmp_path_factory.mktemp("lits")
    write_lits(root / "src", range(4))
    write_lits(root / "src", (28, 29), "Training_Batch2/media/nas/01_Datasets/CT/LITS/Training Batch 2")
    return root / "dst", run("lits", root / "src", root / "dst")


def test_lits_is_found_in_all_its_batches(lits):
    assert cases(lits[1]) == sorted(f"volume-{n}" for n in (0, 1, 2, 3, 28, 29))


def test_what_is_prepared_passes_the_checks_of_a_run(lits):
    listed = [case for part in ("training", "validation", "testing") for case in list_cases(str(lits[0]), part)]
    assert len(listed) == 6


def test_the_organ_is_the_liver_with_its_lesions(lits):
    np.testing.assert_array_equal(voxels(lits[0] / "organs" / "volume-2.nii.gz"), liver(patient(2)))


def test_the_label_is_the_lesions(lits):
    np.testing.assert_array_equal(voxels(lits[0] / "labels" / "volume-2.nii.gz"), lesions(patient(2)))


def test_masks_are_uint8(lits):
    assert nib.load(lits[0] / "labels" / "volume-2.nii.gz").get_data_dtype() == np.uint8


def test_masks_have_the_affine_of_the_image(lits):
    np.testing.assert_array_equal(nib.load(lits[0] / "organs" / "volume-2.nii.gz").affine, AFFINE)


def test_an_item_has_the_keys_that_runs_read(lits):
    (item,) = [
        item for part in ("training", "validation", "testing") for item in lits[1][part] if item["case"][-2:] == "28"
    ]
    assert item == {
        "case": "volume-28",
        "patient": "volume-28",
        "image": "images/volume-28.nii",
        "organ": "organs/volume-28.nii.gz",
        "label": "labels/volume-28.nii.gz",
        "image_label": 1,
    }


def test_dataset_json_says_what_it_is(lits):
    head = {key: lits[1][key] for key in ("name", "modality", "seed", "split")}
    assert head == {"name": "LiTS", "modality": {"0": "CT"}, "seed": 0, "split": "patient"}


def test_lits_may_lie_flat_and_packed(tmp_path):
    write_lits(tmp_path / "src", (0, 1, 2), batch=".", extension=".nii.gz")
    assert cases(run("lits", tmp_path / "src", tmp_path / "dst")) == ["volume-0", "volume-1", "volume-2"]


def test_the_scans_of_ircad_can_be_left_out_of_lits(tmp_path):
    write_lits(tmp_path / "src", (26, 27, 28, 47, 48))
    dataset = run("lits", tmp_path / "src", tmp_path / "dst", exclude_ircad=True)
    assert cases(dataset) == ["volume-26", "volume-27", "volume-48"]


def test_an_identity_affine_is_warned_of(tmp_path, caplog):
    save(patient(0).image, tmp_path / "src" / "volume-28.nii", np.eye(4))
    save(annotation(patient(0)), tmp_path / "src" / "segmentation-28.nii", np.eye(4))
    run("lits", tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))
    assert "volume-28: its affine is the identity" in caplog.text


def test_a_healthy_volume_has_image_label_0(tmp_path):
    ct = patient(5, 0)
    save(ct.image, tmp_path / "src" / "volume-0.nii")
    save(annotation(ct), tmp_path / "src" / "segmentation-0.nii")
    (item,) = run("lits", tmp_path / "src", tmp_path / "dst", fractions=(1, 0, 0))["training"]
    assert item["image_label"] == 0


def test_two_files_of_one_volume_are_refused(tmp_path):
    write_lits(tmp_path / "src", (0,))
    write_lits(tmp_path / "src", (0,), batch="Training Batch 2")
    with pytest.raises(ValueError, match="expected one file called segmentation-0"):
        run("lits", tmp_path / "src", tmp_path / "dst")


def test_msd_liver_is_prepared_without_the_files_macos_adds_and_those_without_labels(tmp_path):
    dataset = run("msd_liver", write_msd(tmp_path / "src"), tmp_path / "dst")
    assert cases(dataset) == ["liver_0", "liver_1", "liver_2"]


def test_all_patients_of_ircad_are_for_testing(tmp_path):
    for number in (1, 2, 10):
        write_ircad(tmp_path / "src" / "3Dircadb1", number, patient(number % 4))
    dataset = run("ircad", tmp_path / "src", tmp_path / "dst")
    assert cases(dataset, "testing") == ["3Dircadb1.1", "3Dircadb1.10", "3Dircadb1.2"]


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "zip files"])
def test_the_tumours_of_an_ircad_patient_are_joined(tmp_path, packed):
    folder = write_ircad(tmp_path / "src", 1, patient(2))
    for name in ("PATIENT_DICOM", "MASKS_DICOM") if packed else ():
        zip_up(folder, name)
    run("ircad", tmp_path / "src", tmp_path / "dst")
    label = nib.load(tmp_path / "dst" / "labels" / "3Dircadb1.1.nii.gz")
    np.testing.assert_array_equal(nib.as_closest_canonical(label).dataobj, lesions(patient(2)))


def test_folders_that_unpacking_nested_are_found(tmp_path):
    folder = write_ircad(tmp_path / "src", 1, patient(2))
    for name in ("PATIENT_DICOM", "MASKS_DICOM"):
        (folder / name).rename(folder / "nested")
        (folder / name).mkdir()
        (folder / "nested").rename(folder / name / name)
    assert cases(run("ircad", tmp_path / "src", tmp_path / "dst")) == ["3Dircadb1.1"]


def test_the_adrenal_tumour_of_an_ircad_patient_is_no_lesion_of_the_liver(tmp_path):
    write_ircad(tmp_path / "src", 7, patient(2), tumour_folders=("tumor",))
    (item,) = run("ircad", tmp_path / "src", tmp_path / "dst")["testing"]
    assert item["image_label"] == 0


def test_converted_images_keep_values_and_places(tmp_path):
    write_ircad(tmp_path / "src", 1, patient(2))
    run("ircad", tmp_path / "src", tmp_path / "dst")
    image = nib.as_closest_canonical(nib.load(tmp_path / "dst" / "images" / "3Dircadb1.1.nii.gz"))
    np.testing.assert_array_equal(image.dataobj, patient(2).image)


def test_ircad_can_be_marked_for_testing_on_slices_with_lesions(tmp_path):
    write_ircad(tmp_path / "src", 1, patient(2))
    (item,) = run("ircad", tmp_path / "src", tmp_path / "dst", split="slice")["testing"]
    assert item["slices"] == "lesion"


def spoil_zip(masks):
    zip_up(masks.parent, "MASKS_DICOM")
    (masks.parent / "MASKS_DICOM.zip").write_bytes(b"PK")


def spoil_mask_grid(masks):
    write_series(masks / "liver", np.full((8, 8, 6), 255, np.uint8), AFFINE)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda masks: shutil.rmtree(masks / "liver"), "liver: expected a mask of the liver, got none"),
        (spoil_mask_grid, "liver: expected the grid of"),
        (lambda masks: next((masks / "livertumor01").iterdir()).unlink(), "livertumor01: expected"),
        (spoil_zip, "MASKS_DICOM.zip: expected a readable zip file"),
        (lambda masks: shutil.rmtree(masks), "MASKS_DICOM: expected a folder or a zip file"),
    ],
    ids=["no liver", "other grid", "missing slice", "damaged zip", "no masks"],
)
def test_a_bad_ircad_patient_is_named(tmp_path, spoil, reason):
    write_ircad(tmp_path / "src", 1, patient(1))
    spoil(write_ircad(tmp_path / "src", 2, patient(2)) / "MASKS_DICOM")
    summary, _ = run_with_failures("ircad", tmp_path / "src", tmp_path / "dst")
    assert re.search(rf"3Dircadb1.2: .*{reason}", summary)


def test_beside_a_bad_ircad_patient_the_others_are_prepared(tmp_path):
    write_ircad(tmp_path / "src", 1, patient(1))
    shutil.rmtree(write_ircad(tmp_path / "src", 2, patient(2)) / "MASKS_DICOM")
    _, dataset = run_with_failures("ircad", tmp_path / "src", tmp_path / "dst")
    assert cases(dataset) == ["3Dircadb1.1"]


def test_a_bad_file_in_a_zip_file_is_named_by_the_patients_folder(tmp_path):
    folder = write_ircad(tmp_path / "src", 1, patient(1))
    write_ircad(tmp_path / "src", 2, patient(2))
    next((folder / "PATIENT_DICOM").iterdir()).write_bytes(bytes(128) + b"DICM")
    zip_up(folder, "PATIENT_DICOM")
    summary, _ = run_with_failures("ircad", tmp_path / "src", tmp_path / "dst")
    assert f"{folder}/PATIENT_DICOM/" in summary


def write_nifti_folder(src):
    a, b, c = (patient(seed) for seed in range(3))
    save(a.image, src / "a.nii")
    save(liver(a), src / "a_liver.nii.gz")
    save(lesions(a), src / "a_label.nii")
    save(b.image, src / "b.nii.gz")
    save(liver(b), src / "b_organ.nii.gz")
    save(c.image, src / "c.nii.gz")
    return src


def test_a_folder_of_nifti_files_takes_the_masks_beside_them(tmp_path):
    dataset = run("nifti", write_nifti_folder(tmp_path / "src"), tmp_path / "dst", fractions=(0, 0, 1))
    masks = [sorted({"organ", "label", "image_label"} & set(item)) for item in dataset["testing"]]
    assert masks == [["image_label", "label", "organ"], ["organ"], []]


def test_cases_without_a_mask_of_lesions_are_warned_of_in_training(tmp_path, caplog):
    run("nifti", write_nifti_folder(tmp_path / "src"), tmp_path / "dst", fractions=(1, 0, 0))
    assert "taken as healthy in training, as no mask shows their lesions: b, c." in caplog.text


def test_lesions_outside_the_mask_of_the_organ_are_added_to_it(tmp_path):
    src = write_nifti_folder(tmp_path / "src")
    save(liver(patient(0)) - lesions(patient(0)), src / "a_liver.nii.gz")
    run("nifti", src, tmp_path / "dst")
    np.testing.assert_array_equal(voxels(tmp_path / "dst" / "organs" / "a.nii.gz"), liver(patient(0)))


def test_a_mask_without_its_image_is_named(tmp_path):
    src = write_nifti_folder(tmp_path / "src")
    (src / "a.nii").unlink()
    summary, _ = run_with_failures("nifti", src, tmp_path / "dst")
    assert "a.nii.gz: expected a NIfTI file, got none there." in summary


def write_dicom_folder(src):
    """Write one series in a folder, two of one patient in another, and one that is not even."""
    write_series(src / "Ärztin" / "CT 5 mm", patient(0).image, AFFINE, uid="1.1")
    write_series(src / "two", patient(1).image, AFFINE, uid="1.2", PatientID="X")
    write_series(src / "two", patient(2).image, AFFINE, uid="1.3", PatientID="X", name="b{}")
    write_series(src / "holes", patient(3).image, AFFINE, uid="1.4")[2].unlink()
    return src


def test_dicom_series_are_told_apart_by_folder_and_uid(tmp_path):
    _, dataset = run_with_failures("dicom", write_dicom_folder(tmp_path / "src"), tmp_path / "dst", fractions=(0, 0, 1))
    assert cases(dataset) == ["two_1.2", "two_1.3", "Ärztin_CT 5 mm"]


def test_a_dicom_series_with_a_hole_is_named(tmp_path):
    summary, _ = run_with_failures("dicom", write_dicom_folder(tmp_path / "src"), tmp_path / "dst", fractions=(0, 0, 1))
    assert "holes: expected slices every 12 mm" in summary


def test_series_of_one_patient_have_one_patient(tmp_path):
    _, dataset = run_with_failures("dicom", write_dicom_folder(tmp_path / "src"), tmp_path / "dst", fractions=(0, 0, 1))
    assert len({item["patient"] for item in dataset["testing"]}) == 2


def test_two_cases_of_one_name_are_refused_and_others_prepared(tmp_path):
    for folder in ("a/b", "a_b"):
        write_series(tmp_path / "src" / folder, patient(0).image, AFFINE)
    write_series(tmp_path / "src" / "c", patient(0).image, AFFINE)
    with pytest.raises(SystemExit, match="a_b: expected a case of a name of its own"):
        run("dicom", tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))
    assert [item["case"] for item in json.loads((tmp_path / "dst/dataset.json").read_text())["testing"]] == ["c"]


def write_dicom_with_a_damaged_header(src):
    path = next((write_dicom_folder(src) / "two").iterdir())
    path.write_bytes(path.read_bytes()[:200])
    return path


def test_a_dicom_file_with_a_damaged_header_is_named(tmp_path):
    path = write_dicom_with_a_damaged_header(tmp_path / "src")
    summary, _ = run_with_failures("dicom", tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))
    assert f"two: {path}: expected a DICOM image" in summary


def test_a_dicom_file_with_a_damaged_header_spoils_its_folder_only(tmp_path):
    write_dicom_with_a_damaged_header(tmp_path / "src")
    _, dataset = run_with_failures("dicom", tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))
    assert cases(dataset) == ["Ärztin_CT 5 mm"]


@pytest.mark.parametrize("source", ["dicom", "ircad"])
def test_without_the_dicom_extra_one_sentence_says_what_to_install(tmp_path, monkeypatch, source):
    write_ircad(tmp_path / "src", 1, patient(2))
    monkeypatch.setitem(sys.modules, "pydicom", None)  # import then raises ModuleNotFoundError
    with pytest.raises(ImportError, match=r'pip install "monai-diffusion-bundles\[dicom\]"'):
        run(source, tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))


def spoil_truncated(volume, segmentation):
    volume.write_bytes(volume.read_bytes()[:3000])


def spoil_text(volume, segmentation):
    volume.write_text("404: not found")


def spoil_nan(volume, segmentation):
    image = patient(1).image.astype(np.float32)
    image[3, 4, 2] = np.nan
    save(image, volume)


def spoil_frames(volume, segmentation):
    save(np.stack([patient(1).image] * 2, -1), volume)


def spoil_modality(volume, segmentation):
    save(patient(1).image + np.int16(2000), volume)


def spoil_constant(volume, segmentation):
    save(np.full((40, 32, 6), -1000, np.int16), volume)


def spoil_grid(volume, segmentation):
    save(annotation(patient(1))[:, :, :5], segmentation)


def spoil_affine(volume, segmentation):
    save(annotation(patient(1)), segmentation, np.diag([9, 9, 5, 1]))


def spoil_values(volume, segmentation):
    save(annotation(patient(1)) * np.uint8(3), segmentation)


def spoil_liver(volume, segmentation):
    save(np.zeros((40, 32, 6), np.uint8), segmentation)


def spoil_no_segmentation(volume, segmentation):
    segmentation.unlink()


def spoil_no_volume(volume, segmentation):
    volume.unlink()


SPOILED = {
    spoil_truncated: "volume-1.nii: expected a readable NIfTI file",
    spoil_text: "volume-1.nii: expected a readable NIfTI file",
    spoil_nan: "volume-1.nii: expected finite values, got 1 voxels NaN",
    spoil_frames: "volume-1.nii: expected a slice or a volume, got 4 axes",
    spoil_modality: "volume-1.nii: expected a CT in Hounsfield units",
    spoil_constant: "volume-1.nii: expected an image, got the same value -1000",
    spoil_grid: "segmentation-1.nii: expected the grid of",
    spoil_affine: "segmentation-1.nii: expected the affine of",
    spoil_values: "segmentation-1.nii: expected a mask of the values 0, 1, 2, got also 3",
    spoil_liver: "segmentation-1.nii: expected a mask of the liver, got an empty one",
    spoil_no_segmentation: "segmentation-1.nii: expected a NIfTI file, got none there",
    spoil_no_volume: "volume-1.nii: expected a NIfTI file, got none there",
}


def run_spoiled(tmp_path, spoil):
    folder = write_lits(tmp_path / "src", (0, 1, 2)) / "Training Batch 1"
    spoil(folder / "volume-1.nii", folder / "segmentation-1.nii")
    return run_with_failures("lits", tmp_path / "src", tmp_path / "dst")


@pytest.mark.parametrize(("spoil", "reason"), SPOILED.items())
def test_a_bad_file_is_named_with_the_reason(tmp_path, spoil, reason):
    assert reason in run_spoiled(tmp_path, spoil)[0]


@pytest.mark.parametrize("spoil", SPOILED)
def test_beside_a_bad_file_the_other_cases_are_prepared(tmp_path, spoil):
    assert cases(run_spoiled(tmp_path, spoil)[1]) == ["volume-0", "volume-2"]


def test_if_no_case_is_good_an_earlier_dataset_json_stays(tmp_path):
    write_lits(tmp_path / "src", (0,))
    run("lits", tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))
    (tmp_path / "src" / "Training Batch 1" / "volume-0.nii").write_text("")
    assert cases(run_with_failures("lits", tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))[1]) == ["volume-0"]


def command_line(tmp_path):
    """Write two volumes, one of them bad, and return the arguments that prepare them."""
    src = write_lits(tmp_path / "Daten von März", (0, 1))
    (src / "Training Batch 1" / "segmentation-1.nii").write_text("")
    return ["lits", "--src", str(src), "--dst", str(tmp_path / "LiTS ✓"), "--fractions", "0,0,1", "--link", "copy"]


@pytest.mark.slow
def test_the_program_ends_with_status_1_if_a_file_is_bad(tmp_path):
    command = [sys.executable, "-m", "common.data.prepare", *command_line(tmp_path)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == 1


def test_the_command_ends_with_a_summary_if_a_file_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare", *command_line(tmp_path)])
    with pytest.raises(
        SystemExit, match=r"1 of the cases could not be done:\n  volume-1: .*segmentation-1.nii: expected"
    ):
        main()


def test_the_command_prepares_folders_with_spaces_and_unicode(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare", *command_line(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert len(list_cases(str(tmp_path / "LiTS ✓"))) == 1


def test_the_command_ends_with_one_sentence_if_there_is_nothing_to_prepare(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare", "nifti", str(tmp_path / "no"), str(tmp_path / "dst")])
    with pytest.raises(SystemExit, match="no: expected a folder, got none there"):
        main()


def test_a_misspelt_option_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare", *command_line(tmp_path), "--fraction", "1,0,0"])
    with pytest.raises(SystemExit, match=r"expected options .*, got --fraction"):
        main()


def test_running_it_twice_gives_the_same_bytes(tmp_path):
    write_lits(tmp_path / "src", (0, 1, 2))
    run("lits", tmp_path / "src", tmp_path / "dst")
    first = contents(tmp_path / "dst")
    run("lits", tmp_path / "src", tmp_path / "dst")
    assert contents(tmp_path / "dst") == first


def test_two_conversions_of_dicom_give_the_same_bytes(tmp_path):
    write_ircad(tmp_path / "src", 1, patient(2))
    for dst in ("a", "b"):
        run("ircad", tmp_path / "src", tmp_path / dst)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def image_after(tmp_path, link, runs=1):
    write_lits(tmp_path / "src", (0,))
    for _ in range(runs):
        run("lits", tmp_path / "src", tmp_path / "dst", link=link, fractions=(0, 0, 1))
    return tmp_path / "dst" / "images" / "volume-0.nii", tmp_path / "src" / "Training Batch 1" / "volume-0.nii"


def test_images_are_symlinks_by_default(tmp_path):
    write_lits(tmp_path / "src", (0,))
    run("lits", tmp_path / "src", tmp_path / "dst", fractions=(0, 0, 1))
    assert (tmp_path / "dst" / "images" / "volume-0.nii").is_symlink()


def test_symlinks_lead_to_a_relative_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lits(Path("src"), (0,))
    run("lits", "src", Path("dst"), fractions=(0, 0, 1))
    np.testing.assert_array_equal(voxels("dst/images/volume-0.nii"), patient(0).image)


def test_hardlinked_images_are_the_file_itself(tmp_path):
    image, original = image_after(tmp_path, "hardlink")
    assert image.samefile(original)


def test_copied_images_are_files_of_their_own(tmp_path):
    image, original = image_after(tmp_path, "copy")
    assert not image.samefile(original)


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_no_temporary_files_stay(tmp_path, link):
    image, _ = image_after(tmp_path, link, runs=2)
    assert [path.name for path in image.parent.iterdir()] == ["volume-0.nii"]


def test_where_links_are_impossible_images_are_copied_and_the_log_says_so(tmp_path, caplog):
    other_disk = Path("/dev/shm")
    if not other_disk.is_dir() or other_disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems, as hard links cannot lead from one to another")
    src = other_disk / tmp_path.parent.name / tmp_path.name
    try:
        write_lits(src, (0,))
        run("lits", src, tmp_path / "dst", link="hardlink", fractions=(0, 0, 1))
    finally:
        shutil.rmtree(src.parent)
    assert "is copied, as no hardlink is possible" in caplog.text


def test_each_patient_is_in_one_part():
    patients = [f"patient {i // 2}" for i in range(40)]
    assert sorted(split_patients(patients, (0.7, 0.1, 0.2), 0)) == sorted(set(patients))


def test_parts_have_the_sizes_of_the_fractions():
    parts = list(split_patients(map(str, range(130)), (0.7, 0.1, 0.2), 0).values())
    assert [parts.count(part) for part in ("training", "validation", "testing")] == [91, 13, 26]


def test_each_part_gets_a_patient_of_three():
    assert len(set(split_patients("abc", (0.9, 0.05, 0.05), 0).values())) == 3


def test_the_split_does_not_depend_on_the_order_of_the_patients():
    patients = [f"volume-{i}" for i in range(20)]
    assert split_patients(patients, (0.7, 0.1, 0.2), 3) == split_patients(patients[::-1], (0.7, 0.1, 0.2), 3)


def test_the_split_of_a_seed_is_the_same_everywhere():
    parts = split_patients([f"volume-{i}" for i in range(10)], (0.7, 0.1, 0.2), 0)
    assert {patient for patient, part in parts.items() if part == "testing"} == {"volume-8", "volume-9"}


def test_another_seed_gives_another_split():
    patients = [f"volume-{i}" for i in range(20)]
    assert split_patients(patients, (0.7, 0.1, 0.2), 0) != split_patients(patients, (0.7, 0.1, 0.2), 1)


def test_one_patient_more_moves_few_others():
    before, after = (split_patients(map(str, range(n)), (0.7, 0.1, 0.2), 0) for n in (100, 101))
    assert sum(part != after[patient] for patient, part in before.items()) <= 2


@pytest.mark.parametrize("number", [20, 22])
def test_folds_test_each_patient_once(number):
    patients = [f"volume-{i}" for i in range(number)]
    tested = []
    for fold in range(4):
        parts = split_patients(patients, (0.65, 0.1, 0.25), 0, fold)
        assert set(parts) == set(patients)
        assert list(parts.values()).count("validation") == 2
        tested += [patient for patient, part in parts.items() if part == "testing"]
    assert sorted(tested) == sorted(patients)


@pytest.mark.parametrize(
    ("fractions", "fold", "last"), [((0.65, 0.1, 0.25), 4, 3), ((0.65, 0.1, 0.25), -1, 3), ((0.9, 0.1, 0), 1, 0)]
)
def test_a_fold_that_there_is_not_is_refused(fractions, fold, last):
    with pytest.raises(ValueError, match=f"fold must be one of 0 to {last}, as"):
        split_patients(map(str, range(20)), fractions, 0, fold)


def test_fewer_patients_than_parts_are_refused():
    with pytest.raises(ValueError, match="expected a patient at least for each part"):
        split_patients("ab", (0.7, 0.1, 0.2), 0)


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), 1, "all", ("a", "b", "c")])
def test_fractions_that_do_not_make_a_split_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions must be three numbers"):
        split_patients("abc", fractions, 0)


def test_two_series_of_a_patient_are_in_the_same_part(tmp_path):
    src = write_dicom_folder(tmp_path / "src")
    shutil.rmtree(src / "holes")
    write_series(src / "third", patient(3).image, AFFINE, uid="1.5", PatientID="Z")
    dataset = run("dicom", src, tmp_path / "dst")
    parts = {part for part in ("training", "validation", "testing") for item in dataset[part] if "two" in item["case"]}
    assert len(parts) == 1


@pytest.fixture(scope="module")
def slice_split(tmp_path_factory):
    """Four volumes with lesions and a healthy one, split by slices."""
    root = tmp_path_factory.mktemp("slices")
    write_lits(root / "src", range(4))
    save(patient(5, 0).image, root / "src" / "volume-5.nii")
    save(annotation(patient(5, 0)), root / "src" / "segmentation-5.nii")
    return run("lits", root / "src", root / "dst", split="slice")


def test_a_slice_split_trains_on_all_patients(slice_split):
    assert len(slice_split["training"]) == 5


def test_a_slice_split_tests_on_all_patients_with_lesions(slice_split):
    assert cases(slice_split, "testing") == ["volume-0", "volume-1", "volume-2", "volume-3"]


def test_a_slice_split_validates_on_a_fraction_of_the_patients(slice_split):
    assert len(slice_split["validation"]) == 1


@pytest.mark.parametrize(("part", "slices"), [("training", "healthy"), ("testing", "lesion"), ("validation", None)])
def test_the_items_of_a_slice_split_say_which_slices_they_are_for(slice_split, part, slices):
    assert {item.get("slices") for item in slice_split[part]} == {slices}


def test_a_slice_split_is_said_to_share_patients(slice_split):
    assert "Patients are in both training and testing" in slice_split["description"]


def test_a_slice_split_warns_that_patients_are_shared(tmp_path, caplog):
    run("lits", write_lits(tmp_path / "src", range(3)), tmp_path / "dst", split="slice")
    assert "Patients are in both training and testing" in caplog.text


def write_diseased_lits(src):
    """Write three volumes, of which the second has lesions in each slice of the liver."""
    write_lits(src, range(3))
    everywhere = annotation(patient(1))
    everywhere[everywhere == 1] = 2
    save(everywhere, src / "Training Batch 1" / "segmentation-1.nii")
    return src


def test_cases_without_a_healthy_slice_are_left_out_of_training(tmp_path):
    dataset = run("lits", write_diseased_lits(tmp_path / "src"), tmp_path / "dst", fractions=(1, 0, 0))
    assert cases(dataset) == ["volume-0", "volume-2"]


def test_cases_left_out_of_training_are_listed(tmp_path, caplog):
    run("lits", write_diseased_lits(tmp_path / "src"), tmp_path / "dst", fractions=(1, 0, 0))
    assert "volume-1 is left out of training: it has no healthy slice of the liver." in caplog.text


def test_cases_without_a_healthy_slice_are_tested_on(tmp_path):
    dataset = run("lits", write_diseased_lits(tmp_path / "src"), tmp_path / "dst", fractions=(0, 0, 1))
    assert "volume-1" in cases(dataset, "testing")


LIVER_SLICES = np.zeros((4, 5, 3), dtype=bool)
LIVER_SLICES[:, :, 0], LIVER_SLICES[:2, :2, 1] = True, True
LESION_SLICES = np.zeros_like(LIVER_SLICES)
LESION_SLICES[0, 0, 0] = True


def volume_of(shape, organ=None, label=None, affine=None, diseased=None):
    channel = Channel(np.zeros(shape, np.float32))
    return Volume((channel,), np.eye(4) if affine is None else affine, organ, label, diseased)


@pytest.mark.parametrize(
    ("min_organ_pixels", "counts"),
    [(1, SliceCounts(2, 1, 1)), (4, SliceCounts(2, 1, 1)), (5, SliceCounts(1, 0, 1)), (21, SliceCounts(0, 0, 1))],
)
def test_slices_are_counted(min_organ_pixels, counts):
    assert count_slices(volume_of((4, 5, 3), LIVER_SLICES, LESION_SLICES), min_organ_pixels) == counts


def test_slices_are_axial_whatever_the_order_of_the_axes():
    affine = np.eye(4)[[1, 2, 0, 3]]  # the first axis points to the head
    masks = [np.moveaxis(mask, 2, 0) for mask in (LIVER_SLICES, LESION_SLICES)]
    assert count_slices(volume_of((3, 4, 5), *masks, affine), 4) == SliceCounts(2, 1, 1)


def test_a_single_slice_is_counted():
    masks = [mask[:, :, 0] for mask in (LIVER_SLICES, LESION_SLICES)]
    assert count_slices(volume_of((4, 5), *masks), 4) == SliceCounts(1, 0, 1)


def test_without_masks_all_slices_count_as_healthy():
    assert count_slices(volume_of((4, 5, 3)), 500) == SliceCounts(3, 3, 0)


def test_parts_of_a_lesion_count_once():
    assert count_slices(volume_of((4, 5, 3), LIVER_SLICES, 3 * LESION_SLICES.astype(np.uint8)), 4) == SliceCounts(
        2, 1, 1
    )


def test_slices_of_a_diseased_case_are_not_healthy_where_nobody_drew_its_lesions():
    assert count_slices(volume_of((4, 5, 3), LIVER_SLICES, diseased=True), 4) == SliceCounts(2, 0, 0)


def test_the_log_counts_the_slices_of_a_case(tmp_path, caplog):
    caplog.set_level("INFO")
    run("lits", write_lits(tmp_path / "src", (1,)), tmp_path / "dst", fractions=(0, 0, 1))
    assert "volume-1: 6 slices of the liver, 3 of them healthy, and 3 with lesions." in caplog.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"source": "luna"}, "source must be one of lits, msd_liver, ircad, nifti, dicom, .*, got 'luna'"),
        ({"split": "volume"}, "split must be one of patient, slice, got 'volume'"),
        ({"link": "move"}, "link must be one of symlink, hardlink, copy, got 'move'"),
        ({"source": "nifti", "exclude_ircad": True}, "exclude_ircad is for lits, got source nifti"),
        ({"finding": "Edema"}, "finding is for chexpert, nih, got source lits"),
        ({"source": "chexpert", "split": "slice"}, "split slice is for volumes, got source chexpert"),
        ({"dst": "src/prepared"}, "src and dst must be folders that do not contain each other"),
        ({"dst": "."}, "src and dst must be folders that do not contain each other"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    write_lits(Path("src"), (0, 1, 2))
    with pytest.raises(ValueError, match=reason):
        prepare(**{"source": "lits", "src": "src", "dst": "dst", **options})


@pytest.mark.parametrize("source", SOURCES)
def test_a_folder_without_the_data_set_is_refused(tmp_path, source):
    (tmp_path / "src").mkdir()
    with pytest.raises(FileNotFoundError, match=r"src: expected .*, got none there"):
        run(source, tmp_path / "src", tmp_path / "dst")


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder, got none there"):
        run("lits", tmp_path / "src", tmp_path / "dst")


def test_gzip_headers_hold_no_time(lits):
    packed = (lits[0] / "labels" / "volume-2.nii.gz").read_bytes()
    assert (packed[:2], packed[4:8]) == (b"\x1f\x8b", bytes(4))
