"""No good image is refused."""

import json

import nibabel as nib
import numpy as np
import pytest

from ci.robustness.ct import CT
from ci.robustness.good import CHANGES, data_sets_in, look_at_good_images
from ci.robustness.inputs import nifti
from ci.robustness.judging import layers_of


def test_no_demonstration_is_refused_or_warned_of(tmp_path):
    for found in look_at_good_images(tmp_path / "none", tmp_path / "work"):
        assert (found.refused, found.warned) == ({}, {}), found.name
        assert found.cases > 0


@pytest.fixture
def folder(tmp_path):
    """Return a folder with data sets of two modalities, and a CT that no list names."""
    tmp_path = tmp_path / "sets"
    nifti(CT, name="a")(tmp_path / "livers")
    item = {"image": "a.nii.gz", "organ": "a_liver.nii.gz", "label": "a_label.nii.gz", "case": "a"}
    content = {"modality": {"0": "CT"}, "training": [item], "validation": [], "testing": []}
    (tmp_path / "livers" / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "brains").mkdir()
    for name, words in (("dataset", ["FLAIR"]), ("dataset_both", ["T1w", "FLAIR"])):
        items = [{"image": [f"b_{word}.nii.gz" for word in words]}]
        content = {"modality": dict(enumerate(words)), "training": [], "validation": items, "testing": []}
        (tmp_path / "brains" / f"{name}.json").write_text(json.dumps(content))
    nifti(CT.bare(), name="ct")(tmp_path / "alone")
    return tmp_path


def test_data_sets_are_told_by_their_modality(folder):
    found = [(each.name, each.modality, each.sequences, len(each.content["testing"])) for each in data_sets_in(folder)]
    assert found == [
        ("brains flair", "MR", ["flair"], 1),
        ("brains t1 flair", "MR", ["t1", "flair"], 1),
        ("livers", "CT", None, 1),
        ("alone", "CT", None, 1),
    ]
    paths = [path for each in data_sets_in(folder) for path in np.atleast_1d(each.content["testing"][0]["image"])]
    assert all(path.startswith(str(folder)) for path in paths)


def test_copies_of_a_ct_are_parts_of_it_and_none_is_refused(folder, tmp_path):
    for name in ("dataset.json", "dataset_both.json"):
        (folder / "brains" / name).unlink()
    found = list(look_at_good_images(folder, tmp_path / "work"))
    looks = 2 * (len(layers_of("CT")) + len(CHANGES))
    assert [each.refused for each in found if each.name.startswith(("livers", "alone"))] == [{}] * looks
    part = nib.load(tmp_path / "work" / "livers without air" / "a_image.nii.gz")
    first = np.rint(np.linalg.solve(CT.affine, part.affine[:, 3])[:3]).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(first, part.shape, strict=True))
    np.testing.assert_array_equal(part.get_fdata(), CT.images[""][box])
