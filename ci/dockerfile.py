"""Try the Dockerfile where there is no Docker: ``python -m ci.dockerfile`` runs its lines in a clean environment.

The committed tree is copied to a temporary folder that stands for the image, where a virtual environment is made. What
COPY names is copied, what RUN says is run, and at the end the command of CMD. Lines that make sense in an image alone
are named and left out. Whether the base image has what the lines need is not seen in this way.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import fire

from . import ROOT

INSTRUCTIONS = ("FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "CMD")
"""What is understood; a Dockerfile with others is refused."""

PROGRAMS_OF_IMAGES = {"apt-get", "chown", "groupadd", "useradd"}
"""What RUN may call and is left out, since it would change this machine."""


class Line(NamedTuple):
    """A line of a Dockerfile, whole where it goes on below.

    Attributes:
        instruction: one of ``INSTRUCTIONS``.
        arguments: what follows it.
    """

    instruction: str
    arguments: str

    def __str__(self) -> str:
        return f"{self.instruction} {self.arguments}"

    @property
    def is_for_images(self) -> bool:
        """Whether it makes sense in an image alone."""
        return self.instruction in ("FROM", "USER") or bool(self.programs & PROGRAMS_OF_IMAGES)

    @property
    def programs(self) -> set[str]:
        """What RUN calls; nothing of other lines."""
        commands = re.split(r"&&|\|\|?|;", self.arguments) if self.instruction == "RUN" else []
        return {word for command in commands for word in command.split()[:1]}


def read(text: str) -> list[Line]:
    """Return the lines of a Dockerfile.

    Raises:
        ValueError: for an instruction that is not understood, and a RUN of which a part only would be left out.
    """
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    words = (line.split(maxsplit=1) for line in code.replace("\\\n", " ").splitlines() if line.strip())
    lines = [Line(word.upper(), " ".join(rest)) for word, *rest in words]
    for line in lines:
        if line.instruction not in INSTRUCTIONS:
            raise ValueError(f"Expected one of {', '.join(INSTRUCTIONS)} in the Dockerfile, got {line}.")
        if line.is_for_images and not line.programs <= PROGRAMS_OF_IMAGES:
            raise ValueError(
                f"Expected {', '.join(PROGRAMS_OF_IMAGES & line.programs)} in a RUN of its own, got {line}."
            )
    return lines


def build(
    lines: Sequence[Line], context: Path, image: Path, environment: Mapping[str, str], build_args: Mapping[str, str]
) -> None:
    """Do what lines say, and print them.

    Args:
        lines: of one stage. COPY leads to a folder, and CMD is a list.
        context: folder that COPY takes from.
        image: folder that stands for the root of the image.
        environment: variables of the commands.
        build_args: values in place of those of ARG.

    Raises:
        SystemExit: if a command fails.
        ValueError: for a build argument without an ARG.
    """
    declared = {line.arguments.partition("=")[0] for line in lines if line.instruction == "ARG"}
    if not build_args.keys() <= declared:
        raise ValueError(f"Expected build arguments among {sorted(declared)}, got {sorted(build_args)}.")
    image.mkdir()
    variables, folder = dict(environment), image
    for line in lines:
        print("left out" if line.is_for_images else "runs    ", line, flush=True)
        if line.is_for_images:
            continue
        match line.instruction:
            case "ARG":
                name, _, default = line.arguments.partition("=")
                variables[name] = build_args.get(name, default)
            case "WORKDIR":
                folder = _folder(image, folder, line.arguments)
            case "COPY":
                *sources, target = (word for word in shlex.split(line.arguments) if not word.startswith("--"))
                for source in sources:
                    _copy(context / source, _folder(image, folder, target))
            case _:
                command = ["sh", "-c", line.arguments] if line.instruction == "RUN" else json.loads(line.arguments)
                status = subprocess.run(command, cwd=folder, env=variables).returncode
                if status:
                    raise SystemExit(f"{line} ends with status {status}.")


def _folder(image: Path, current: Path, path: str) -> Path:
    """Return where a folder of the image lies here; it is made."""
    folder = image / path.lstrip("/") if path.startswith("/") else current / path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copy(source: Path, folder: Path) -> None:
    """Copy a file, or what is in a folder."""
    if source.is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True)
    else:
        shutil.copy(source, folder)


def check(**build_args: str) -> None:
    """Run the lines of the committed Dockerfile.

    Args:
        build_args: values in place of those of ARG, as ``--TORCH_INDEX=URL``.
    """
    with tempfile.TemporaryDirectory() as temporary:
        context, image, venv = (Path(temporary, name) for name in ("context", "image", "venv"))
        archive = f"{context}.tar"
        subprocess.run(["git", "archive", "--output", archive, "HEAD"], cwd=ROOT, check=True)
        shutil.unpack_archive(archive, context, filter="data")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        environment = ours | {"PATH": os.pathsep.join([str(venv / "bin"), os.environ["PATH"]])}
        build(read((context / "Dockerfile").read_text()), context, image, environment, build_args)
    print("ok: all lines but those left out")


if __name__ == "__main__":
    fire.Fire(check)
