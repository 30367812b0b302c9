"""Runs of bundles as their users start them, in processes of their own."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np

from ci import ROOT, bundle_names, bundle_parser
from ci.recipes import recipe_of
from common.data.files import SaveMapsd
from common.data.listing import case_name
from common.files import read_csv
from common.sequences import SEQUENCES

BUNDLES = bundle_names()


def config_of(bundle, name):
    """Return a config of a bundle as it is written."""
    return json.loads((ROOT / "bundles" / bundle / "configs" / f"{name}.json").read_text())


def demo_cases(bundle):
    """Return the testing cases; the images of each that the bundle takes are a list of paths."""
    folder = ROOT / "bundles" / bundle / "demo"
    taken, cases = config_of(bundle, "inference").get("sequences", SEQUENCES), []
    for item in json.loads((folder / "dataset.json").read_text())["testing"]:
        names = list(np.atleast_1d(item["image"]))
        if len(names) == len(SEQUENCES):
            names = [name for name, sequence in zip(names, SEQUENCES, strict=True) if sequence in taken]
        masks = {key: folder / item[key] for key in ("organ", "label") if key in item}
        cases.append({"case": case_name(item), "image": [folder / name for name in names], **masks})
    return cases


def baselines(bundle):
    """Return the networks that ``baselines.json`` trains, none where there is no such config."""
    if not (ROOT / "bundles" / bundle / "configs" / "baselines.json").is_file():
        return set()
    return {name for name in config_of(bundle, "baselines")["network_def"] if name not in ("_target_", "main")}


def outputs(bundle, *overlays):
    """Return what is said of a case: the endings of its files, none where it has a row of ``predictions.csv``."""
    parser = bundle_parser(bundle, "inference", *overlays)
    transforms = parser.get_parsed_content("postprocessing").transforms
    saving = [each for each in transforms if isinstance(each, SaveMapsd)]
    return [saver.folder_layout.postfix for each in saving for saver in each.savers.values()]


def predictions(folder):
    """Return what is said of cases as whole: by name, probabilities, distances, and the class that is nearest."""
    if not (folder / "predictions.csv").is_file():
        return {}
    numbers = ("probability", "distance", "nearest")
    return {
        row["case"]: np.array([float(value) for name, value in row.items() if name.startswith(numbers)])
        for row in read_csv(folder / "predictions.csv")
    }


def cases_done(folder):
    """Return the names of the cases of which a run has said something."""
    return {path.name for path in folder.iterdir() if path.is_dir()} | set(predictions(folder))


def assert_outputs(bundle, folder, case, image):
    """Fail if a case does not have all results, finite and on the grid of its image."""
    names, source = outputs(bundle), nib.load(image)
    if not names:
        assert np.isfinite(predictions(folder)[case]).all()
        return
    for name in names:
        result = nib.load(folder / case / f"{case}_{name}.nii.gz")
        assert result.shape[:3] == source.shape[:3]
        np.testing.assert_allclose(result.affine, source.affine, atol=1e-3)
        assert np.isfinite(result.get_fdata()).all()
        assert result.get_fdata().any() or name == "mask", name
    assert (folder / case / f"{case}_overlay.png").stat().st_size > 5000


def assert_same(bundle, ours, theirs):
    """Fail if two runs have not said the same of the same cases."""
    paths = [path.relative_to(ours) for path in sorted(ours.rglob("*.nii.gz"))]
    assert bool(paths) == bool(outputs(bundle))
    for path in paths:
        np.testing.assert_array_equal(nib.load(ours / path).get_fdata(), nib.load(theirs / path).get_fdata())
    first, second = predictions(ours), predictions(theirs)
    assert first.keys() == second.keys()
    for case, numbers in first.items():
        np.testing.assert_array_equal(numbers, second[case])


def run_bundle(bundle, *configs, run_id="run", processes=0, cwd=ROOT, root=None, **options):
    """Start ``monai.bundle run`` on configs of a bundle, the first one's fast settings on, and return the process."""
    folder = (root or ROOT / "bundles" / bundle) / "configs"
    options = {**recipe_of(bundle).fast.get(configs[0], {}), **options}
    start = [f"--nproc_per_node={processes}", "--standalone"] if processes else []
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
