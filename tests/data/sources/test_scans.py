import re

import numpy as np
import pytest
from downloads import AFFINE, SHAPE, save

from common.data.checks import BadFileError
from common.data.sources.scans import Volume, annotated_ct, by_name, decathlon, not_empty, refuse_other_values, some

CT = np.random.default_rng(0).integers(-1000, 400, SHAPE).astype(np.int16)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("label", "diseased", "image_label"),
    [
        (np.zeros(3, bool), None, 0),
        (np.array([0, 3], np.uint8), None, 1),
        (np.zeros(3, bool), True, 0),
        (None, True, 1),
        (None, False, 0),
        (None, None, None),
    ],
    ids=["empty label", "parts of lesions", "label against what is said", "diseased", "healthy", "unknown"],
)
def test_a_label_says_more_than_what_is_known_without_it(label, diseased, image_label):
    assert Volume((), np.eye(4), label=label, diseased=diseased).image_label == image_label


def test_a_task_of_the_decathlon_has_an_image_and_a_label_for_each_case(tmp_path):
    image, label = (tmp_path / folder / "colon_001.nii.gz" for folder in ("imagesTr", "labelsTr"))
    touch(image, label, tmp_path / "imagesTs" / "colon_002.nii.gz", image.with_name("._colon_001.nii.gz"))
    assert decathlon(tmp_path) == [("colon_001", image, label)]


def test_the_other_file_of_half_a_case_is_where_it_should_be(tmp_path):
    touch(tmp_path / "labelsTr" / "a.nii")
    assert decathlon(tmp_path) == [("a", tmp_path / "imagesTr" / "a.nii.gz", tmp_path / "labelsTr" / "a.nii")]


def test_an_organ_without_a_voxel_is_refused_by_its_name(tmp_path):
    image = save(CT, tmp_path / "image.nii.gz")
    labels = save(np.zeros(SHAPE, np.uint8), tmp_path / "labels.nii.gz")
    with pytest.raises(BadFileError, match=r"labels.nii.gz: expected a mask of the spleen, got an empty one\."):
        annotated_ct("a", image, labels, "spleen").read()


def test_an_annotated_ct_is_linked_to_its_file(tmp_path):
    image = save(CT, tmp_path / "image.nii.gz")
    volume = annotated_ct("a", image, save((CT > 0).astype(np.uint8), tmp_path / "labels.nii.gz"), "spleen").read()
    assert [channel.file for channel in volume.channels] == [image]


def test_a_mask_that_is_not_empty_is_returned(tmp_path):
    mask = CT > 0
    assert not_empty(mask, "spleen", tmp_path) is mask


def test_values_that_are_expected_are_accepted(tmp_path):
    refuse_other_values(np.array([0, 4, 1, 4], np.float32), (0, 1, 2, 4), tmp_path)


def test_values_that_are_not_expected_are_named(tmp_path):
    with pytest.raises(BadFileError, match=r"expected a mask of the values 0, 1, got also 0.5, 7\.$"):
        refuse_other_values(np.array([0, 7, 0.5], np.float32), (0, 1), tmp_path)


def test_files_are_found_by_names_with_dots_spaces_and_unicode(tmp_path):
    paths = [tmp_path / name for name in ("a.b.nii", "März 1.nii.gz", ".hidden.nii", "a.txt", "c.nii.gz.zip")]
    touch(*paths)
    save(CT, tmp_path / "folder.nii" / "d.nii", AFFINE)
    assert by_name(tmp_path.iterdir()) == {"a.b": paths[0], "März 1": paths[1]}


def test_two_files_of_one_name_are_refused(tmp_path):
    touch(tmp_path / "1" / "a.nii", tmp_path / "2" / "a.nii.gz")
    with pytest.raises(ValueError, match=r"expected one file called a, got .*1/a.nii and .*2/a.nii.gz\."):
        by_name(tmp_path.rglob("*"))


def test_nothing_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path}: expected scans, got none there.")):
        some([], tmp_path, "scans")
