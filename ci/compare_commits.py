"""Tell whether two commits give the same maps, masks, scores and weights: ``python -m ci.compare_commits OLD NEW``.

Each commit is checked out by itself. There, on one thread, the demonstration of each bundle is run and evaluated, so
are the overlays in ``OVERLAYS``, and each stage and baseline trains two epochs. What comes out is kept by commit, so
that one commit is compared with many; tables are compared as text, images and weights bit for bit.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import fire
import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from . import ROOT

OVERLAYS = ("cam", "chexpert", "regression")
"""Configs that lie over ``inference.json`` and run on a demonstration; one that has weights is also trained."""

EPOCHS = 2


class Run(NamedTuple):
    """A command line of a commit.

    Attributes:
        name: folder of what comes out.
        bundle: name of its folder.
        configs: names of files, later ones over earlier ones.
        options: keys that are set; of several runs one after the other, those of each.
    """

    name: str
    bundle: str
    configs: tuple[str, ...]
    options: tuple[dict[str, Any], ...]


def runs_of(tree: Path) -> Iterator[Run]:
    """Yield the command lines of a commit that is checked out."""
    for bundle in sorted(path.parent.parent for path in tree.glob("bundles/*/configs/metadata.json")):
        overlays = [name for name in OVERLAYS if (bundle / "configs" / f"{name}.json").is_file()]
        for layer in [(), *((name,) for name in overlays)]:
            yield Run("_".join(["demo", *layer]), bundle.name, ("inference", *layer, "evaluate"), ({},))
        for layer in [(), *((name,) for name in overlays if (bundle / "models" / name).is_dir())]:
            yield Run("_".join(["train", *layer]), bundle.name, ("train", *layer), ({"train_parts": "all"},))
        if not (bundle / "configs" / "baselines.json").is_file():
            continue
        baselines = json.loads((bundle / "configs" / "baselines.json").read_text())
        parts = [name for name in baselines["network_def"] if not name.startswith("_") and name != "main"]
        each = "trainer" in baselines and "part" in baselines  # as it once was, a run trained one part
        yield Run("baselines", bundle.name, ("baselines",), tuple({"part": part} for part in parts) if each else ({},))


def record(tree: Path, run: Run, folder: Path) -> None:
    """Do a run and keep what comes out; one that is there already is not done again."""
    done, configs = (
        folder / "exit_status",
        [tree / "bundles" / run.bundle / "configs" / f"{c}.json" for c in run.configs],
    )
    if done.is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    common: dict[str, Any] = {"output_dir": folder}
    if "inference" not in run.configs:
        keys = {key for config in configs for key in json.loads(config.read_text())}
        epochs = {key: EPOCHS for key in keys if key.endswith("max_epochs") or key == "task_interval"}
        common |= {"model_path": folder / "model.pt", **epochs}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(config) for config in configs])]
    statuses = []
    with open(folder / "log.txt", "w") as log:
        for options in run.options:
            process = subprocess.run(
                [*command, *(f"--{key}={value}" for key, value in {**common, **options}.items())],
                cwd=tree,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)},
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
            statuses.append(process.returncode)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    done.write_text(str(max(statuses, key=abs)))


def content(path: Path) -> dict[str, NDArray[Any] | str]:
    """Return what a file says, by name: an image's voxels and affine, weights, text."""
    if path.name.endswith(".nii.gz"):
        image: Any = nib.load(path)
        return {"voxels": np.asarray(image.dataobj), "affine": image.affine}
    if path.suffix == ".pt":
        return {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}
    return {"text": path.read_text()}


def difference(old: Path, new: Path) -> str:
    """Return in words how two files differ, nothing where they are the same."""
    if not new.is_file() or not old.is_file():
        return "is missing on one side"
    ours, theirs = content(old), content(new)
    unshared = sorted(ours.keys() ^ theirs.keys())
    if unshared:
        shared = differing(ours, {name: value for name, value in theirs.items() if name in ours})
        return f"has other names: {unshared[:3]}; the rest {shared or 'is the same'}"
    return differing(ours, theirs)


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return in words how two contents differ in the names of the second, nothing where they are the same."""
    worst = 0.0
    for name, other in theirs.items():
        value = ours[name]
        if isinstance(value, str) or isinstance(other, str):
            if value != other:
                return "has another text"
        elif value.shape != other.shape or value.dtype != other.dtype:
            return f"{name}: {value.dtype} {value.shape} became {other.dtype} {other.shape}"
        elif not np.array_equal(value, other, equal_nan=value.dtype.kind == "f"):
            finite = np.isfinite(value)
            if not np.array_equal(np.where(finite, 0, value), np.where(np.isfinite(other), 0, other), equal_nan=True):
                return f"{name}: NaN or infinite in other places"
            own, theirs = value[finite].astype(np.float64), other[finite].astype(np.float64)
            scale = max(np.ptp(own), np.abs(own).max(), 1e-12)  # of one number: itself
            worst = max(worst, float(np.abs(own - theirs).max() / scale))
    return f"differs by up to {worst:.2g} of its range" if worst else ""


def compare_commits(
    old: str, new: str = "HEAD", bundle: str = "", work_dir: str | None = None, num_workers: int = 2
) -> None:
    """Print for each run of two commits how many files are the same, and which differ.

    Args:
        old: a commit.
        new: another one.
        bundle: name of one bundle; all by default.
        work_dir: where what comes out is kept. Default ``work/commits`` in the repository.
        num_workers: runs that go on at the same time, each on one thread.

    Raises:
        SystemExit: if a file differs, is missing, or a run ended otherwise.
    """
    work = Path(work_dir or ROOT / "work" / "commits").resolve()
    folders = []
    for name in (old, new):
        sha = _git("rev-parse", "--short=12", f"{name}^{{commit}}")
        folders.append(work / sha)
        if not (work / sha / "tree").is_dir():
            _git("worktree", "prune")
            _git("worktree", "add", "--detach", str(work / sha / "tree"), sha)
    runs = {folder: [run for run in runs_of(folder / "tree") if bundle in ("", run.bundle)] for folder in folders}
    with ThreadPoolExecutor(num_workers) as pool:
        jobs = [
            pool.submit(record, folder / "tree", run, folder / run.bundle / run.name)
            for folder, all_runs in runs.items()
            for run in all_runs
        ]
        for job in jobs:
            job.result()
    found = {str(path.relative_to(folder)) for folder in folders for path in _outputs(folder, runs[folder])}
    differing = 0
    for name in sorted({str(Path(path).parents[-3]) for path in found}):
        files = sorted(path for path in found if path.startswith(f"{name}/"))
        differences = {path: words for path in files if (words := difference(folders[0] / path, folders[1] / path))}
        print(f"{name}: {len(files) - len(differences)} of {len(files)} files are the same")
        for path, words in differences.items():
            print(f"    {path} {words}")
        differing += len(differences)
    if differing:
        raise SystemExit(f"{differing} files differ.")


def _outputs(folder: Path, runs: list[Run]) -> Iterator[Path]:
    """Yield what is compared: images, tables, weights, and how each run ended."""
    for run in runs:
        for pattern in ("*.nii.gz", "*.csv", "model.pt", "exit_status"):
            yield from (folder / run.bundle / run.name).rglob(pattern)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    fire.Fire(compare_commits)
