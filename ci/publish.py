"""Publish a bundle on the Hugging Face Hub, where MONAI downloads bundles from: ``python -m ci.publish gdpi``.

What MONAI's ``push_to_hf_hub`` sends is the unpacked archive, under the published name of the metadata and with the
version as its tag. ``--dry_run True`` prints what would be sent, and the entries that ``large_files.yml`` of the model
zoo's repository would need, which does not take large files.
"""

import hashlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import fire
from monai.bundle import push_to_hf_hub

from .pack_bundle import unpacked
from .zoo import large_files, metadata_of


def publish(bundle: str, owner: str | None = None, private: bool = True, dry_run: bool = False) -> None:
    """Send a bundle to the hub, or print what would be sent.

    Args:
        bundle: name of the folder in ``bundles/``.
        owner: user or organisation of the hub, whose token ``hf auth login`` has stored.
        private: whether a new repository is shown to its owner alone.
        dry_run: whether to send nothing.

    Raises:
        ModuleNotFoundError: if huggingface_hub is not installed.
        ValueError: if no owner is given.
    """
    if not dry_run and find_spec("huggingface_hub") is None:
        raise ModuleNotFoundError("huggingface_hub is not installed: pip install -e .[publish]")
    if not dry_run and owner is None:
        raise ValueError("expected --owner, a user or organisation of the hub, got none.")
    with unpacked(bundle) as root:
        metadata = metadata_of(root)
        repo, version = f"{owner or '<owner>'}/{metadata['published_name']}", metadata["version"]
        files = f"https://huggingface.co/{repo}/resolve/{version}"
        entries = list(large_file_entries(root, files))
        card = root / "docs" / "README.md"
        card.write_text(with_addresses(card.read_text(), f"{files}/docs"))
        push: dict[str, Any] = {"name": bundle, "bundle_dir": str(root.parent), "version": version, "private": private}
        if dry_run:
            with patch("monai.bundle.scripts.huggingface_hub", SimpleNamespace(HfApi=PrintingApi)):
                push_to_hf_hub(repo, **push)
            print("large_files.yml for the zoo's repository:", "large_files:", *entries, sep="\n")
        else:
            print(push_to_hf_hub(repo, **push))


def with_addresses(card: str, folder: str) -> str:
    """Return a card whose relative links lead into a folder, as the hub shows it from another one."""
    return re.sub(r"\]\((?!\w+:|#)", f"]({folder}/", card)


def large_file_entries(root: Path, url: str) -> Iterator[str]:
    """Yield what ``large_files.yml`` says of each file that the zoo's repository does not take.

    Args:
        root: folder of the bundle.
        url: what its files are reached under.
    """
    for path in large_files(root):
        name, sha256 = path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
        yield f'  - path: "{name}"\n    url: "{url}/{name}"\n    hash_val: "{sha256}"\n    hash_type: "sha256"'


class PrintingApi:
    """What MONAI calls of ``huggingface_hub.HfApi``; it prints what it is asked to do."""

    def __init__(self, token: str | None) -> None:
        pass

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
        """Say which repository would be made."""
        print(f"repository {repo_id}, {'private' if private else 'public'} if it is new")

    def upload_folder(self, repo_id: str, folder_path: str) -> None:
        """Say which files would be uploaded, with their bytes, and what the page of the repository would be."""
        root = Path(folder_path)
        sizes = {path.relative_to(root): path.stat().st_size for path in sorted(root.rglob("*")) if path.is_file()}
        for name, size in sizes.items():
            print(f"{size:>10} {name}")
        print(f"{sum(sizes.values()):>10} bytes in {len(sizes)} files", "README.md:", sep="\n")
        print((root / "README.md").read_text())

    def create_tag(self, repo_id: str, tag: str, exist_ok: bool) -> None:
        """Say which tag the version would have."""
        print(f"tag {tag}")


if __name__ == "__main__":
    fire.Fire(publish)
