"""What becomes of odd inputs is what has to, and what the page says."""

import pytest

from ci.robustness.__main__ import INPUTS, PAGE, page_of
from ci.robustness.judging import judge, with_all_sequences


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {m: list(judge(inputs, with_all_sequences(m), folder / m)) for m, inputs in INPUTS.items()}


def test_each_input_is_refused_right_or_warned_as_it_has_to_be(verdicts):
    others = [each for modality in verdicts.values() for each in modality if not each.foreseen]
    assert [(each.input.name, each.input.outcome, each.outcome, each.said) for each in others] == []


def test_the_page_is_what_the_command_writes(verdicts):
    assert PAGE.read_text(encoding="utf-8") == page_of(verdicts)


def test_there_are_many_inputs_and_each_has_a_name():
    assert sum(map(len, INPUTS.values())) >= 120
    for inputs in INPUTS.values():
        assert len({each.name for each in inputs}) == len(inputs)
