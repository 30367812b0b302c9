"""Runs of bundles as their users start them, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAST = {
    "gdpi": {
        "inference": {"num_inference_steps": 2, "jump_length": 1, "num_resamples": 1, "num_samples": 1},
        "train": {"organ_max_epochs": 1, "max_epochs": 1, "task_interval": 1, "num_inference_steps": 4}
        | {"task_inference_steps": 2, "jump_length": 2, "num_resamples": 1, "num_samples": 1, "volumes_per_batch": 2},
        "baselines": {"max_epochs": 1, "volumes_per_batch": 2},
    },
    "wolleb_anomaly": {
        "inference": {"num_inference_steps": 8},
        "train": {f"{part}max_epochs": 1 for part in ("classifier_", "regressor_", "segmenter_", "")}
        | {"task_interval": 1, "num_inference_steps": 8, "task_inference_steps": 8, "volumes_per_batch": 2},
        "baselines": {"max_epochs": 1, "volumes_per_batch": 2},
    },
    "pancreas_anomaly": {
        "inference": {"num_inference_steps": 4},
        "train": {f"{part}max_epochs": 1 for part in ("organ_", "classifier_", "")}
        | {"task_interval": 1, "num_inference_steps": 4, "task_inference_steps": 4, "volumes_per_batch": 2},
        "baselines": {"max_epochs": 1, "volumes_per_batch": 2},
    },
    "ensemble_segmentation": {
        "inference": {"num_inference_steps": 3, "num_samples": 2},
        "train": {"max_epochs": 1, "task_interval": 1, "task_inference_steps": 2, "volumes_per_batch": 2},
        "baselines": {"max_epochs": 1, "volumes_per_batch": 2},
    },
    "cdm": {
        "inference": {"num_difference_steps": 2},
        "train": {"classifier_max_epochs": 1, "max_epochs": 1, "task_interval": 1}
        | {"num_difference_steps": 2, "volumes_per_batch": 2},
        "baselines": {"max_epochs": 1, "volumes_per_batch": 2},
    },
}
"""Settings that make a run short, by bundle and config."""


def run_bundle(bundle, *configs, run_id="run", processes=0, cwd=ROOT, root=None, **options):
    """Start ``monai.bundle run`` on configs of a bundle, the first one's fast settings on, and return the process."""
    folder = (root or ROOT / "bundles" / bundle) / "configs"
    options = FAST[bundle].get(configs[0], {}) | options
    start = [f"--nproc_per_node={processes}", "--master_port=29571"] if processes else []
    command = [
        *([sys.executable, "-m"] + (["torch.distributed.run", *start, "-m"] if processes else [])),
        *("monai.bundle", "run", run_id, "--config_file", str([str(folder / f"{name}.json") for name in configs])),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if root is None:
        environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)


def assert_done(process):
    """Fail with the end of a process' output if it failed."""
    assert process.returncode == 0, (process.stdout + process.stderr)[-3000:]
