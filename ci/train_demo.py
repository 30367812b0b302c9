"""Remake a bundle's demonstration data and weights: ``python -m ci.train_demo gdpi``.

An overlay that has its own has a recipe of its own: ``python -m ci.train_demo wolleb_anomaly --overlay chexpert``.
Everything comes from ``common.phantoms`` and the bundle's own configs; sizes and budgets are those of its recipe.
"""

import subprocess
import sys
import time
from pathlib import Path

import fire

from . import ROOT
from .recipes import recipe_of


def train_demo(bundle: str, work_dir: str | None = None, num_workers: int = 2, overlay: str = "") -> None:
    """Write ``demo/`` and ``models/`` of a bundle, or ``demo/<overlay>/`` and ``models/<overlay>/``.

    Args:
        bundle: name of the folder in ``bundles/``.
        work_dir: folder of the training data, the logs and checkpoints; an interrupted training goes on from there.
            Default ``work/<bundle>[/<overlay>]`` in the repository.
        num_workers: processes that draw phantoms.
        overlay: config that lies over ``train.json``.

    Raises:
        ValueError: if the overlay has no recipe.
        subprocess.CalledProcessError: if a step fails.
    """
    name = f"{bundle}/{overlay}".rstrip("/")
    recipe, root = recipe_of(bundle, overlay), ROOT / "bundles" / bundle
    work, demo = Path(work_dir or ROOT / "work" / name).resolve(), root / "demo" / overlay
    start = time.perf_counter()
    for path in demo.glob("*"):
        if path.is_file():  # a folder is the demonstration of an overlay
            path.unlink()
    for folder, sizes in ((demo, recipe.demo), (work / "data", recipe.data)):
        if not (folder / "dataset.json").is_file():
            _python("common.phantoms", recipe.phantom, dst=folder, num_workers=num_workers, **sizes)
    for training in recipe.trainings:
        config, options = training["config"], {name: value for name, value in training.items() if name != "config"}
        configs = [config, overlay] if overlay else [config]
        _python(
            "monai.bundle",
            "run",
            config_file=[str(root / "configs" / f"{layer}.json") for layer in configs],
            logging_file=root / "configs" / "logging.conf",
            dataset_dir=work / "data",
            output_dir=work / config,
            resume=True,
            **options,
        )
    print(f"{name}: demonstration made in {(time.perf_counter() - start) / 60:.0f} minutes.")


def _python(module: str, *names: str, **options: object) -> None:
    arguments = [f"--{name}={value}" for name, value in options.items()]
    print(" ".join(["python -m", module, *names, *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", module, *names, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    fire.Fire(train_demo)
