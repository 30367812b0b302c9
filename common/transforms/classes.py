"""The class and the site of a case, as losses want them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform


class ClassAndSited(Transform):
    """Put the class of a case and the number of its site into its ``label``, int64, shape (2,).

    Args:
        sites: their names; where a case has none of them its site is the last.
    """

    def __init__(self, sites: Sequence[str]) -> None:
        self.number = {site: number for number, site in enumerate(sites)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with that label in place of any other."""
        site = self.number.get(str(data.get("site", "")), len(self.number) - 1)
        return {**data, "label": torch.tensor([int(data["image_label"]), site])}
