"""Images translated between classes by a generator, in one step."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..transforms.intensity import to_symmetric
from .patches import Generators
from .slices import Progress
from .translation import Batch, TranslationInferer, Translator

EVAL_MODES = ("running", "per_image")


class GanTranslator(Translator):
    """Let a generator make a healthy image of each.

    Source: Wolleb et al. 2020, "DeScarGAN: Disease-Specific Anomaly Detection with Weak Supervision".

    Args:
        target: class that is asked for.
        eval_mode: ``running`` normalises by the statistics of the training; ``per_image`` by those of each image alone,
            as the authors' program does with its synthetic images.
        part: name of the generator in the container.
        amp: bfloat16 autocast for it.

    Raises:
        ValueError: if ``eval_mode`` is neither.
    """

    def __init__(
        self, *, target: int = 0, eval_mode: str = "running", part: str = "generator", amp: bool = False
    ) -> None:
        if eval_mode not in EVAL_MODES:
            raise ValueError(f"g_eval_mode must be one of {', '.join(EVAL_MODES)}, got {eval_mode!r}.")
        self.target, self.per_image, self.part, self.amp = target, eval_mode == "per_image", part, amp

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return translated images."""
        generator, images = network.get_submodule(self.part), (to_symmetric(batch.image),)
        if self.per_image:
            generator, images = without_statistics(generator), images[0].split(1)
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=self.amp):
            found = torch.cat([generator(image, self.target) for image in images])
        return (found.float() + 1) / 2

    @property
    def settings(self) -> dict[str, Any]:
        """How images are normalised, where it is not by the statistics of the training."""
        return {"g_eval_mode": "per_image"} if self.per_image else {}


class GanInferer(TranslationInferer):
    """Compare images with healthy versions of themselves; the class is told by the classifier beside the critics."""

    def disease_probability(self, image: Tensor, network: nn.Module) -> Tensor:
        """Return the classifier's probability that an image is not of class 0, shape (B,)."""
        if self.classifier is None:
            return super().disease_probability(image, network)
        return 1 - network.get_submodule(self.classifier)(to_symmetric(image)).float().softmax(1)[:, 0]


def without_statistics(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose batch norms know nothing of the training: they take what they are given."""
    copied = deepcopy(network)
    for module in copied.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = None
    return copied
