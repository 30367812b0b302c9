"""What is counted is what is said to be counted."""

import ast

from ci.figures import config_lines, leaf_values, words


def test_a_line_that_stands_in_two_configs_is_repeated_in_both(tmp_path):
    texts = {"a": '{\n  "x": 1,\n  "y": 2\n}', "b": '{\n    "x": 1,\n    "z": 2,\n    "z": 2\n}'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert config_lines(sorted(tmp_path.iterdir())) == (5, 2 / 5)


def test_leaves_are_counted_at_any_depth():
    assert leaf_values({"a": [1, {"b": None}, []], "c": "@d", "e": {}}) == 3


def test_strings_and_names_are_executed_but_no_comment_and_no_docstring():
    code = '''
"""docstring"""
import imported
def function(argument, other="default"):
    """docstring"""
    return f"formatted {argument.attribute}" + call(keyword="value")  # comment
"""of an attribute"""
'''
    found = set(words(ast.parse(code)))
    assert found == {"function", "argument", "other", "default", "formatted ", "attribute", "call", "keyword", "value"}
