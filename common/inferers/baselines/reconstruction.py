"""Autoencoders: the healthy version of an image is its reconstruction."""

from typing import Any

import torch
from torch import Tensor, nn

from ..inpainting import Holes, Inpainter
from ..patches import Generators
from ..slices import Progress
from ..translation import Batch, Translator


class Reconstruction(Translator, Inpainter):
    """The reconstruction takes an image's place, all of it or its holes.

    Args:
        part: name of the autoencoder in the container.
        amp: bfloat16 autocast for it.
    """

    def __init__(self, *, part: str, amp: bool = False) -> None:
        self.part, self.amp = part, amp

    def __call__(self, batch: Batch | Holes, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return the reconstructions."""
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=self.amp):
            output: Any = network.get_submodule(self.part)(batch.image)
        return (output[0] if isinstance(output, tuple) else output).float()  # a variational one also returns its code
