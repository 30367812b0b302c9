"""Check a bundle as the model zoo does, and by our own contract, offline: ``python -m ci.verify_bundle bundles/gdpi``.

Works on a folder in the repository and on an unpacked archive; ``--zoo True`` packs a bundle of the repository, and
holds what the zoo asks for besides, see ``ci.zoo``, against what the archive unpacks to. Every check prints a line; the
exit status is 1 if one fails.

To check a bundle is to run it, as its configs are programs. So ``ci.allowed`` reads first what they, ``logging.conf``
and files of Python say: whatever it does not list is named, and nothing is run. The rest runs code of this collection,
MONAI, torch and ignite, with arguments that the bundle chooses, such as files to read and to write.
"""

import json
import os
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fire
import torch
from jsonschema import Draft202012Validator
from monai.bundle import create_workflow, verify_net_in_out

from . import ROOT
from .allowed import refusals
from .pack_bundle import unpacked
from .zoo import RULES, Rule, export

REQUIRED = (
    *(f"configs/{n}.json" for n in ("metadata", "train", "inference", "evaluate", "paper")),
    *(f"configs/multi_gpu_{n}.json" for n in ("train", "inference")),
    *("configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE"),
)
OWN_FILES = (("models", "model.pt"), ("demo", "dataset.json"))
"""What the bundle has, and in a folder of its own each overlay that runs at once."""

MAX_FILE, MAX_DEMO, MAX_MODELS = 6 * 2**20, 2 * 2**20, 18 * 2**20
RESERVED = ("result", "image", "label", "model", "output", "logging")
"""Words of MONAI Label's requests, with which no displayable config may begin."""


def verify(bundle: str, zoo: bool = False) -> None:
    """Run all checks on a bundle.

    Args:
        bundle: its folder.
        zoo: whether to check its archive, by the zoo's rules too; the folder is one of the repository then.

    Raises:
        SystemExit: with status 1 if a check fails, at once if the bundle says what it may not.
    """
    folder = Path(bundle).resolve()
    if not folder.is_dir():
        raise SystemExit(f"expected the folder of a bundle, got {bundle}: nothing is there.")
    if zoo and folder != ROOT / "bundles" / folder.name:
        raise SystemExit(f"--zoo True packs a bundle of this repository, and {bundle} is none: give bundles/NAME.")
    with unpacked(folder.name) if zoo else nullcontext(folder) as root:
        refused = refusals(root)
        if refused:
            print("FAILS what the bundle may run; nothing of it was run", *refused, sep="\n      ")
            raise SystemExit(1)
        print("ok    what the bundle may run")
        sys.dont_write_bytecode = True  # what lies compiled in a bundle is refused
        sys.path.insert(0, str(root))  # as the zoo's own verification does
        passed = [held(name, check, root) for name, check in {**CHECKS, **(RULES if zoo else {})}.items()]
        if not all(passed):
            raise SystemExit(1)


def held(name: str, check: Rule, root: Path) -> bool:
    """Print in a line whether a bundle passes a check or is excluded from it, and return whether it does not fail."""
    try:
        reason = check(root)
        print(f"excluded {name}: {reason}" if reason else f"ok    {name}")
        return True
    except Exception as error:
        print(f"FAILS {name}: {error}")
        if os.environ.get("VERBOSE"):
            traceback.print_exc()
        return False


def settings(root: Path) -> list[str]:
    """Return the bundle itself, as an empty name, and the overlays that run at once as it does.

    These have a data set and weights of their own, ``demo/<overlay>/`` and ``models/<overlay>/model.pt``.
    """
    configs = {path.stem: _read(path) for path in sorted((root / "configs").glob("*.json"))}
    return ["", *(name for name, keys in configs.items() if "dataset_dir" in keys and "bundle_root" not in keys)]


def check_files(root: Path) -> None:
    """All required files are there, none is too large, and the bundle holds no Python of its own."""
    own = [str(Path(folder, name, file)) for name in settings(root) for folder, file in OWN_FILES]
    missing = [name for name in (*REQUIRED, *own) if not (root / name).exists()]
    _demand(not missing, f"missing {missing}")
    files = [path for path in root.rglob("*") if path.is_file() and "eval" not in path.relative_to(root).parts]
    large = [str(path) for path in files if path.stat().st_size > MAX_FILE]
    _demand(not large, f"over 6 MB: {large}")
    for folder, limit in (("demo", MAX_DEMO), ("models", MAX_MODELS)):
        size = sum(path.stat().st_size for path in (root / folder).rglob("*") if path.is_file())
        _demand(size <= limit, f"{folder} has {size} bytes, more than {limit}")
    python = [str(p) for p in files if p.suffix == ".py" and not p.is_relative_to(root / "scripts")]
    _demand(not python, f"Python in a bundle: {python}")


def check_metadata(root: Path) -> None:
    """The metadata fit our schema, and the version has a line in the changelog."""
    metadata = _read(root / "configs" / "metadata.json")
    schema = _read(Path(__file__).with_name("metadata.schema.json"))
    errors = [f"{'/'.join(map(str, e.path))}: {e.message}" for e in Draft202012Validator(schema).iter_errors(metadata)]
    _demand(not errors, "; ".join(errors))
    _demand(metadata["version"] in metadata["changelog"], "version is not in the changelog")
    form = metadata["network_data_format"]
    _demand(next(iter(form["inputs"])) == "image", "the first input must be image, as MONAI Label reads it")
    _demand(next(iter(form["outputs"])) == "pred", "the first output must be pred, as MONAI Label reads it")


def check_weights(root: Path) -> None:
    """The weights are a raw state dict of tensors that fits the network."""
    for overlay in settings(root):
        path = root / "models" / overlay / "model.pt"
        weights = torch.load(path, weights_only=True, map_location="cpu")
        tensors = all(isinstance(value, torch.Tensor) for value in weights.values())
        _demand(tensors, f"{path}: not a raw state dict of tensors")
        _workflow(root, "inference", "infer", overlay).parser.get_parsed_content("network_def").load_state_dict(weights)


def check_properties(root: Path, config: str, workflow_type: str) -> None:
    """All of MONAI's required properties can be resolved."""
    for overlay in settings(root):
        workflow = _workflow(root, config, workflow_type, overlay)
        workflow.initialize()
        wrong = workflow.check_properties()
        _demand(not wrong, f"missing or wrong: {wrong} {overlay and f'with {overlay}.json'}")


def check_displayable(root: Path) -> None:
    """What MONAI Label shows does not begin with a word of its requests."""
    shown = _read(root / "configs" / "inference.json").get("displayable_configs", {})
    wrong = [name for name in shown if name.startswith(RESERVED)]
    _demand(not wrong, f"words of MONAI Label's request: {wrong}")


def check_network(root: Path) -> None:
    """MONAI's own check of the network's input and output shapes."""
    configs = root / "configs"
    verify_net_in_out(
        net_id="network_def", meta_file=str(configs / "metadata.json"), config_file=str(configs / "inference.json")
    )


def check_export(root: Path) -> None:
    """The network with its weights can be traced and saved as TorchScript."""
    form = _read(root / "configs" / "metadata.json")["network_data_format"]["inputs"]["image"]
    export(root, use_trace=True, input_shape=[1, form["num_channels"], *form["spatial_shape"]])


CHECKS: dict[str, Rule] = {
    "files": check_files,
    "metadata": check_metadata,
    "weights": check_weights,
    "inference.json has MONAI's properties": lambda root: check_properties(root, "inference", "infer"),
    "train.json has MONAI's properties": lambda root: check_properties(root, "train", "train"),
    "displayable configs": check_displayable,
    "network takes and gives what the metadata says": check_network,
    "network exports to TorchScript": check_export,
}


def _demand(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _workflow(root: Path, config: str, workflow_type: str, overlay: str = "") -> Any:
    paths = [str(root / "configs" / f"{name}.json") for name in (config, overlay) if name]
    return create_workflow("ConfigWorkflow", config_file=paths, workflow_type=workflow_type, logging_file=False)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


if __name__ == "__main__":
    fire.Fire(verify)
