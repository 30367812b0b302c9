"""The examples of docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

COMMON = Path(__file__).parent.parent / "common"
MODULES = [path for path in sorted(COMMON.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(COMMON).as_posix())
def test_examples_of_docstrings_are_true(path):
    module = importlib.import_module(".".join(path.relative_to(COMMON.parent).with_suffix("").parts))
    assert doctest.testmod(module).failed == 0


def test_what_a_method_developer_calls_has_an_example():
    assert sum(path.read_text().count("    Example:\n") for path in MODULES) >= 10
