"""The one loop of a sweep and of a study."""

from common.studies.runner import examined


def test_each_source_gives_its_settings_the_records_of_all_cases():
    sources = [("double", lambda case: {"twice": 2 * case, "thrice": 3 * case}), ("same", lambda case: {"once": case})]
    assert list(examined(sources, [1, 2])) == [
        ("double", {"twice": [2, 4], "thrice": [3, 6]}),
        ("same", {"once": [1, 2]}),
    ]


def test_a_case_may_be_left_out():
    assert list(examined([("odd", lambda case: {"it": case} if case % 2 else {})], [1, 2, 3])) == [
        ("odd", {"it": [1, 3]})
    ]


def test_a_source_is_made_when_the_one_before_is_done():
    order = []

    def sources():
        for name in "ab":
            order.append(f"made {name}")
            yield name, lambda case, name=name: order.append(f"asked {name}") or {}

    list(examined(sources(), [1]))
    assert order == ["made a", "asked a", "made b", "asked b"]
