"""Holes filled by a network that sees what is around them."""

from typing import Any

import torch
from torch import Tensor, nn

from ..transforms.holes import ROUNDS, disc_rounds, shown_with_holes
from .inpainting import Holes, Inpainter
from .patches import Generators
from .slices import Progress


class ConditionedInpainter(Inpainter):
    """The mean of what may be in a hole, by a network that has learned to fill holes of lesion-free slices.

    Args:
        part: name of the network in the container; it answers how far pixels are from the organ's median.
        disc_radius: pixels; holes are not filled at once but in nine rounds of discs, see ``disc_rounds``, so that each
            pixel is told from what is outside its disc. None fills them in one call.
        amp: bfloat16 autocast for it.
    """

    def __init__(self, *, part: str = "filler", disc_radius: int | None = None, amp: bool = False) -> None:
        self.part, self.disc_radius, self.amp = part, disc_radius, amp

    def __call__(self, holes: Holes, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return the images with their holes filled."""
        if self.disc_radius is None:
            return self.filled(holes, holes.hole, network)
        result = holes.image
        for disc, square in progress(list(disc_rounds(holes.image.shape[2:], self.disc_radius))):
            hole = holes.hole & disc.to(holes.hole.device)
            if hole.any():
                result = torch.where(hole & square.to(hole.device), self.filled(holes, hole, network), result)
        return result

    def filled(self, holes: Holes, hole: Tensor, network: nn.Module) -> Tensor:
        """Return what the network expects in some of the holes."""
        shown = shown_with_holes(holes.image, hole, holes.organ, holes.median)
        with torch.autocast(shown.device.type, torch.bfloat16, enabled=self.amp):
            return holes.median + network.get_submodule(self.part)(shown).float()

    @property
    def num_steps(self) -> int:
        """The calls of a batch."""
        return 1 if self.disc_radius is None else ROUNDS

    @property
    def settings(self) -> dict[str, Any]:
        """The discs."""
        return {"disc_radius": self.disc_radius or 0}
