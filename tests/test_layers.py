"""Who may import whom."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"options", "paths"},
    "paths": set(),
    "files": set(),
    "progress": set(),
    "timing": set(),
    "options": {"files"},
    "sequences": set(),
    "schedulers": set(),
    "checkpoints": {"files"},
    "converters": {"checkpoints"},
    "phantoms": {"files", "progress", "sequences"},
    "transforms": set(),
    "metrics": set(),
    "samplers": {"schedulers"},
    "losses": {"schedulers"},
    "networks": {"checkpoints"},
    "inferers": {"progress", "samplers", "schedulers", "transforms"},
    "data": {"files", "progress", "sequences", "transforms"},
    "report": {"files", "metrics"},
    "handlers": {"files", "metrics", "checkpoints", "report", "timing"},
    "training": {"files", "checkpoints", "evaluation", "handlers", "losses", "report", "transforms"},
    "evaluation": {"files", "progress"},
    "studies": {
        "files",
        "progress",
        "timing",
        "data",
        "metrics",
        "checkpoints",
        "report",
        "handlers",
        "transforms",
        "paths",
    },
}
MODULES = sorted((ROOT / "common").rglob("*.py"))


def imports_of(path):
    """Return the parts of ``common`` that a module imports, and all absolute names."""
    here, relative, absolute = path.relative_to(ROOT).with_suffix("").parts, set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            absolute |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            absolute.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            target = here[: -node.level] + tuple(node.module.split(".") if node.module else ())
            relative.add(target[1] if len(target) > 1 else node.names[0].name)
    return relative, absolute


def test_parts_import_from_one_another_what_is_listed_and_nothing_else():
    found = {part: set() for part in MAY_IMPORT}
    for path in MODULES:
        part = path.relative_to(ROOT / "common").with_suffix("").parts[0]
        found[part] |= imports_of(path)[0] - {part}
    assert found == MAY_IMPORT


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_within_common_are_relative_so_that_it_can_be_packed(path):
    _, absolute = imports_of(path)
    assert not {name for name in absolute if name.split(".")[0] in ("common", "tests", "ci", "bundles")}


def test_samplers_and_schedulers_need_torch_alone():
    outside = {"torch", "collections", "functools", "itertools", "typing", "copy", "math"}
    for path in [ROOT / "common" / "schedulers.py", *(ROOT / "common" / "samplers").glob("*.py")]:
        assert {name.split(".")[0] for name in imports_of(path)[1]} <= outside


CALLED = {
    "PIL": "pillow",
    "mpl_toolkits": "matplotlib",
    "ignite": "pytorch-ignite",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
"""Packages that are imported under another name."""


@pytest.mark.parametrize(("folder", "listed_in"), [("common", "pyproject.toml"), ("ci", "requirements.txt")])
def test_every_package_that_is_imported_is_declared(folder, listed_in):
    listed = (ROOT / listed_in).read_text()
    found = {name.split(".")[0] for path in (ROOT / folder).rglob("*.py") for name in imports_of(path)[1]}
    packages = found - set(sys.stdlib_module_names) - {"common", "ci"}
    missing = {name for name in packages if not re.search(rf"^\W*{CALLED.get(name, name)}\b", listed, re.MULTILINE)}
    assert not missing


def test_bundles_hold_no_python():
    assert not list((ROOT / "bundles").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_has_a_test_of_its_name(path):
    inside = path.relative_to(ROOT / "common")
    if inside.name in ("__init__.py", "__main__.py"):
        pytest.skip("nothing of its own")
    assert (ROOT / "tests" / inside.with_name(f"test_{inside.name}")).is_file()
