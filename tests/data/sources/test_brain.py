import json
import re

import numpy as np
import pytest
from downloads import (
    AFFINE,
    MODALITY,
    SEQUENCES,
    SHAPE,
    leave_macos_file,
    save,
    sequences,
    tumour,
    write_brats_2020,
    write_brats_2021,
    write_brats_2023,
    write_msd_brain,
)

from common.data.checks import BadFileError
from common.data.sources.brain import find_brats, find_msd_brain

EDITIONS = {
    "2020": lambda src: write_brats_2020(src, 1),
    "2021": lambda src: write_brats_2021(src, 0, tumour(1, 2, 4)),
    "2023": lambda src: write_brats_2023(src, 0, segmentation=tumour(1, 2, 3)),
    "decathlon": lambda src: write_msd_brain(src, (0,)),
}
each_edition = pytest.mark.parametrize("write", EDITIONS.values(), ids=EDITIONS)


def find(src):
    return find_msd_brain(src) if (src / "imagesTr").is_dir() else find_brats(src)


def read(src):
    (scan,) = find(src)
    return scan.read()


@each_edition
def test_sequences_come_in_our_order_whatever_they_are_called(tmp_path, write):
    write(tmp_path)
    volume = read(tmp_path)
    np.testing.assert_array_equal([channel.voxels for channel in volume.channels], list(sequences().values()))


@each_edition
def test_channels_are_named_by_their_sequences(tmp_path, write):
    write(tmp_path)
    assert [channel.ending for channel in read(tmp_path).channels] == ["_t1", "_t1ce", "_t2", "_flair"]


@each_edition
def test_parts_of_the_tumour_are_1_core_2_oedema_3_enhancing(tmp_path, write):
    write(tmp_path)
    np.testing.assert_array_equal(read(tmp_path).label, tumour(1, 2, 3), strict=True)


@each_edition
def test_the_brain_is_where_a_sequence_is_not_0(tmp_path, write):
    write(tmp_path)
    np.testing.assert_array_equal(read(tmp_path).organ, sequences()["t1"] > 0)


def test_sequences_of_brats_are_linked_to_their_files(tmp_path):
    files = write_brats_2021(tmp_path, 0)
    assert [channel.file for channel in read(tmp_path).channels] == list(files.values())


def test_sequences_of_the_decathlon_are_to_be_converted(tmp_path):
    assert [channel.file for channel in read(write_msd_brain(tmp_path)).channels] == [None] * 4


@pytest.mark.parametrize(
    ("write", "case", "patient"),
    [
        (lambda src: write_brats_2020(src, 7), "BraTS20_Training_007", "BraTS20_Training_007"),
        (lambda src: write_brats_2020(src, 7, "Validation"), "BraTS20_Validation_007", "BraTS20_Validation_007"),
        (lambda src: write_brats_2021(src, 7), "BraTS2021_00007", "BraTS2021_00007"),
        (lambda src: write_brats_2023(src, 7, 2), "BraTS-GLI-00007-002", "BraTS-GLI-00007"),
        (lambda src: write_msd_brain(src, (7,)), "BRATS_007", "BRATS_007"),
    ],
    ids=["2020", "2020 validation", "2021", "2023", "decathlon"],
)
def test_cases_have_names_and_patients(tmp_path, write, case, patient):
    write(tmp_path)
    (scan,) = find(tmp_path)
    assert (scan.case, scan.patient) == (case, patient)


def test_cases_are_in_the_order_of_their_names(tmp_path):
    for number, time_point in ((3, 1), (3, 0), (0, 0)):
        write_brats_2023(tmp_path, number, time_point)
    assert [scan.case[-9:] for scan in find_brats(tmp_path)] == ["00000-000", "00003-000", "00003-001"]


def test_finding_reads_nothing(tmp_path):
    files = write_brats_2021(tmp_path, 0)
    files["t2"].write_bytes(b"")
    (scan,) = find_brats(tmp_path)
    with pytest.raises(BadFileError, match=r"BraTS2021_00000_t2.nii.gz: expected a readable NIfTI file"):
        scan.read()


def test_other_files_are_no_cases(tmp_path):
    for path in write_brats_2021(tmp_path, 0).values():
        leave_macos_file(path)
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00001_t1.nii.gz.part").touch()
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00002_brainmask.nii.gz").touch()
    (tmp_path / "name_mapping.csv").touch()
    assert [scan.case for scan in find_brats(tmp_path)] == ["BraTS2021_00000"]


def test_a_folder_within_folders_is_found(tmp_path):
    write_brats_2020(tmp_path / "BraTS2020_TrainingData" / "März 2", 1)
    assert read(tmp_path).label.any()


@pytest.mark.parametrize("name", ["W39_1998.09.19_Segm.nii", "BraTS20_Training_355_seg.nii"])
def test_the_segmentation_of_patient_355_is_found_under_either_name(tmp_path, name):
    segmentation = write_brats_2020(tmp_path, 355)["seg"]
    segmentation.rename(segmentation.with_name(name))
    np.testing.assert_array_equal(read(tmp_path).label, tumour(1, 2, 3))


def test_a_copy_of_the_segmentation_of_patient_355_does_no_harm(tmp_path):
    segmentation = write_brats_2020(tmp_path, 355)["seg"]
    save(np.zeros(SHAPE, np.uint8), segmentation.with_name("W39_1998.09.19_Segm.nii"))
    assert read(tmp_path).label.any()


def test_a_case_without_segmentation_is_diseased_without_a_label(tmp_path):
    write_brats_2020(tmp_path, 1, "Validation")
    volume = read(tmp_path)
    assert (volume.label, volume.image_label) == (None, 1)


def test_an_empty_segmentation_is_believed(tmp_path):
    write_brats_2021(tmp_path, 0, np.zeros(SHAPE, np.uint8))
    assert read(tmp_path).image_label == 0


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_missing_sequence_is_named(tmp_path, sequence):
    write_brats_2021(tmp_path, 0)[sequence].unlink()
    with pytest.raises(BadFileError, match=rf"00000_{sequence}\.nii\.gz: expected a NIfTI file, got none there"):
        read(tmp_path)


def test_a_missing_sequence_of_2023_has_its_name_of_that_year(tmp_path):
    write_brats_2023(tmp_path, 0)["t1ce"].unlink()
    with pytest.raises(BadFileError, match=r"BraTS-GLI-00000-000-t1c.nii.gz: expected a NIfTI file"):
        read(tmp_path)


def test_a_value_that_means_nothing_is_named(tmp_path):
    write_brats_2021(tmp_path, 0, tumour(1, 2, 3))
    with pytest.raises(BadFileError, match=r"seg.nii.gz: expected a mask of the values 0, 1, 2, 4, got also 3\."):
        read(tmp_path)


def test_a_resection_cavity_of_a_later_year_is_named(tmp_path):
    write_brats_2023(tmp_path, 0, segmentation=tumour(1, 2, 4))
    with pytest.raises(BadFileError, match=r"seg.nii.gz: expected a mask of the values 0, 1, 2, 3, got also 4\."):
        read(tmp_path)


def not_finite():
    voxels = sequences()["t2"]
    voxels[2, 2, 1] = np.nan
    return voxels


SPOILED = {
    "other shape": ("t2", np.ones((6, 5, 3)), AFFINE, "_t2.nii.gz: expected the grid of .*_t1.nii.gz, shape"),
    "other place": ("flair", sequences()["flair"], np.eye(4), "_flair.nii.gz: expected the affine of .*_t1.nii.gz"),
    "other grid": ("seg", tumour()[:, :, :3], AFFINE, "_seg.nii.gz: expected the grid of .*_t1.nii.gz, shape"),
    "constant": ("t1ce", np.zeros(SHAPE), AFFINE, "_t1ce.nii.gz: expected an image, got the same value 0 everywhere"),
    "constant first": ("t1", np.ones(SHAPE), AFFINE, "_t1.nii.gz: expected an image, got the same value 1 everywhere"),
    "NaN": ("t2", not_finite(), AFFINE, "_t2.nii.gz: expected finite values, got 1 voxels NaN"),
    "frames": ("t1", np.ones((*SHAPE, 2)), AFFINE, "_t1.nii.gz: expected a slice or a volume, got 4 axes"),
}


@pytest.mark.parametrize(("name", "voxels", "affine", "reason"), SPOILED.values(), ids=SPOILED)
def test_a_bad_file_is_named_with_the_reason(tmp_path, name, voxels, affine, reason):
    files = write_brats_2021(tmp_path, 0, tumour())
    save(voxels, files[name], affine)
    with pytest.raises(BadFileError, match=reason):
        read(tmp_path)


def test_two_editions_in_a_folder_are_refused_as_they_share_patients(tmp_path):
    write_brats_2020(tmp_path, 1)
    write_brats_2021(tmp_path, 0)
    with pytest.raises(ValueError, match=r"expected one edition .* got BraTS 2020 and BraTS 2021\."):
        find_brats(tmp_path)


def test_a_case_that_was_unpacked_twice_is_refused(tmp_path):
    write_brats_2021(tmp_path / "1", 0)
    write_brats_2021(tmp_path / "2", 0)
    with pytest.raises(ValueError, match="expected one file called BraTS2021_00000_flair, got"):
        find_brats(tmp_path)


def test_a_folder_without_brats_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path}: expected BraTS20_*_t1.nii, ")):
        find_brats(tmp_path)


@pytest.mark.parametrize(
    "modality",
    [None, MODALITY, {"0": "T2w", "1": "T1w", "2": "FLAIR", "3": "t1gd"}],
    ids=["no file", "as it is", "another"],
)
def test_the_order_in_a_file_of_the_decathlon_is_that_of_its_dataset_json(tmp_path, modality):
    volume = read(write_msd_brain(tmp_path, modality=modality))
    np.testing.assert_array_equal([channel.voxels for channel in volume.channels], list(sequences(1).values()))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"modality": {"0": "CT"}}',
        '{"modality": ["FLAIR", "T1w", "t1gd", "T2w"]}',
        json.dumps({"modality": MODALITY | {"1": "FLAIR"}}),
        json.dumps({"modality": MODALITY | {"1": 1}}),
    ],
)
def test_a_dataset_json_without_the_four_sequences_is_refused(tmp_path, content):
    (write_msd_brain(tmp_path) / "dataset.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"dataset.json: expected the modalities 0 to 3 to be FLAIR, T1w, .*, got .*\."
    ):
        find_msd_brain(tmp_path)


def test_the_files_macos_leaves_and_those_without_labels_are_no_cases(tmp_path):
    assert [scan.case for scan in find_msd_brain(write_msd_brain(tmp_path, (1, 2)))] == ["BRATS_001", "BRATS_002"]


def test_a_file_of_the_decathlon_with_fewer_sequences_is_refused(tmp_path):
    write_msd_brain(tmp_path)
    save(np.ones((*SHAPE, 3)), tmp_path / "imagesTr" / "BRATS_001.nii.gz")
    with pytest.raises(BadFileError, match=r"BRATS_001.nii.gz: expected 4 volumes, got 4 axes of \(6, 5, 4, 3\)\."):
        read(tmp_path)


def test_a_constant_sequence_of_the_decathlon_is_named(tmp_path):
    stacked = np.stack([*sequences().values()], -1)
    stacked[..., 2] = 7  # t1gd
    write_msd_brain(tmp_path)
    save(stacked, tmp_path / "imagesTr" / "BRATS_001.nii.gz")
    with pytest.raises(
        BadFileError, match=r"BRATS_001.nii.gz, t1ce: expected an image, got the same value 7 everywhere"
    ):
        read(tmp_path)


def test_a_label_of_the_decathlon_on_another_grid_is_refused(tmp_path):
    write_msd_brain(tmp_path)
    save(tumour()[:, :, :3], tmp_path / "labelsTr" / "BRATS_001.nii.gz")
    with pytest.raises(BadFileError, match=r"labelsTr/BRATS_001.nii.gz: expected the grid of .*imagesTr/BRATS_001"):
        read(tmp_path)
