"""Whether tumours tell their organ: those that differ do, those that do not are guessed."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.studies.origins import CLASSIFIERS, CROP, _deep, _shallow, early_tumours, origins_study, repeats_of

AFFINE = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
ORGANS = ("liver", "kidney")


def patients(dataset_dir, darker):
    """Return scans with an early tumour and one of 30 mm; those of the kidney are darker by so much."""
    items = []
    kidney = str(dataset_dir).endswith("kidney")
    for number in range(9):
        random = np.random.default_rng([number, kidney])
        image, label = np.full((40, 40, 24), 80.0), np.zeros((40, 40, 24))
        x, y, z = np.ogrid[:40, :40, :24]
        label[(x - 8) ** 2 + (y - 8) ** 2 + (z - 12) ** 2 <= 12] = 1
        label[(x - 28) ** 2 + (y - 28) ** 2 + (z - 12) ** 2 <= 60] = 1
        image[label > 0] = 40 - darker * kidney
        image += random.normal(0, 10, image.shape)
        images = {"image": image, "label": label}
        tensors = {name: MetaTensor(torch.from_numpy(voxels[None]).float(), AFFINE) for name, voxels in images.items()}
        items.append({"case": str(number), **tensors})
    return items


def configs(darker):
    """Return what makes parsers of a bundle whose scans these are."""

    def parser(name, dataset_dir, **settings):
        content = {"hu_window": [-175, 250], "dataset": patients(dataset_dir, darker)}
        return SimpleNamespace(get_parsed_content=content.__getitem__)

    return parser


@pytest.fixture
def tumours(tmp_path):
    return lambda darker: early_tumours(configs(darker), {organ: tmp_path / organ for organ in ORGANS})


def test_early_tumours_are_taken_and_shown_alone(tumours):
    found = tumours(30)
    assert found.crops.shape == (18, 1, CROP, CROP, CROP)
    assert found.organs.tolist() == [0] * 9 + [1] * 9
    assert len(set(found.patients)) == 18
    assert (found.crops[0] == -1).float().mean() > 0.9
    assert found.crops[0].max() > -0.2


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_tumours_that_differ_tell_their_organ(name, tumours):
    precision, recall = np.mean(repeats_of(tumours(60), _shallow(CLASSIFIERS[name]), 2), 0)
    assert min(precision, recall) > 0.8


def test_tumours_that_are_alike_do_not(tumours):
    _, recall = np.mean(repeats_of(tumours(0), _shallow(CLASSIFIERS["random forest"]), 6), 0)
    assert 0.2 < recall < 0.8


class Small(torch.nn.Module):
    """Looks at how bright a crop is."""

    def __init__(self, classes):
        super().__init__()
        self.said = torch.nn.Linear(2, classes)

    def forward(self, crops):
        return self.said(torch.stack([(crops > -0.3).float().mean((1, 2, 3, 4)), crops.amax((1, 2, 3, 4))], 1) * 100)


def test_a_network_is_trained_on_crops_and_the_same_seed_gives_the_same(tumours):
    given, learnt, tested = tumours(60), np.r_[0:6, 9:15], np.r_[6:9, 15:18]
    first, second = (_deep(Small, 150)(given, learnt, tested, 3) for _ in range(2))
    assert first.tolist() == second.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_study_writes_a_row_a_classifier_and_a_page(tmp_path):
    plan = {"data": {organ: {} for organ in ORGANS}}
    origins_study("name", configs(60), plan, tmp_path, num_repeats=2, num_deep_repeats=1, num_epochs=1)
    with open(tmp_path / "origins.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["classifier"] for row in rows][:3] == list(CLASSIFIERS)
    assert len(rows) == 5
    assert (tmp_path / "report.html").read_text().count("<img") == 1
