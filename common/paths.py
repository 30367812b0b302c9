"""Where a bundle lies."""

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
