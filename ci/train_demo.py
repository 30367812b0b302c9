"""Remake a bundle's demonstration data and weights: ``python -m ci.train_demo gdpi``.

An overlay that has its own has a recipe of its own: ``python -m ci.train_demo wolleb_anomaly --overlay chexpert``.
Everything comes from ``common.phantoms`` and the bundle's own configs; sizes and budgets are those of its recipe. With
``--real_dir`` the weights learn from a folder of real data instead, if the recipe says how to split it.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import fire

from common.checkpoints import read_weights, save_atomically
from common.data.cases import list_cases
from common.data.prepare import PARTS, split_patients

from . import ROOT, bundle_folder, run_bundle, run_module
from .recipes import recipe_of


def train_demo(
    bundle: str, work_dir: str | None = None, num_workers: int = 2, overlay: str = "", real_dir: str | None = None
) -> None:
    """Write ``demo/`` and ``models/`` of a bundle, or ``demo/<overlay>/`` and ``models/<overlay>/``.

    Args:
        bundle: name of the folder in ``bundles/``.
        work_dir: folder of the training data, the logs and checkpoints; an interrupted training goes on from there.
            Default ``work/<bundle>[/<overlay>]`` in the repository.
        num_workers: processes that draw phantoms.
        overlay: config that lies over ``train.json``.
        real_dir: a folder with ``dataset.json`` and labels as ``common.data.prepare`` writes them. It stays as it is:
            its cases are split anew in ``<work_dir>/real``, where the logs and checkpoints then lie, too.

    Raises:
        ValueError: if the overlay has no recipe, or the recipe takes no real data.
        subprocess.CalledProcessError: if a step fails.
    """
    name = f"{bundle}/{overlay}".rstrip("/")
    recipe, root = recipe_of(bundle, overlay), bundle_folder(bundle)
    work, demo = Path(work_dir or ROOT / "work" / name).resolve(), root / "demo" / overlay
    start = time.perf_counter()
    if real_dir is not None:
        if not recipe.real:
            raise ValueError(f"expected a recipe that says how real data are split, that of {name} has no 'real'.")
        work = work / "real"
        split_anew(Path(real_dir), work / "data", **recipe.real)
    for path in demo.glob("*"):
        if path.is_file():  # a folder is the demonstration of an overlay
            path.unlink()
    for folder, sizes in ((demo, recipe.demo), (work / "data", recipe.data)):
        if not (folder / "dataset.json").is_file():
            run_module("common.phantoms", recipe.phantom, dst=folder, num_workers=num_workers, **sizes)
    for number, training in enumerate(recipe.trainings):
        config, options = training["config"], {name: value for name, value in training.items() if name != "config"}
        configs = [config, overlay] if overlay else [config]
        again = sum(earlier["config"] == config for earlier in recipe.trainings[:number])
        logs = work / (f"{config}_{again + 1}" if again else config)
        run_bundle(bundle, *configs, dataset_dir=work / "data", output_dir=logs, resume=True, **options)
    if recipe.half:
        halve(root / "models" / overlay / "model.pt")
    print(f"{name}: demonstration made in {(time.perf_counter() - start) / 60:.0f} minutes.")


def halve(path: Path) -> None:
    """Write weights anew in half precision, but for a threshold."""
    weights = read_weights(path)
    tables = {name: value.half() for name, value in weights.items() if value.is_floating_point() and value.ndim}
    save_atomically(weights | tables, path)


def split_anew(src: Path, dst: Path, fractions: Sequence[float], seed: int) -> None:
    """Write ``dataset.json`` of all cases of a data set, which stays where and as it is.

    Args:
        src: folder of the data set, with a ``dataset.json`` of its own.
        dst: another folder.
        fractions: of the patients for training, validation and testing.
        seed: of the split.

    Raises:
        FileNotFoundError: if there is no data set.
        ValueError: if ``dst`` lies in ``src``.
    """
    src, dst = src.resolve(), dst.resolve()
    if dst.is_relative_to(src):
        raise ValueError(f"expected a folder outside {src}, which is left as it is, got {dst}.")
    content = json.loads((src / "dataset.json").read_text())
    there = [part for part in PARTS if content.get(part)]
    items = [item for part in there for item in list_cases(str(src), part, check=False, sequences=None)]
    part_of = split_patients((item["patient"] for item in items), fractions, seed)
    content |= {part: [item for item in items if part_of[item["patient"]] == part] for part in PARTS}
    dst.mkdir(parents=True, exist_ok=True)
    (dst / "dataset.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    fire.Fire(train_demo)
