"""Print what a new bundle or a new inferer costs, counted in the tree as it is: ``python -m ci.figures``."""

import ast
import inspect
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire

from . import ROOT, bundle_names, bundle_parser

COUNTED = ("train", "baselines", "multi_gpu_train")
"""Configs whose values are counted."""

EXECUTABLE = ("ci", "common", "tests")
"""Folders of the code that should know no bundle."""


def figures() -> None:
    """Print lines and values of the configs, in how many files a bundle is named, and how deep its inferer is."""
    bundles = [ROOT / "bundles" / name for name in bundle_names()]
    configs = sorted(ROOT.glob("bundles/*/configs/*.json"))
    lines, repeated = config_lines(configs)
    wired = [config for config in configs if config.stem != "metadata"]  # whose texts are one line each
    longest = max(len(line) for config in wired for line in config.read_text().splitlines())
    print(f"configs: {lines} lines with a letter or digit, {repeated:.0%} of them verbatim in another one")
    print(f"longest line, but for metadata: {longest} characters")
    values = {
        name: {bundle.name: leaf_values(_read(bundle / "configs" / f"{name}.json")) for bundle in bundles}
        for name in COUNTED
    }
    totals = {name: sum(counts.values()) for name, counts in values.items()}
    each = ", ".join(f"{name} {total}" for name, total in totals.items())
    print(f"leaf values: {each}, {sum(totals.values())} in all")
    largest = max(values["train"], key=values["train"].__getitem__)
    print(f"longest train.json: {values['train'][largest]} values, of {largest}")
    for bundle in bundles:
        files, code = named_in(bundle.name), named_in_code(bundle.name)
        print(f"{bundle.name}: named in {len(files)} files outside its folder, in executable code of {len(code)}:")
        print(f"    {', '.join(code) or 'none'}")
        target, levels, keywords, shown = inferer_size(bundle)
        print(f"    {target}: {levels} levels, {keywords} keywords, {shown} of them in its signature")


def config_lines(configs: list[Path]) -> tuple[int, float]:
    """Return how many lines with a letter or digit configs have, and the share that stands in another one, too."""
    lines = [(path, line.strip()) for path in configs for line in path.read_text().splitlines()]
    lines = [(path, line) for path, line in lines if re.search("[A-Za-z0-9]", line)]
    where = defaultdict(set)
    for path, line in lines:
        where[line].add(path)
    return len(lines), sum(len(where[line]) > 1 for _, line in lines) / len(lines)


def leaf_values(config: Any) -> int:
    """Return how many values of a parsed config are neither a dictionary nor a list."""
    if isinstance(config, dict | list):
        return sum(map(leaf_values, config.values() if isinstance(config, dict) else config))
    return 1


def named_in(bundle: str) -> list[str]:
    """Return the committed files outside a bundle's folder in which its name stands as a word."""
    outside = ["--", ".", f":!bundles/{bundle}"]
    found = subprocess.run(["git", "grep", "-lw", bundle, *outside], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.splitlines()


def named_in_code(bundle: str) -> list[str]:
    """Return the files of ``EXECUTABLE`` in which a bundle's name stands in a string or in a name, or is one.

    Comments and docstrings do not count. A part of a longer name does: ``write_it`` names a bundle ``write``.
    """
    word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(bundle)}(?![A-Za-z0-9])")
    files = sorted(path for folder in EXECUTABLE for path in (ROOT / folder).rglob("*.py"))
    said = {path: words(ast.parse(path.read_text())) for path in files}
    return [path.relative_to(ROOT).as_posix() for path, texts in said.items() if any(map(word.search, texts))]


def words(tree: ast.AST) -> Iterator[str]:
    """Yield the strings and names of a module that are executed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None  # a docstring
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) | ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
                yield text
            case ast.FunctionDef(name=text) | ast.ClassDef(name=text) | ast.keyword(arg=str(text)):
                yield text


def inferer_size(bundle: Path) -> tuple[str, int, int, int]:
    """Return the class of a bundle's inferer, its levels above MONAI's, its keywords, and those it shows itself."""
    kind: Any = type(bundle_parser(bundle.name, "inference").get_parsed_content("inferer"))
    ours = [level for level in kind.__mro__ if level.__module__.startswith("common.")]
    signatures = {level: set(inspect.signature(level.__init__).parameters) - {"self", "options"} for level in ours}
    return kind.__name__, len(ours), len(set().union(*signatures.values())), len(signatures[kind])


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


if __name__ == "__main__":
    fire.Fire(figures)
