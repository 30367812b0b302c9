"""Check a bundle in MONAI Label: ``python -m ci.monai_label_check gdpi`` starts a real server and asks it over HTTP.

The server has an environment of its own, as MONAI Label wants older packages than the bundles, and gets the packed
bundle; what it answers is compared with what ``python -m monai.bundle run`` writes here. All of it runs on the CPU.
Every check prints a line; the exit status is 1 if one fails.
"""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import fire
import nibabel as nib
import numpy as np
import torch
from monai.utils import ensure_tuple

from common.data.listing import case_name
from common.files import read_csv
from common.sequences import SEQUENCES

from . import ROOT, bundle_folder
from .pack_bundle import pack
from .recipes import stages

MONAI_LABEL = "monailabel==0.8.5"
"""Installed without its dependencies: SAM 2, one of them, has to be built, and no bundle needs it."""

REQUIREMENTS = [
    "numpy==1.26.4",
    "jsonschema==3.2.0",
    "cachetools==8.0.1",
    "dicomweb-client==0.59.1",
    "expiring-dict==1.1.2",
    "expiringdict==1.2.2",
    "fastapi==0.165.0",
    "girder-client==5.0.21",
    "google-auth==2.62.2",
    "httpx==0.28.1",
    "itk==5.4.7",
    "passlib==1.7.4",
    "psutil==7.2.2",
    "pydantic-settings==2.16.3",
    "pydicom==2.4.4",
    "pydicom-seg==0.4.1",
    "pyjwt==2.15.1",
    "pynetdicom==2.1.1",
    "pynrrd==1.1.3",
    "python-multipart==0.0.34",
    "requests-toolbelt==1.0.0",
    "schedule==1.2.2",
    "setuptools==80.10.2",
    "shapely==2.2.0",
    "timeloop==1.0.2",
    "uvicorn==0.54.0",
    "watchdog==7.1.0",
]
"""What the server imports. pydicom-seg holds the first two and pydicom back; numpy 1.26 ends with Python 3.12."""

TORCHVISION = """\
__version__ = "0"


def make_grid(*args, **kwargs):
    raise NotImplementedError


save_image = make_grid
"""
"""Stands in for torchvision, whose builds each fit one build of torch; MONAI Label draws with these two functions."""

QUICK = {"num_inference_steps": 20, "num_resamples": 1}
"""For a check in minutes: sent with requests, given to the command line, and set in the train.json of the copy."""

TOLERANCE = 0.1
"""Of maps, in their unit; masks must be equal."""

PATIENCE = 3600
"""Seconds to wait for one answer: far more than needed, unless the machine is busy with other things."""


class Server:
    """A MONAI Label server with one bundle, as its clients see it.

    Args:
        process: that serves.
        port: on 127.0.0.1.
    """

    def __init__(self, process: subprocess.Popen, port: int) -> None:
        self.process, self.port = process, port

    def ask(self, method: str, path: str, body: bytes | str = b"", content_type: str = "application/json") -> bytes:
        """Return the body of an answer.

        Raises:
            ValueError: if the server says anything but 200.
        """
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, {"Content-Type": content_type})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        _demand(response.status == 200, f"{method} {path}: {response.status} {answer[:500].decode(errors='replace')}")
        return answer

    def info(self) -> dict[str, Any]:
        """Return what the server says of itself, as soon as it does.

        Raises:
            ValueError: if it ends instead, or stays silent.
        """
        for _ in range(PATIENCE):
            _demand(self.process.poll() is None, f"the server ended with status {self.process.returncode}")
            with suppress(ConnectionError):
                return json.loads(self.ask("GET", "/info/"))
            time.sleep(1)
        raise ValueError(f"no answer in {PATIENCE} seconds")

    def infer(self, model: str, image: str, params: dict[str, Any]) -> nib.Nifti1Image:
        """Return what a model makes of an image of the studies."""
        form = "application/x-www-form-urlencoded"
        path, body = f"/infer/{model}?output=image&image={quote(image)}", urlencode({"params": json.dumps(params)})
        return nib.Nifti1Image.from_bytes(gzip.decompress(self.ask("POST", path, body, form)))

    def classify(self, model: str, image: str) -> dict[str, Any]:
        """Return what a model says of an image of the studies as a whole."""
        path = f"/infer/{model}?output=json&image={quote(image)}"
        return json.loads(self.ask("POST", path, urlencode({"params": "{}"}), "application/x-www-form-urlencoded"))

    def save_label(self, image: str, label: Path) -> None:
        """Save the final label of an image, as a viewer does."""
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="label"; filename="{label.name}"\r\n\r\n'
        body = head.encode() + label.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        path, form = f"/datastore/label?tag=final&image={quote(image)}", f"multipart/form-data; boundary={mark}"
        self.ask("PUT", path, body, form)

    def train(self, model: str, params: dict[str, Any]) -> None:
        """Train a model and wait for the end.

        Raises:
            ValueError: if the training fails.
        """
        self.ask("POST", f"/train/{model}", json.dumps(params))
        end = time.monotonic() + PATIENCE
        while (task := json.loads(self.ask("GET", "/train/")))["status"] in ("SUBMITTED", "RUNNING"):
            _demand(time.monotonic() < end, f"not done in {PATIENCE} seconds")
            time.sleep(2)
        _demand(task["status"] == "DONE", f"{task['status']}: {' | '.join(task.get('details', [])[-3:])}")


class Check:
    """The checks of one bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        folder: empty, for all that is written.
        python: of MONAI Label's environment.
    """

    def __init__(self, bundle: str, folder: Path, python: Path) -> None:
        self.bundle, self.folder, self.python = bundle, folder, python
        self.source, self.app, self.studies = bundle_folder(bundle), folder / "app", folder / "studies"
        self.config = _read(self.source / "configs" / "inference.json")
        # A folder's name says what kind of answer a model gives, and images are taken for granted.
        self.classifies = "SaveMapsd" not in str(self.config["postprocessing"])
        self.name = f"{bundle}_classification" if self.classifies else bundle
        self.model, self.results, self.log = self.app / "model" / self.name, folder / "results", folder / "server.log"
        self.shown = self.config.get("displayable_configs", {})
        self.quick = {name: min(value, self.shown[name]) for name, value in QUICK.items() if name in self.shown}
        self.data = _read(self.source / "demo" / "dataset.json")
        self.examined = max(self.data["testing"], key=lambda item: item.get("image_label", 0))  # one with lesions
        self.case = case_name(self.examined)
        self.image = folder / "alone" / f"{self.case}.nii.gz"
        self.environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "TQDM_DISABLE": "1",
            "PYTHONPATH": "",
            "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        }
        self.server: Server

    def lay_out(self) -> None:
        """Write the app with the packed bundle, the studies, and a folder with the image that is examined."""
        app = self.python.parent.parent / "monailabel" / "sample-apps" / "monaibundle"
        shutil.copytree(app, self.app, ignore=shutil.ignore_patterns("__pycache__"))
        with zipfile.ZipFile(pack(self.bundle, dst=str(self.folder))) as packed:
            packed.extractall(self.app / "model")
        (self.app / "model" / self.bundle).rename(self.model)
        train = self.model / "configs" / "train.json"
        config = _read(train)
        quick = {name: min(value, config[name]) for name, value in QUICK.items() if name in config}
        train.write_text(json.dumps({**config, **quick}))

        self.studies.mkdir()
        self.image.parent.mkdir()
        _turned(self._demo_image(self.examined)).to_filename(self.image)
        shutil.copy(self.image, self.studies)
        for item in self.labelled():
            self._demo_image(item).to_filename(self.studies / f"{case_name(item)}.nii.gz")

    def labelled(self) -> list[dict[str, Any]]:
        """Return the cases of the demonstration that can be trained on."""
        return [item for split in ("training", "validation") for item in self.data.get(split, []) if "label" in item]

    def contents(self) -> list[str]:
        """Return what a client can get as ``pred``: the binary mask, and where it may ask for it the map."""
        maps = [name for name in ("anomaly", "uncertainty") if f"'{name}'" in str(self.config["postprocessing"])]
        return [self.shown["pred_content"], *maps] if "pred_content" in self.shown else ["mask"]

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Start the server, and stop it and all that it started, whatever happens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"app": self.app, "studies": self.studies, "host": "127.0.0.1", "port": port}
        command = [str(self.python), "-m", "monailabel.main", "start_server"]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        # With its default source the server would ask the network which models there are.
        for name, value in {"models": self.name, "zoo_source": "ngc", "sam2": "false"}.items():
            command += ["--conf", name, value]
        with open(self.log, "w") as log:
            output: dict[str, Any] = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, **output)
        self.server = Server(process, port)
        try:
            yield
        finally:
            for ending in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, ending)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)

    def check_info(self) -> str:
        """The server starts and knows the bundle as a model and as a trainer."""
        info = self.server.info()
        for kind in ("models", "trainers"):
            _demand(self.name in info[kind], f"{kind}: {list(info[kind])}")
        return f"labels {info['models'][self.name]['labels']}"

    def check_command_line(self) -> str:
        """What ``python -m monai.bundle run`` writes for the image alone is there to compare with."""
        _run(
            *(sys.executable, "-m", "monai.bundle", "run"),
            *("--config_file", self.source / "configs" / "inference.json"),
            *("--dataset_dir", self.image.parent, "--output_dir", self.results),
            *(word for name, value in self.quick.items() for word in (f"--{name}", value)),
            env=self.environment,
        )
        written = [*(self.results / self.case).glob("*.nii.gz"), *self.results.glob("predictions.csv")]
        return ", ".join(path.name for path in sorted(written))

    def check_pred(self, content: str) -> str:
        """The server's answer to an image alone is not empty, on its grid, and equal to what the command line wrote."""
        params = {**self.quick, "pred_content": content} if "pred_content" in self.shown else self.quick
        pred = self.server.infer(self.name, self.case, params)
        image: Any = nib.load(self.image)
        written: Any = nib.load(self.results / self.case / f"{self.case}_{content}.nii.gz")
        _demand(pred.shape == image.shape[:3], f"shape {pred.shape} for an image of {image.shape}")
        _demand(np.allclose(pred.affine, image.affine, atol=1e-3), f"affine {pred.affine.tolist()}")
        expected, got = np.asanyarray(written.dataobj), np.asanyarray(pred.dataobj)
        _demand(got.any(), "empty")
        difference = np.abs(expected.astype(float) - got).max()
        allowed = 0 if expected.dtype.kind in "ui" else TOLERANCE
        _demand(difference <= allowed, f"differs by {difference:g}")
        return f"{np.count_nonzero(got)} voxels, from {got.min():g} to {got.max():g}, differ by {difference:g}"

    def check_classes(self) -> str:
        """The server's answer to an image alone is a probability of each class, that which the command line wrote."""
        answer = self.server.classify(self.name, self.case)
        (row,) = read_csv(self.results / "predictions.csv")
        expected = [float(value) for name, value in row.items() if name.startswith("probability")]
        got = [each["score"] for each in answer["prediction"]]
        _demand(len(got) == len(expected) and np.allclose(got, expected, atol=1e-4), f"{got} for {expected}")
        return ", ".join(f"{each['label']} {each['score']:.4f}" for each in answer["prediction"])

    def check_training(self) -> str:
        """An epoch through the server changes the part of the main stage in the copy's weights, and nothing else."""
        for item in self.labelled():
            label = self.folder / item["label"]
            _volume(self.source / "demo" / item["label"]).to_filename(label)
            self.server.save_label(case_name(item), label)
        ours = self.source / "models" / "model.pt"
        untouched = ours.read_bytes()
        before = self._weights()
        self.server.train(self.name, {"max_epochs": 1})
        after = self._weights()
        _demand(before.keys() == after.keys(), "the weights have other names")
        parts = {name.partition(".")[0] for name in before if "." in name}
        changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])} & parts
        main = stages(self.bundle)[-1]
        (stage,) = (step for step in _read(self.source / "configs" / "train.json")[f"train_{main}"] if "part" in step)
        expected = set(ensure_tuple(stage["part"]))
        _demand(changed == expected, f"expected {sorted(expected)} to change, got {sorted(changed)} of {sorted(parts)}")
        _demand(ours.read_bytes() == untouched, "the repository's weights have changed")
        return f"{main} changed; {', '.join(sorted(parts - changed)) or 'no other part'} kept"

    def _demo_image(self, item: dict[str, Any]) -> Any:
        """Return an image in one file, as MONAI Label knows it; channels in files of their own are its last axis."""
        sequences = self.config.get("sequences") or SEQUENCES
        names = list(np.atleast_1d(item["image"]))
        if len(names) == len(SEQUENCES):
            names = [name for name, sequence in zip(names, SEQUENCES, strict=True) if sequence in sequences]
        paths = [self.source / "demo" / name for name in names]
        return _volume(paths[0]) if len(paths) == 1 else nib.concat_images([str(path) for path in paths])

    def _weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.model / "models" / "model.pt", map_location="cpu", weights_only=True)


def check(bundle: str, env_dir: str | None = None) -> None:
    """Run all checks on a bundle.

    Args:
        bundle: name of the folder in ``bundles/``.
        env_dir: folder of MONAI Label's environment; made if it is not there, and used again. Default: one that is
            thrown away.

    Raises:
        SystemExit: with status 1 if a check fails.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped then, too
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(env_dir or Path(folder) / "env").resolve())
        checks = Check(bundle, Path(folder).resolve(), python)
        checks.lay_out()
        steps: dict[str, Callable[[], str]] = {
            "the server knows the bundle": checks.check_info,
            "the command line examines an image alone": checks.check_command_line,
        }
        if checks.classifies:
            steps["the server's classes are those of the command line"] = checks.check_classes
        else:
            for content in checks.contents():
                steps[f"the server's {content} is that of the command line"] = partial(checks.check_pred, content)
            steps["training through the server changes the main part"] = checks.check_training
        with checks.serving():
            for name, step in steps.items():
                try:
                    print(f"ok    {name}: {step()}", flush=True)
                except Exception as error:
                    failed += 1
                    print(f"FAILS {name}: {error}", flush=True)
        if failed:
            print("", "The server's log ends:", *_tail(checks.log.read_text(errors="replace"), 60), sep="\n")
            raise SystemExit(1)


def make_environment(folder: Path) -> Path:
    """Return the interpreter of a folder with MONAI Label, which is installed if it is not there yet.

    Beside it stand the packages that the bundles are tested with, but for those that it wants in other versions.
    """
    held_back = {line.partition("==")[0] for line in REQUIREMENTS}
    tested = (ROOT / "requirements.txt").read_text().splitlines()
    requirements_text = "\n".join([line for line in tested if line.partition("==")[0] not in held_back] + REQUIREMENTS)
    installed, requirements, python = folder / "installed.txt", folder / "requirements.txt", folder / "bin" / "python"
    if not installed.is_file() or installed.read_text() != requirements_text:
        _run(sys.executable, "-m", "venv", folder)
        requirements.write_text(requirements_text)
        _run(python, "-m", "pip", "install", "--quiet", "-r", requirements)
        _run(python, "-m", "pip", "install", "--quiet", "--no-deps", MONAI_LABEL)
        stub = next(folder.glob("lib/python*/site-packages")) / "torchvision"
        stub.mkdir(exist_ok=True)
        for name in ("__init__.py", "utils.py"):
            (stub / name).write_text(TORCHVISION)
        installed.write_text(requirements_text)
    return python


def _volume(path: Path) -> Any:
    """Return an image; a 2-D one as a volume of one slice, since MONAI Label answers it with an axis too many."""
    image: Any = nib.load(path)
    flat = image.ndim == 2
    return nib.Nifti1Image(np.asanyarray(image.dataobj)[..., None], image.affine) if flat else image


def _turned(image: Any) -> Any:
    """Return a volume with its first axes swapped and one of them flipped: the same in space, on another grid."""
    return image.as_reoriented(np.array([[1, -1], [0, 1], [2, 1]]))


def _run(*command: object, env: dict[str, str] | None = None) -> None:
    """Run a command in the repository, and say how its output ends if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _demand(done.returncode == 0, "\n".join([" ".join(words), *_tail(done.stdout, 20)]))


def _tail(text: str, count: int) -> list[str]:
    return text.splitlines()[-count:]


def _demand(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


if __name__ == "__main__":
    fire.Fire(check)
