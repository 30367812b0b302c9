import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.handlers.output import as_seen, spacing_mm


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_arrays_point_to_the_patients_right_front_and_head(axes, signs):
    affine = np.zeros((4, 4))
    affine[list(axes), range(3)] = np.multiply(signs, (2, 3, 5))
    affine[:, 3] = 7, -20, 100, 1
    world = nib.affines.apply_affine(affine, np.indices((3, 4, 5)).transpose(1, 2, 3, 0))
    image = MetaTensor(torch.from_numpy(world).movedim(-1, 0), affine=torch.from_numpy(affine))
    for axis in range(3):  # each channel holds where a voxel is along one axis of the world
        seen = as_seen({"image": image[axis : axis + 1]}, ("image",))["image"]
        assert (np.diff(seen, axis=axis) > 0).all()
        assert np.ptp(seen, axis=tuple(i for i in range(3) if i != axis)).max() == 0
    sizes = dict(zip(axes, (2, 3, 5), strict=True))
    assert spacing_mm(image[:1]) == pytest.approx([sizes[axis] for axis in range(3)])


def test_a_slice_is_turned_like_a_volume():
    image = MetaTensor(torch.arange(6.0).view(1, 2, 3), affine=torch.diag(torch.tensor([-2.0, -3, 5, 1])).double())
    np.testing.assert_array_equal(as_seen({"image": image}, ("image",))["image"], [[5, 4, 3], [2, 1, 0]])
    assert spacing_mm(image) == pytest.approx([2, 3])


def test_arrays_are_no_copies_of_the_images():
    image = MetaTensor(torch.zeros(1, 3, 4, 5), affine=torch.diag(torch.tensor([-1.0, 1, -1, 1])).double())
    assert np.shares_memory(as_seen({"image": image}, ("image",))["image"], image.numpy())


def test_only_what_an_item_has_is_turned():
    image = MetaTensor(torch.zeros(2, 3, 4, 5), affine=torch.eye(4).double())
    arrays = as_seen({"image": image, "label": None}, ("image", "label", "organ"))
    assert {key: array.shape for key, array in arrays.items()} == {"image": (3, 4, 5)}


def test_one_channel_of_several_is_shown():
    image = MetaTensor(torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 4, 5), affine=torch.eye(4).double())
    assert (as_seen({"image": image}, ("image",), channel=1)["image"] == 1).all()
