import json

import nibabel as nib
import numpy as np
import pytest

from common.studies.slabs import thickest, write_slabs


def test_the_longest_run_is_taken_and_the_first_of_several():
    assert thickest(np.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1], bool)) == slice(4, 7)
    assert thickest(np.ones(3, bool)) == slice(0, 3)
    assert thickest(np.zeros(3, bool)) == slice(0, 0)


@pytest.fixture
def scans(tmp_path):
    """Two scans of ten slices, whose values are their slices' numbers; the second has lesions in all but two."""
    items = []
    for case, lesions in (("one", [2, 3]), ("two", [*range(1, 6), 7, 9])):
        organ, label = np.zeros((4, 4, 10), np.uint8), np.zeros((4, 4, 10), np.uint8)
        organ[1:3, 1:3, 1:9] = 1
        label[1, 1, lesions] = 1
        image = np.broadcast_to(np.arange(10, dtype=np.int16), organ.shape)
        files = {"image": image, "organ": organ, "label": label}
        for key, voxels in files.items():  # stored from top to bottom
            nib.save(nib.Nifti1Image(voxels[:, :, ::-1], np.diag([2, 2, -5, 1])), tmp_path / f"{case}_{key}.nii.gz")
        items.append({"case": case, "patient": case} | {key: f"{case}_{key}.nii.gz" for key in files})
    (tmp_path / "dataset.json").write_text(json.dumps({"testing": items}))
    return tmp_path


def test_a_slab_shows_the_organ_and_no_lesion_in_its_place(scans, tmp_path):
    write_slabs(scans, tmp_path / "slabs", 3)
    (item,) = json.loads((tmp_path / "slabs" / "dataset.json").read_text())["testing"]
    assert item["case"] == "one"
    image, organ = (nib.load(tmp_path / "slabs" / item[key]) for key in ("image", "organ"))
    assert image.get_fdata()[0, 0].tolist() == [4, 5, 6, 7, 8]
    assert organ.get_fdata().any((0, 1)).all()
    whole = nib.as_closest_canonical(nib.load(scans / "one_image.nii.gz"))
    np.testing.assert_allclose(image.affine[:3, 3], whole.affine[:3, :3] @ [0, 0, 4] + whole.affine[:3, 3])


def test_scans_full_of_lesions_are_refused(scans, tmp_path):
    with pytest.raises(ValueError, match="with 6 neighbouring slices without lesion"):
        write_slabs(scans, tmp_path / "slabs", 6)
