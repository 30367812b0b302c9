"""Where a bundle lies."""

from collections.abc import Mapping
from pathlib import Path


def bundle_root(bundle: str) -> str:
    """Return the folder of a bundle: in the repository, or the one that this package was packed into.

    The answer comes from the place of this file and not from the working directory, so one config runs from anywhere.

    Args:
        bundle: name of the folder in ``bundles/``.
    """
    package = Path(__file__).resolve().parent
    if package.parent.name == "scripts":
        return str(package.parent.parent)
    return str(package.parent / "bundles" / bundle)


def bundles_in(folder: Path) -> dict[str, Path]:
    """Return the folders of all bundles that lie in a folder, by their names."""
    return {path.parent.parent.name: path.parent.parent for path in sorted(folder.glob("*/configs/metadata.json"))}


def bundle_named(name: str, bundles: Mapping[str, Path]) -> Path:
    """Return the folder of a bundle.

    Raises:
        FileNotFoundError: if there is none of that name.
    """
    if name not in bundles:
        raise FileNotFoundError(f"there is no bundle {name}; there are {', '.join(bundles)}")
    return bundles[name]
