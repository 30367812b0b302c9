"""What a maintainer runs."""

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.paths import bundle_named, bundles_in

ROOT = Path(__file__).resolve().parent.parent


def bundle_folder(bundle: str) -> Path:
    """Return the folder of a bundle of the repository.

    Raises:
        FileNotFoundError: if there is none of that name.
    """
    return bundle_named(bundle, bundles_in(ROOT / "bundles"))


def bundle_names() -> list[str]:
    """Return the names of all folders in ``bundles/`` that are bundles."""
    return list(bundles_in(ROOT / "bundles"))


def bundle_parser(bundle: str, *configs: str, **settings: Any) -> ConfigParser:
    """Return the parser of a bundle's configs, later ones over earlier ones, and settings over all of them."""
    parser = ConfigParser()
    parser.read_config([str(bundle_folder(bundle) / "configs" / f"{config}.json") for config in configs])
    parser.update(deepcopy(settings))  # a nested id writes into what an id above it was set to
    return parser


def run_module(module: str, *words: object, **options: object) -> None:
    """Run ``python -m`` in the repository, and say so.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    arguments = [*map(str, words), *(f"--{name}={value}" for name, value in options.items())]
    print(" ".join(["python -m", module, *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True)


def run_bundle(bundle: str, *configs: str, **options: object) -> None:
    """Run a bundle of the repository, as its users do.

    Args:
        bundle: name of the folder in ``bundles/``.
        configs: names of files, later ones over earlier ones.
        options: keys that are set.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    folder = bundle_folder(bundle) / "configs"
    files = [str(folder / f"{config}.json") for config in configs]
    run_module("monai.bundle", "run", config_file=files, logging_file=folder / "logging.conf", **options)
