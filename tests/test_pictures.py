"""Pictures of cards are small, and show lesions of what was searched."""

import io

import nibabel as nib
import numpy as np
from PIL import Image

from ci.pictures import MAX_PIXELS, searched_lesion, strip_of, write


def save(path, volume):
    nib.save(nib.Nifti1Image(np.asarray(volume, np.float32), np.diag([3, 3, 5, 1])), path)


def png_of(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def test_a_large_picture_is_scaled_with_its_proportions(tmp_path):
    write(tmp_path / "picture.png", png_of(np.zeros((500, 2 * MAX_PIXELS, 3), np.uint8)))
    assert Image.open(tmp_path / "picture.png").size == (MAX_PIXELS, 250)


def test_a_lesion_outside_the_organ_that_was_searched_is_none(tmp_path):
    label, organ = np.ones((4, 4, 2)), np.zeros((4, 4, 2))
    organ[:2] = 1
    save(tmp_path / "label.nii.gz", label)
    save(tmp_path / "x_organ.nii.gz", organ)
    assert searched_lesion(tmp_path / "label.nii.gz", tmp_path).sum() == 16


def test_a_lesion_counts_anywhere_where_no_organ_was_searched(tmp_path):
    save(tmp_path / "label.nii.gz", np.ones((4, 4, 2)))
    assert searched_lesion(tmp_path / "label.nii.gz", tmp_path).sum() == 32


def test_a_strip_shows_the_slice_of_which_the_map_says_most(tmp_path):
    case = tmp_path / "x"
    case.mkdir()
    organ, anomaly = np.zeros((40, 40, 3)), np.zeros((40, 40, 3))
    organ[10:30, 10:30], anomaly[15:20, 15:20, 1] = 1, 50
    for name, volume in {"healthy": organ, "anomaly": anomaly, "mask": anomaly > 20, "organ": organ}.items():
        save(case / f"x_{name}.nii.gz", volume)
    strips = []
    for shown in (1, 2):
        image = np.zeros((40, 40, 3))
        image[..., shown] = 200
        save(tmp_path / "x.nii.gz", image)
        strips.append(np.asarray(Image.open(io.BytesIO(strip_of(tmp_path / "x.nii.gz", case))).convert("L")))
    assert strips[0].mean() > strips[1].mean()
