"""What a study keeps of a method's answers."""

import numpy as np
import pytest
import torch
from studied import HEAD, small_bundle

from common.studies.answers import Answers, digest_of
from common.studies.cases import read_cases
from common.studies.plan import Method


@pytest.fixture
def configs(tmp_path):
    return small_bundle(tmp_path)


@pytest.fixture
def case(configs, tmp_path):
    *_, last = read_cases(configs, tmp_path, "testing", HEAD)
    return last


def answers(configs, tmp_path, method=None, **options):
    return Answers(configs, method or Method("ours"), tmp_path / "answers", 0, {"median_radius": 0}, **options)


def test_an_answer_is_what_the_inferer_says_with_the_settings(configs, case, tmp_path):
    parser = configs("inference", median_radius=0)
    said = parser.get_parsed_content("inferer")(case.inputs, parser.get_parsed_content("network"))[0]
    np.testing.assert_array_equal(answers(configs, tmp_path)(case), said[0])
    assert not np.array_equal(said[0], answers(configs, tmp_path, Method("", settings={"median_radius": 2}))(case))


def test_an_answer_that_is_kept_is_not_made_again(configs, case, tmp_path):
    first = answers(configs, tmp_path)
    found = first(case)
    second = answers(configs, tmp_path)
    np.testing.assert_array_equal(second(case), found)
    assert second.cost(case) == first.cost(case)
    assert second.inferer is None
    assert [path.name for path in first.folder.iterdir()] == [f"testing 3_{digest_of(case.inputs)}.npz"]


def test_other_images_of_the_same_name_are_answered_anew(configs, case, tmp_path):
    method = answers(configs, tmp_path)
    brighter = case._replace(inputs=2 * case.inputs, image=2 * case.image)
    assert not np.array_equal(method(case), method(brighter))
    np.testing.assert_array_equal(answers(configs, tmp_path)(case), method(case))


def test_other_settings_seeds_weights_and_inferers_have_folders_of_their_own(configs, tmp_path):
    methods = [Method("ours"), Method("", "baselines"), Method("", settings={"median_radius": 3})]
    folders = [answers(configs, tmp_path, method).folder for method in methods]
    folders += [
        answers(configs, tmp_path, seed=1).folder,
        answers(configs, tmp_path, Method("", inferer="ensemble")).folder,
        answers(configs, tmp_path, Method("", inferer="ensemble::one")).folder,
        answers(configs, tmp_path, Method("", inferer="ensemble::other")).folder,
    ]
    weights = torch.load(tmp_path / "model.pt")
    torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / "model.pt")
    folders.append(answers(configs, tmp_path).folder)
    assert len(set(folders)) == 8
    assert folders[4].name.startswith("ensemble_")


def test_an_answer_tells_what_a_slice_of_it_has_cost(configs, case, tmp_path):
    control = answers(configs, tmp_path).cost(case)
    assert (control["calls"], control["gradients"]) == (0, 0)
    drawn = answers(configs, tmp_path, Method("", inferer="ensemble")).cost(case)
    assert drawn["calls"] == pytest.approx(5 * 2 / 3)  # five samples of two slices of three, which have a head
    assert drawn["seconds"] > 0
