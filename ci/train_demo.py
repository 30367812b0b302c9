"""Remake a bundle's demonstration data and weights: ``python -m ci.train_demo gdpi``.

An overlay that has its own has a recipe of its own: ``python -m ci.train_demo wolleb_anomaly --overlay chexpert``.
Everything comes from ``common.phantoms`` and the bundle's own configs; what is written here are sizes and budgets.
"""

import subprocess
import sys
import time
from collections.abc import Mapping
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
    trainings: tuple[tuple[str, Mapping[str, float | str]], ...]
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
        demo={"training": 2, "validation": 2, "testing": 2, "healthy_testing": 1, "shape": (64, 76, 6)},
        data={"training": 240, "validation": 12, "healthy_share": 0.25},
        trainings=(
            (
                "train",
                {
                    "train_parts": "all",
                    "classifier_max_epochs": 100,
                    "regressor_max_epochs": 100,
                    "segmenter_max_epochs": 40,
                    "max_epochs": 96,
                    "val_interval": 4,
                    "task_interval": 48,
                },
            ),
            ("baselines", {"max_epochs": 40, "val_interval": 4}),
        ),
    ),
    "wolleb_anomaly/chexpert": Recipe(
        phantom="chest_xray",
        demo={"training": 2, "validation": 2, "testing": 4, "shape": (88, 96)},
        data={"training": 960, "validation": 32, "shape": (88, 96)},
        trainings=(
            (
                "train",
                {
                    "train_parts": "all",
                    "classifier_max_epochs": 30,
                    "max_epochs": 12,
                    "val_interval": 2,
                    "task_interval": 6,
                },
            ),
        ),
    ),
    "pancreas_anomaly": Recipe(
        phantom="pancreas_ct",
        demo={"training": 2, "validation": 2, "testing": 4, "shape": (120, 96, 8)},
        data={"training": 320, "validation": 12},
        trainings=(
            (
                "train",
                {
                    "train_parts": "all",
                    "organ_max_epochs": 24,
                    "classifier_max_epochs": 100,
                    "max_epochs": 20,
                    "val_interval": 2,
                    "task_interval": 10,
                },
            ),
            ("baselines", {"max_epochs": 24, "val_interval": 2}),
        ),
    ),
    "ensemble_segmentation": Recipe(
        phantom="brain_mr",
        demo={"training": 2, "validation": 2, "testing": 3, "shape": (64, 76, 6)},
        data={"training": 240, "validation": 12, "healthy_share": 0.0},
        trainings=(
            ("train", {"train_parts": "all", "max_epochs": 120, "val_interval": 4, "task_interval": 40}),
            *(
                ("baselines", {"part": part, "max_epochs": 60, "val_interval": 4})
                for part in ("unet", "dropout", "aleatoric", "dynunet")
            ),
        ),
    ),
    "cdm": Recipe(
        phantom="brain_mr",
        demo={"training": 2, "validation": 2, "testing": 3, "healthy_testing": 1, "shape": (64, 76, 6)},
        data={"training": 240, "validation": 12, "healthy_share": 0.25},
        trainings=(
            (
                "train",
                {
                    "train_parts": "all",
                    "classifier_max_epochs": 100,
                    "max_epochs": 96,
                    "val_interval": 4,
                    "task_interval": 24,
                },
            ),
            ("baselines", {"max_epochs": 60, "val_interval": 4}),
        ),
    ),
}
"""By the name of the bundle, or of the bundle and an overlay."""


def train_demo(bundle: str, work_dir: str | None = None, num_workers: int = 2, overlay: str = "") -> None:
    """Write ``demo/`` and ``models/`` of a bundle, or ``demo/<overlay>/`` and ``models/<overlay>/``.

    Args:
        bundle: name of the folder in ``bundles/``.
        work_dir: folder of the training data, the logs and checkpoints; an interrupted training goes on from there.
            Default ``work/<bundle>[/<overlay>]`` in the repository.
        num_workers: processes that draw phantoms.
        overlay: config that lies over ``train.json``.

    Raises:
        ValueError: if there is no recipe for the bundle, or for its overlay.
        subprocess.CalledProcessError: if a step fails.
    """
    name = f"{bundle}/{overlay}".rstrip("/")
    if name not in RECIPES:
        raise ValueError(f"expected one of {', '.join(RECIPES)}, got {name}.")
    recipe, root = RECIPES[name], ROOT / "bundles" / bundle
    work, demo = Path(work_dir or ROOT / "work" / name).resolve(), root / "demo" / overlay
    start = time.perf_counter()
    for path in demo.glob("*"):
        if path.is_file():  # a folder is the demonstration of an overlay
            path.unlink()
    for folder, sizes in ((demo, recipe.demo), (work / "data", recipe.data)):
        if not (folder / "dataset.json").is_file():
            _python("common.phantoms", recipe.phantom, dst=folder, num_workers=num_workers, **sizes)
    for config, options in recipe.trainings:
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
