"""What the README and the model cards tell people to type can be typed."""

import ast
import importlib.util
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
from monai.bundle import run

from ci.study import plans_named

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "bundles").glob("*/docs/README.md"))]


def commands(page):
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("#")[0].split("&&")]
    inline = re.findall(r"`((?:python|torchrun|make|pip) [^`]+)`", page.read_text())
    return [" ".join(line.split()) for line in [*lines, *inline] if line.strip()]


CASES = [(page, command) for page in PAGES for command in commands(page)]
ids = [f"{page.parent.parent.name if 'docs' in page.parts else 'README'}: {command[:60]}" for page, command in CASES]


@pytest.mark.parametrize(("page", "command"), CASES, ids=ids)
def test_a_command_names_what_exists(page, command):
    words = shlex.split(command)
    for name in re.findall(r"bundles/\w+/configs/\w+\.json", command):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"requirements[\w-]*\.txt", command):
        assert (ROOT / name).is_file(), name
    if words[:2] == ["python", "-m"]:
        module = words[2]
        ours = module.startswith(("common.", "ci."))
        assert importlib.util.find_spec(module) is not None, module
        if ours and "bundles/" not in command and len(words) > 3 and module != "common.data.prepare":
            there = (ROOT / "bundles" / words[3]).is_dir() or plans_named(words[3])
            assert there or not module.startswith("ci."), words[3]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words[1]
    if "monai.bundle" in words and "run" in words:
        known = set(inspect.signature(run).parameters)
        for name in re.findall(r"bundles/\w+/configs/\w+\.json", command):
            known |= set(json.loads((ROOT / name).read_text()))
        options = {word[2:] for word in words if word.startswith("--")} - {"nproc_per_node=2"}
        assert options <= known, options - known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_python_on_a_page_is_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_and_options_of_tables_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    if page.name == "README.md" and "docs" in page.parts:
        config = json.loads((page.parent.parent / "configs" / "inference.json").read_text())
        for row in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE):
            for key in re.findall(r"`(\w+)`", row):
                assert key in config, key
