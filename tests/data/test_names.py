import os

import pytest

from common.data.names import MAX_BYTES, check_name, twins_of
from common.files import BadFileError


@pytest.mark.parametrize(
    "name", ["a", "1.2.840.113", "with spaces", "Bauch ✓ März", "a.b", "-3", "=1", "$x$", "con1", "T1:a"]
)
def test_a_name_is_accepted(tmp_path, name):
    check_name(name)
    (tmp_path / name).mkdir()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "no name"),
        ("  ", "no name"),
        ("siteA/001", "a path"),
        ("..\\x", "a path"),
        ("/etc/x", "a path"),
        (".", "a dot"),
        ("..", "a dot"),
        (".tmp.a", "a dot"),
        ("a ", "a space"),
        ("a.", "a dot"),
        ("a\nERROR b is left out", "break lines"),
        ("a\0", "break lines"),
        ("a\u2028b", "break lines"),
        ("a\ud800", "break lines"),
        ("report.html", "keeps for itself"),
        ("summary.CSV", "keeps for itself"),
        ("checkpoints", "keeps for itself"),
        ("NUL", "keeps for itself"),
        ("a.nii.gz", "keeps for itself"),
        ("ä" * (MAX_BYTES // 2 + 1), "more than 200 bytes"),
    ],
)
def test_what_is_no_name_of_one_folder_is_refused_in_one_line(name, what):
    with pytest.raises(BadFileError, match=f"expected a name for a case's folder, got .*{what}") as refused:
        check_name(name)
    assert str(refused.value).isprintable()


def test_the_longest_name_leaves_room_for_what_is_added(tmp_path):
    name = "ä" * (MAX_BYTES // 2)
    check_name(name)
    (tmp_path / f".tmp.12345678.{name}_uncertainty.nii.gz").touch()
    assert len(os.listdir(tmp_path)) == 1


def test_twins_are_compared_as_the_folders_that_they_make():
    pairs = [("a", 1), ("A", 2), ("b", 3), ("\u00e4", 4), ("a\u0308", 5), ("c", 6)]
    assert twins_of(pairs) == {"a": [1, 2], "A": [1, 2], "\u00e4": [4, 5], "a\u0308": [4, 5]}
