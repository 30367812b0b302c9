"""What the MONAI model zoo asks of a bundle beyond our own checks, for ``ci.verify_bundle``.

A rule is a function of the folder that the archive unpacks to. It raises where the bundle breaks it, and returns why
the bundle is excluded from it, or nothing where it is held.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ckpt_export
from torch.jit.frontend import FrontendError

from . import ROOT
from .compare_commits import difference
from .pack_bundle import pretty
from .recipes import recipe_of

Rule = Callable[[Path], str | None]

SECTIONS = (
    *("Task", "Authors", "Data", "Performance", "System configuration", "Limitations", "Citation", "References"),
)
MAX_FILE, MAX_LARGE_FILE = 2**20, 25 * 10**6
"""Bytes of a file in the zoo's repository, and of one that its ``large_files.yml`` names."""

LARGE_FILE = ("path", "url", "hash_val", "hash_type")
TEXTS = ("", ".conf", ".html", ".json", ".md", ".py", ".txt", ".yml")
TASKS = ("anomaly", "classification", "segmentation", "synthesis")


def check_torchscript(root: Path) -> str | None:
    """The network is exported without being traced, or the recipe says why not, and the card that it is not."""
    reason = recipe_of(root.name).no_torchscript
    try:
        export(root)
    except (FrontendError, RuntimeError):
        if not reason:
            raise
        _check_card_excludes(root, "TorchScript")
        return reason
    if reason:
        raise ValueError(f"the network is exported, though its recipe says: {reason}")
    return None


def check_tensorrt(root: Path) -> str:
    """The card says that TensorRT is not supported: it takes what TorchScript exports, and nothing was tried."""
    _check_card_excludes(root, "TensorRT")
    return "nothing was tried with it"


def check_sizes(root: Path) -> None:
    """What is too large for the zoo's repository are weights, and what ``large_files.yml`` names is named in full."""
    wrong = [path for path in large_files(root) if path.suffix != ".pt" or path.stat().st_size > MAX_LARGE_FILE]
    if wrong:
        raise ValueError(f"expected weights of at most 25 MB, got {[str(path.relative_to(root)) for path in wrong]}")
    for entry in ConfigParser.load_config_file(root / "large_files.yml")["large_files"]:
        if sorted(entry) != sorted(LARGE_FILE):
            raise ValueError(f"expected an entry of {', '.join(LARGE_FILE)} in large_files.yml, got {entry}")


def check_json(root: Path) -> None:
    """JSON is as ``pretty-format-json --no-sort-keys --indent=4`` leaves it."""
    other = [str(p.relative_to(root)) for p in root.rglob("*.json") if p.read_bytes() != pretty(p.read_bytes())]
    if other:
        raise ValueError(f"formatted otherwise: {other}")


def check_texts(root: Path) -> None:
    """Texts have no blanks or carriage returns at the ends of their lines, and one newline at their own."""
    texts = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix in TEXTS}
    wrong = [
        str(path.relative_to(root))
        for path, text in texts.items()
        if text and (re.search(rb"[ \t\r]$", text, re.MULTILINE) or not re.search(rb"[^\n]\n\Z", text))
    ]
    if wrong:
        raise ValueError(f"blanks at the ends of lines, or not one newline at the end: {wrong}")


def check_python(root: Path) -> None:
    """Python is as ruff leaves it, which stands here for black without magic trailing commas, isort and flake8."""
    for command in (["format", "--check"], ["check"]):
        _run("ruff", *command, "--no-cache", "--config", ROOT / "pyproject.toml", root / "scripts", cwd=root)


def check_card(root: Path) -> None:
    """The card has the zoo's sections, in their order."""
    there = re.findall(r"^## (.+?) *$", (root / "docs" / "README.md").read_text(), re.MULTILINE)
    if (found := [name for name in there if name in SECTIONS]) != [*SECTIONS]:
        raise ValueError(f"expected the sections {', '.join(SECTIONS)} in this order, got {', '.join(found) or 'none'}")


def check_name(root: Path) -> None:
    """The published name says the data and the task."""
    metadata = metadata_of(root)
    words = metadata["published_name"].split("_")
    modality = metadata["network_data_format"]["inputs"]["image"]["modality"].lower().replace("-", "")
    if modality not in words or not set(TASKS) & set(words):
        raise ValueError(f"expected {modality} and one of {', '.join(TASKS)} in it, got {metadata['published_name']}")


def check_packages(root: Path) -> None:
    """The metadata ask for packages at the versions that are tested."""
    tested = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    asked = packages(metadata_of(root))
    if other := {name: version for name, version in asked.items() if tested.get(name) != version}:
        raise ValueError(f"expected the versions of requirements.txt, got {other}")


def check_same_results(root: Path) -> None:
    """From inside ``models/<name>``, the archive finds in its demonstration what the repository does, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        options = recipe_of(root.name).fast.get("inference", {})
        config = Path("configs", "inference.json")
        _run_config(ROOT / "bundles" / root.name / config, ROOT, output_dir=ours, **options)
        _run_config(config, root, output_dir=theirs, **options)
        found = {path.relative_to(top) for top in (ours, theirs) for path in results(top)}
        differing = {str(path): words for path in found if (words := difference(ours / path, theirs / path))}
    if differing or not found:
        raise ValueError(f"of {len(found)} files differ: {differing}")


RULES: dict[str, Rule] = {
    "zoo: the network exports to TorchScript without being traced": check_torchscript,
    "zoo: the network compiles with TensorRT": check_tensorrt,
    "zoo: sizes of files": check_sizes,
    "zoo: JSON as its pre-commit hook leaves it": check_json,
    "zoo: texts as its pre-commit hooks leave them": check_texts,
    "zoo: Python as its formatters leave it": check_python,
    "zoo: sections of the card": check_card,
    "zoo: a published name that says task and data": check_name,
    "zoo: packages at the versions that are tested": check_packages,
    "zoo: the archive gives the repository's results": check_same_results,
    "zoo: the schema that it publishes": lambda root: "it has to be downloaded; ours above is a copy of its fields",
    "zoo: a version that its model_info.json does not have": lambda root: "the list is the zoo's, and not at hand",
    "zoo: eval_metrics": lambda root: "scores on phantoms would be read as scores on patients; they are in the card",
    "zoo: a unit test in its repository": lambda root: "recommended only; tests of the collection run each config",
}


def large_files(root: Path) -> list[Path]:
    """Return the files that the zoo's repository does not take."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size > MAX_FILE)


def metadata_of(root: Path) -> dict[str, Any]:
    """Return the metadata of a bundle's folder."""
    return json.loads((root / "configs" / "metadata.json").read_text())


def packages(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return what the zoo installs for a bundle: versions of packages, by name."""
    always = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    return {name: metadata[key] for name, key in always.items()} | metadata["required_packages_version"]


def results(folder: Path) -> list[Path]:
    """Return what a run has found, without its pictures and pages, which say when it was."""
    return [path for pattern in ("*.nii.gz", "*.csv") for path in sorted(folder.rglob(pattern))]


def export(root: Path, **options: Any) -> None:
    """Export the network with its weights to TorchScript, and look at nothing but whether that fails.

    Args:
        root: folder of the bundle.
        options: of MONAI's ``ckpt_export``.
    """
    configs = root / "configs"
    with tempfile.TemporaryDirectory() as folder:
        ckpt_export(
            net_id="network_def",
            filepath=str(Path(folder) / "model.ts"),
            ckpt_file=str(root / "models" / "model.pt"),
            meta_file=str(configs / "metadata.json"),
            config_file=str(configs / "inference.json"),
            **options,
        )


def _check_card_excludes(root: Path, what: str) -> None:
    if not re.search(rf"\b{what}\b[^.]*\bnot supported\b", (root / "docs" / "README.md").read_text()):
        raise ValueError(f'expected a sentence in the card, as "{what} is not supported.", found none')


def _run_config(config: Path, cwd: Path, **options: object) -> None:
    words = [f"--{name}={value}" for name, value in options.items()]
    _run("monai.bundle", "run", "--config_file", config, *words, cwd=cwd)


def _run(module: str, *words: object, cwd: Path) -> None:
    """Run ``python -m`` and raise with the end of what it said if it fails."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, words)], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{module} failed: {(done.stdout + done.stderr)[-500:].strip()}")
