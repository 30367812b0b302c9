import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.handlers.verdict import Searched

LIVER = Searched("liver", plausible_ml=[0.1, 2], plausible_hu=[20, 180])


def case(hu=100.0, parts=1, lesions=2, ndim=3):
    """Return an organ of 512 voxels of 1 mm for each of its parts, and one lesion of 8 voxels and others of 1."""
    organ, mask = torch.zeros(1, 40, 20, 20), torch.zeros(1, 40, 20, 20)
    for part in range(parts):
        organ[:, 2 + 12 * part : 10 + 12 * part, 4:12, 4:12] = 1
    for lesion in range(lesions):
        size = 2 if lesion == 0 else 1
        mask[:, 3 + 3 * lesion : 3 + 3 * lesion + size, 5 : 5 + size, 5 : 5 + size] = 1
    images = {"image": torch.full_like(organ, hu), "organ": organ, "mask": mask}
    images = images if ndim == 3 else {key: image[..., 5] for key, image in images.items()}
    return {key: MetaTensor(image, affine=np.eye(4)) for key, image in images.items()}


def test_a_case_is_done_in_one_line():
    said = LIVER.line(case(), "found by the network", 38.2)
    assert said == "liver 1 ml (found by the network), 2 lesions, 0.0 ml, largest 2 mm, 38 s"


@pytest.mark.parametrize(("lesions", "said"), [(0, "no tumours, under"), (1, "1 tumour, 0.0 ml, largest 2 mm, under")])
def test_findings_are_counted_in_words(lesions, said):
    assert said in Searched(finding="tumour").line(case(lesions=lesions), "mask from a file", 0.2)


def test_a_film_has_shares_instead_of_volumes():
    said = Searched("image").line(case(ndim=2), "the whole image", 2.0)
    assert said == "image (the whole image), 2 lesions on 7.8% of it, 2 s"


def test_a_case_of_classes_has_their_probabilities():
    said = Searched().line({"probability": torch.tensor([0.25, 0.75])}, "", 3.0)
    assert said == "class 0 with probability 0.25, class 1 with probability 0.75, 3 s"


def test_an_organ_as_expected_is_not_doubted():
    assert LIVER.doubt(case()) == ""
    assert Searched("brain").doubt(case(hu=-900)) == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (case(hu=-50.0), "has 1 ml in 1 piece, with -50 HU on average and a spread of 0; expected 0.1 to 2 ml in one"),
        (case(parts=2), "has 1 ml in 2 pieces, with 100 HU"),
    ],
)
def test_another_organ_is_doubted_with_its_volume_pieces_and_hu(given, said):
    assert said in LIVER.doubt(given)
