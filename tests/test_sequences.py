from itertools import chain

from common.sequences import SEQUENCES


def test_a_word_is_that_of_one_sequence_alone():
    words = list(chain.from_iterable(SEQUENCES.values()))
    assert len(words) == len(set(words))


def test_a_sequence_is_known_by_its_own_name():
    assert all(name in words for name, words in SEQUENCES.items())
