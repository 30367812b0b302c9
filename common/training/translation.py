"""What a generator of several classes is asked for as it learns."""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from ..losses.translation import Translations


class CycleInferer(Inferer):
    """Translate images of known classes to the other one and back, and to their own, as a generator learns.

    Args:
        mode: ``paper`` asks for images of the other class; ``code`` for images of both classes of each, as the authors'
            program does.
        noise: the most that is added to images and fakes, evenly distributed from 0 on; 0.05 in the authors' program.

    Raises:
        ValueError: if ``mode`` is neither.
    """

    def __init__(self, mode: str = "paper", noise: float = 0.0) -> None:
        super().__init__()
        if mode not in ("paper", "code"):
            raise ValueError(f"mode must be paper or code, got {mode!r}.")
        self.all_classes, self.noise = mode == "code", noise

    def __call__(  # noqa: D417
        self, inputs: Tensor, network: Any, *args: Any, classes: Tensor, only_fakes: bool = False, **kwargs: Any
    ) -> Translations:
        """Return what the generator makes of images.

        Args:
            inputs: in [-1, 1], shape (B, C, X, Y).
            network: the generator.
            classes: of the images, 0 or 1, shape (B,).
            only_fakes: leave out what critics do not see.
        """
        image, other = self.noisy(inputs), 1 - classes
        asked = torch.cat([classes, other]) if self.all_classes else other
        repeated = torch.cat([image, image]) if self.all_classes else image
        fake = self.noisy(network(repeated, asked))
        if only_fakes:
            return Translations(fake, asked)
        count = len(image)
        same = fake[:count] if self.all_classes else network(image, classes)
        return Translations(fake, asked, same, network(fake[-count:], classes))

    def noisy(self, image: Tensor) -> Tensor:
        """Return images with noise."""
        return image + self.noise * torch.rand(image.shape).to(image) if self.noise else image
