"""The bundles in a few words: ``python -m common infer gdpi ct.nii.gz -o out``.

Each command prints the ``python -m monai.bundle run`` that it stands for, and runs it.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from .options import is_computed, options_of
from .paths import bundle_named, bundle_root, bundles_in

CONFIGS = {"infer": ("inference",), "evaluate": ("inference", "evaluate"), "train": ("train",)}
"""That a command runs, later ones over earlier ones."""

DOES = {
    "infer": "run a bundle on images, by default on its demonstration",
    "evaluate": "the same, and compare the results with labels",
    "train": "train all parts of a bundle on a data set; the weights are OUT/model.pt",
}

ELSEWHERE = ("train", "inference", "evaluate", "metadata", "baselines", "multi_gpu_train", "multi_gpu_inference")
"""Configs that are no overlays, stand alone, or are for ``torchrun``."""

WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Of the run, unless the environment says otherwise: threads that wait for others sleep, for the cores may be busy."""

SHOWN = 40
"""Letters of a default, at the most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status.

    Args:
        arguments: as typed, by default those of the program.
    """
    parser = _parser()
    own, keys = _divided(sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_args(own if own[:1] and own[0] in CONFIGS else [*own, *keys])
    try:
        return _run(given, keys) if given.command in CONFIGS else _tell(given)
    except FileNotFoundError as error:
        parser.error(str(error))


def _divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what this program reads, and the keys of configs with their values."""
    own: list[str] = []
    keys: list[str] = []
    waits = False
    for word in arguments:
        flag = re.match(r"--?[a-zA-Z]", word)
        if word.startswith("--") and word.split("=")[0] not in ("--help", "--output_dir", "--config"):
            keys.append(word)
            waits = "=" not in word
        else:
            (keys if waits and not flag else own).append(word)
            waits = False
    return own, keys


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m common", description="Bundles of generative models for lesions.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in DOES.items():
        after = "Other options, --KEY VALUE, are keys of the configs; `info BUNDLE` lists them."
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=after)
        command.add_argument("bundle", help="a name that `list` prints")
        command.add_argument(
            "data", nargs="?", help="an image, a folder of them, or one with dataset.json; by default the demonstration"
        )
        command.add_argument("-o", "--output_dir", metavar="OUT", help="folder of the results; default ./BUNDLE_out")
        command.add_argument(
            "-c", "--config", action="append", default=[], metavar="OVERLAY", help="such as paper; may come again"
        )
    commands.add_parser("list", help="the bundles that are here, and what they are for")
    info = commands.add_parser("info", help="what a bundle does, its overlays, and its options")
    info.add_argument("bundle", help="a name that `list` prints")
    return parser


def _run(given: argparse.Namespace, more: Sequence[str]) -> int:
    """Run ``python -m monai.bundle run``."""
    root, typed = (
        bundle_named(given.bundle, _bundles()),
        {word.split("=")[0].lstrip("-") for word in more if word.startswith("--")},
    )
    first, *others = CONFIGS[given.command]
    files = [root / "configs" / f"{name}.json" for name in (first, *given.config, *others)]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{given.bundle} has no overlay {file.stem}; it has {', '.join(_overlays(root))}")
    output_dir = Path(given.output_dir or f"{given.bundle}_out")
    options: dict[str, Any] = {"output_dir": output_dir}
    if given.data is not None:
        options["dataset_dir"] = given.data
    if given.command == "train":
        options |= {"model_path": output_dir / "model.pt", "train_parts": "all"}
    words = [f"--{key}={value}" for key, value in options.items() if key not in typed]
    shown = [_near(file) for file in files]
    config_file = f"--config_file={shown[0] if len(shown) == 1 else shown}"
    command = [sys.executable, "-m", "monai.bundle", "run", config_file, *words, *more]
    print(shlex.join(["python", *command[1:]]), flush=True)
    return subprocess.run(command, check=False, env=WAITING | os.environ).returncode


def _tell(given: argparse.Namespace) -> int:
    """Print what is asked for of bundles."""
    if given.command == "list":
        bundles = _bundles()
        for name, root in bundles.items():
            print(f"{name.ljust(max(map(len, bundles)))}  {_metadata(root)['task']}")
        return 0
    root = bundle_named(given.bundle, _bundles())
    metadata = _metadata(root)
    print(f"{given.bundle} {metadata['version']}: {metadata['task']}\n")
    print(f"{metadata['description']}\n{metadata['intended_use']}\n")
    weights = root / "models" / "model.pt"
    print(f"Weights: {_near(weights) if weights.is_file() else 'none, train it first'}")
    print(f"Data: {metadata['data_source']}")
    print("\nOverlays (--config):")
    for name, text in _overlays(root).items():
        print(f"  {name}: {text}")
    print("\nOptions (--KEY VALUE):")
    for row in _option_rows(root):
        print("  " + "  ".join(row))
    return 0


def _option_rows(root: Path) -> list[tuple[str, ...]]:
    """Return key, default and meaning of the options of inference, and of training where that has others."""
    known, rows, seen = options_of(root), [], set[str]()
    for config in ("inference", "train"):
        keys: Mapping[str, Any] = json.loads((root / "configs" / f"{config}.json").read_text(encoding="utf-8"))
        for key in [key for key in keys if key in known and key not in seen]:
            option, default = known[key], keys.get("displayable_configs", {}).get(key, keys[key])
            computed = isinstance(default, dict) or is_computed(default)
            meaning = [option.meaning, option.unit, f"({', '.join(option.choices)})" if option.choices else ""]
            text = "" if computed else shorten(json.dumps(default), SHOWN, placeholder=" ...")
            rows.append((key, text, " ".join(filter(None, meaning))))
            seen.add(key)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [(key.ljust(widths[0]), default.ljust(widths[1]), meaning) for key, default, meaning in rows]


def _overlays(root: Path) -> dict[str, str]:
    """Return what each overlay of a bundle is for."""
    files = sorted(path for path in root.glob("configs/*.json") if path.stem not in ELSEWHERE)
    return {path.stem: json.loads(path.read_text(encoding="utf-8")).get("_desc_", "") for path in files}


def _bundles() -> dict[str, Path]:
    """Return the folders of all bundles by their names.

    Raises:
        FileNotFoundError: if there is none, as where the package was installed without them.
    """
    beside = Path(bundle_root("")).resolve()
    if (beside / "configs" / "metadata.json").is_file():  # this package was packed into one
        return {beside.name: beside}
    if not (found := bundles_in(beside)):
        raise FileNotFoundError(
            f"there are no bundles at {beside}: clone the repository and install it by `pip install -e .` there, as a "
            "plain install has the Python alone"
        )
    return found


def _metadata(root: Path) -> dict[str, Any]:
    return json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))


def _near(path: Path) -> str:
    """Return a path as it is typed from the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    sys.exit(main())
