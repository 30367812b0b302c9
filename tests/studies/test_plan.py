"""Rows of a study, from JSON."""

import pytest

from common.studies.plan import Method, combinations, methods, rows_of


def test_a_row_may_have_a_name_alone():
    (method,) = methods([{"name": "ours"}])
    assert method == Method("ours", "inference", "inferer", {}, drawn=False)


def test_a_rows_own_settings_go_over_shared_ones_and_those_over_earlier_ones():
    shared = {"a": {"x": 1, "y": 1, "z": 1}, "b": {"y": 2, "z": 2}}
    (method,) = methods([{"name": "ours", "with": ["a", "b"], "settings": {"z": 3}}], shared)
    assert method.settings == {"x": 1, "y": 2, "z": 3}


def test_a_name_that_nobody_shares_is_an_error():
    with pytest.raises(KeyError, match="other"):
        methods([{"name": "ours", "with": ["other"]}], {"a": {}})


def test_a_row_that_varies_gives_a_method_for_each_combination_and_names_it():
    row = {"name": "{level}, {layer}, {limits[1]} HU", "settings": {"x": 0}}
    row["vary"] = {"level": [1, 2], "inferer::layer, limits": [["a", [-5, 5]], ["b", [-9, 9]]]}
    made = methods([row])
    assert [method.name for method in made] == ["1, a, 5 HU", "1, b, 9 HU", "2, a, 5 HU", "2, b, 9 HU"]
    assert made[1].settings == {"x": 0, "level": 1, "inferer::layer": "b", "limits": [-9, 9]}


def test_values_that_vary_together_must_be_as_many_as_their_keys():
    with pytest.raises(ValueError, match="zip"):
        list(combinations({"a, b": [[1]]}))


def test_nothing_that_varies_is_one_combination():
    assert list(combinations({})) == [{}]


def test_a_method_has_a_row_for_each_filter_or_one_with_the_bundles_own():
    several = Method("map, filter {radius}", radii=[[0], [1, 1]])
    assert rows_of(several, [2]) == {"map, filter [0]": [0], "map, filter [1, 1]": [1, 1]}
    assert rows_of(Method("map"), [2]) == {"map": [2]}
    assert rows_of(Method("map, filter {radius}"), [2]) == {"map, filter [2]": [2]}
