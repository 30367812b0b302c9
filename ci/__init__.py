"""What a maintainer runs."""

from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parent.parent


def bundle_parser(bundle: str, *configs: str, **settings: Any) -> ConfigParser:
    """Return the parser of a bundle's configs, later ones over earlier ones, and settings over all of them."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "bundles" / bundle / "configs" / f"{config}.json") for config in configs])
    parser.update(settings)
    return parser
