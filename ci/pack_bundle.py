"""Pack a bundle as a model-zoo artifact: ``python -m ci.pack_bundle gdpi`` writes ``dist/gdpi_v<version>.zip``.

The archive holds ``configs``, ``models``, ``docs``, ``demo`` and, as a bundle has no Python of its own, a copy of
``common`` as ``scripts/common``, to which the targets of its configs point: it needs nothing beside it. Its JSON is
laid out as the model zoo asks for, while that of the repository is compact.
"""

import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fire

from . import ROOT, bundle_folder

TARGET = re.compile(r"(?<![\w.])common\.(?=[a-z_]+\.)")
FOLDERS = ("configs", "models", "docs", "demo")
FIRST_OF_1980 = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold; the same files then give the same bytes."""


def pack(bundle: str, dst: str = str(ROOT / "dist")) -> str:
    """Write the archive of a bundle and its SHA-256 beside it, and return the archive's path.

    Args:
        bundle: name of the folder in ``bundles/``.
        dst: folder of the archive.

    Raises:
        FileNotFoundError: if there is no such bundle.
    """
    source = bundle_folder(bundle)
    metadata = source / "configs" / "metadata.json"
    archive = Path(dst) / f"{bundle}_v{json.loads(metadata.read_text())['version']}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, content in sorted(contents(source).items()):
            entry = zipfile.ZipInfo(f"{bundle}/{name}", FIRST_OF_1980)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, content)
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_suffix(".zip.sha256").write_text(f"{checksum}  {archive.name}\n")
    print(f"{archive} {archive.stat().st_size} bytes, SHA-256 {checksum}")
    return str(archive)


@contextmanager
def unpacked(bundle: str) -> Iterator[Path]:
    """Pack a bundle, and give what its archive unpacks to, a folder ``models/<name>`` as in the zoo, while it is used.

    Args:
        bundle: name of the folder in ``bundles/``.
    """
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder).resolve() / "models"
        with zipfile.ZipFile(pack(bundle, folder)) as archive:
            archive.extractall(models)
        yield models / bundle


def contents(source: Path) -> dict[str, bytes]:
    """Return the files of a packed bundle by their path in it."""
    files = {"LICENSE": (source / "LICENSE").read_bytes(), **scripts()}
    for extra in source.glob("large_files.*"):
        files[extra.name] = extra.read_bytes()
    for folder in FOLDERS:
        for path in sorted((source / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                content = path.read_bytes()
                if path.suffix == ".json":
                    content = pretty(TARGET.sub("scripts.common.", content.decode()).encode())
                files[path.relative_to(source).as_posix()] = content
    return files


def pretty(content: bytes) -> bytes:
    """Return JSON as pre-commit's ``pretty-format-json --no-sort-keys --indent=4`` leaves it."""
    return f"{json.dumps(json.loads(content), indent=4)}\n".encode()


def scripts() -> dict[str, bytes]:
    """Return ``common`` by its path in a packed bundle."""
    paths = (path for path in (ROOT / "common").rglob("*") if path.suffix in (".py", ".html"))
    common = {f"scripts/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in paths}
    return {"scripts/__init__.py": b'"""All Python of the bundle."""\n', **common}


if __name__ == "__main__":
    fire.Fire(pack)
