"""Several processes train and validate as one does, with draws that are fixed by slice."""

import json
import shutil
import socket

import pytest
import torch
from bundle_runs import BUNDLES, ROOT, config_of
from first_step import first_step
from torch.multiprocessing import spawn

from ci.recipes import recipe_of
from common.phantoms.__main__ import write_phantoms

SHARED = [name for name in BUNDLES if not {"sampler", "critics"} & config_of(name, "train")["train"].keys()]
"""Those whose processes share a batch.

Where batches are drawn, each process draws its own; a generator that learns against critics normalises by what its own
process has of a batch.
"""

TRAINING, VALIDATION = 4, 3
"""Cases: two processes share the first evenly, and all are in the first batch; of the second they have 2 and 1."""


def labelled_cases(bundle, folder):
    """Copy the cases of a demonstration, or draw some where too few of them have lesions, and split them anew."""
    shutil.copytree(ROOT / "bundles" / bundle / "demo", folder)
    listed = json.loads((folder / "dataset.json").read_text())
    cases = [case for split in ("training", "validation", "testing") for case in listed[split]]
    if len(cases) < TRAINING + VALIDATION:
        shutil.rmtree(folder)
        recipe = recipe_of(bundle)
        labels = {"both_labels": recipe.data.get("both_labels", False)}
        write_phantoms(recipe.phantom, str(folder), training=TRAINING + VALIDATION, healthy_share=0.0, **labels)
        cases = json.loads((folder / "dataset.json").read_text())["training"]
    splits = {"training": cases[:TRAINING], "validation": cases[TRAINING : TRAINING + VALIDATION]}
    (folder / "dataset.json").write_text(json.dumps(splits))


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("bundle", SHARED)
def test_two_processes_train_and_validate_as_one_does(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # float64, and one device might be all there is
    data = tmp_path / "data"
    labelled_cases(bundle, data)
    for processes in (1, 2):
        spawn(first_step, (bundle, processes, TRAINING, free_port(), data), nprocs=processes)
    one, two = (torch.load(data / f"{processes}.pt", weights_only=True) for processes in (1, 2))
    assert max(gradient.abs().max() for gradient in one["gradients"].values()) > 1e-4
    torch.testing.assert_close(two["gradients"], one["gradients"], rtol=0, atol=1e-10)
    torch.testing.assert_close(two["metrics"], one["metrics"], rtol=0, atol=1e-6)
