"""Cards and README are short, what they name is there, and what they tell people to type can be typed."""

import ast
import importlib.util
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from monai.bundle import run
from PIL import Image

from ci.pictures import MAX_BYTES, MAX_PIXELS
from ci.study import plans_named

ROOT = Path(__file__).parent.parent
CARDS = sorted(ROOT.glob("bundles/*/docs/README.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("bundles/*/docs/*.md"))]
PICTURES = [*sorted(ROOT.glob("docs/*.png")), *sorted(ROOT.glob("bundles/*/docs/*.png"))]
SECTIONS = ["Task", "Authors", "Data", "Performance", "System configuration", "Limitations", "Citation", "References"]
"""Of a card, in the order of the model zoo."""


def name_of(path):
    return path.relative_to(ROOT).as_posix()


cards = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.parent.name)


def commands(page):
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("#")[0].split("&&")]
    inline = re.findall(r"`((?:python|torchrun|make|pip) [^`]+)`", page.read_text())
    return [" ".join(line.split()) for line in [*lines, *inline] if line.strip()]


CASES = [(page, command) for page in PAGES for command in commands(page)]
ids = [f"{name_of(page)}: {command[:60]}" for page, command in CASES]


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
        named = len(words) > 3 and not words[3].startswith("-")
        if ours and "bundles/" not in command and named and module != "common.data.prepare":
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_on_a_page_is_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_of_a_page_exist(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


@cards
def test_options_of_tables_exist(card):
    config = json.loads((card.parent.parent / "configs" / "inference.json").read_text())
    keys = re.findall(r"^\| (`[^|]+) \|", card.with_name("options.md").read_text(), re.MULTILINE)
    assert keys
    assert {key for row in keys for key in re.findall(r"`(\w+)`", row)} <= set(config)


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 1300


@cards
def test_a_card_is_short(card):
    assert len(card.read_text().split()) <= 1000


@cards
def test_a_card_has_the_sections_of_the_model_zoo_in_its_order(card):
    assert re.findall(r"^## (.+)$", card.read_text(), re.MULTILINE) == SECTIONS


@cards
def test_a_card_begins_with_a_picture_and_at_most_five_rows_of_results(card):
    beginning = card.read_text().split("\n## ")[0]
    assert "](picture.png)" in beginning
    rows = re.findall(r"^\|[^-].*", beginning, re.MULTILINE)[1:]
    assert 1 <= len(rows) <= 5


@pytest.mark.parametrize("picture", PICTURES, ids=name_of)
def test_a_picture_is_small(picture):
    assert picture.stat().st_size <= MAX_BYTES
    assert max(Image.open(picture).size) <= MAX_PIXELS


def test_the_citation_names_who_and_what_and_each_paper_of_the_cards():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference), reference["title"]
    titles = [reference["title"].lower() for reference in citation["references"]]
    for card in CARDS:
        for paper in re.findall(r"^\d\. [^.].*?\. (.+)", card.read_text().split("## References")[1], re.MULTILINE):
            assert any(title[:30] in paper.lower() for title in titles), paper
