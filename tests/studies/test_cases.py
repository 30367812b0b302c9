"""Patients of a study, read through a bundle's own preprocessing."""

import numpy as np
import pytest
import torch
from studied import HEAD, small_bundle

from common.report.figures import CT
from common.studies.cases import display_of, head, organ, read_cases


@pytest.fixture
def configs(tmp_path):
    return small_bundle(tmp_path)


def test_cases_have_their_images_lesions_and_voxels(configs, tmp_path):
    healthy, diseased, *_ = read_cases(configs, tmp_path, "validation", HEAD)
    assert (healthy.name, diseased.name) == ("validation 0", "validation 1")
    assert (healthy.truth.sum(), diseased.truth.sum()) == (0, 1)
    assert diseased.inputs.shape == (1, 1, 16, 16, 3)
    assert diseased.image[4, 4, 1] == 1
    assert diseased.organ.sum() == 2 * 12 * 12
    assert diseased.spacing_mm == [1, 1, 4]


def test_lesions_outside_the_region_do_not_count(configs, tmp_path):
    below = "$lambda inputs: torch.arange(3).expand(16, 16, 3) > 1"
    *_, diseased = read_cases(configs, tmp_path, "testing", below)
    assert diseased.organ[..., 2].all()
    assert not diseased.truth.any()


def test_without_a_label_only_a_healthy_case_counts(configs, tmp_path):
    def without_labels(name, **settings):
        parser = configs(name, **settings)
        items, parsed = parser.get_parsed_content("dataset"), parser.get_parsed_content
        for number, item in enumerate(items[:2]):
            del item["label"]
            item |= {"image_label": 0} if number else {}
        parser.get_parsed_content = lambda key: items if key == "dataset" else parsed(key)
        return parser

    healthy, *others = read_cases(without_labels, tmp_path, "validation", HEAD)
    assert (healthy.name, healthy.truth.any(), len(others)) == ("validation 1", False, 2)


def test_a_bundle_that_says_nothing_is_shown_as_ct(configs):
    assert display_of(configs).unit == "of 1"
    parser = configs("inference")
    parser.config.pop("display")
    assert display_of(lambda name: parser) == CT


def test_regions_are_the_head_the_organ_or_its_right_part():
    image, mask = torch.zeros(8, 6, 2), torch.zeros(8, 6, 2)
    image[1:7, 1:5], mask[2:6, 2:4] = 3, 1
    inputs = torch.stack([image, mask])
    assert torch.equal(head(inputs[:1]), image > 0)
    assert torch.equal(organ(inputs), mask > 0)
    right = organ(inputs, right_share=0.5)
    assert np.flatnonzero(right.numpy().any((1, 2))).tolist() == [4, 5]
