"""Remake a bundle's demonstration data and weights: ``python -m ci.train_demo gdpi``.

Everything comes from ``common.phantoms`` and the bundle's own configs; what is written here are sizes and budgets.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import fire

from . import ROOT


class Recipe(NamedTuple):
    """How the demonstration of a bundle is made: options of the command lines in the order they are run."""

    phantom: str
    """Which body part ``common.phantoms`` draws."""
    demo: dict[str, Any]
    """Of the data set in ``demo/``."""
    data: dict[str, Any]
    """Of the data set that the weights are trained on; its patients are not those of the tests."""
    trainings: tuple[tuple[str, dict[str, float | str]], ...]
    """Config and options of each training."""


RECIPES = {
    "gdpi": Recipe(
        phantom="abdomen_ct",
        demo={"training": 2, "validation": 2, "testing": 3, "healthy_share": 0.5},
        data={"training": 400, "validation": 12, "healthy_share": 0.75},
        trainings=(
            (
                "train",
                {
                    "train_parts": "all",
                    "organ_max_epochs": 24,
                    "max_epochs": 140,
                    "val_interval": 4,
                    "task_interval": 68,
                },
            ),
            ("baselines", {"max_epochs": 30, "val_interval": 3}),
        ),
    ),
    "wolleb_anomaly": Recipe(
        phantom="brain_mr",
        demo={"training": 2, "validation": 2, "testing": 3, "shape": (64, 76, 10)},
        data={"training": 240, "validation": 12, "healthy_share": 0.25},
        trainings=(
            (
                "train",
                {
                    "train_parts": "all",
                    "classifier_max_epochs": 40,
                    "regressor_max_epochs": 30,
                    "segmenter_max_epochs": 30,
                    "max_epochs": 100,
                    "val_interval": 2,
                    "task_interval": 50,
                },
            ),
        ),
    ),
}


def train_demo(bundle: str, work_dir: str | None = None, num_workers: int = 2) -> None:
    """Write ``demo/`` and ``models/`` of a bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        work_dir: folder of the training data, the logs and checkpoints; an interrupted training goes on from there.
            Default ``work/<bundle>`` in the repository.
        num_workers: processes that draw phantoms.

    Raises:
        ValueError: if there is no recipe for the bundle.
        subprocess.CalledProcessError: if a step fails.
    """
    if bundle not in RECIPES:
        raise ValueError(f"expected one of {', '.join(RECIPES)}, got {bundle}.")
    recipe, root = RECIPES[bundle], ROOT / "bundles" / bundle
    work = Path(work_dir or ROOT / "work" / bundle).resolve()
    start = time.perf_counter()
    shutil.rmtree(root / "demo", ignore_errors=True)
    for folder, sizes in ((root / "demo", recipe.demo), (work / "data", recipe.data)):
        if not (folder / "dataset.json").is_file():
            _python("common.phantoms", recipe.phantom, dst=folder, num_workers=num_workers, **sizes)
    for config, options in recipe.trainings:
        _python(
            "monai.bundle",
            "run",
            config_file=root / "configs" / f"{config}.json",
            logging_file=root / "configs" / "logging.conf",
            dataset_dir=work / "data",
            output_dir=work / config,
            resume=True,
            **options,
        )
    print(f"{bundle}: demonstration made in {(time.perf_counter() - start) / 60:.0f} minutes.")


def _python(module: str, *names: str, **options: object) -> None:
    arguments = [f"--{name}={value}" for name, value in options.items()]
    print(" ".join(["python -m", module, *names, *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", module, *names, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    fire.Fire(train_demo)
