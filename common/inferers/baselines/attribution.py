"""What a classifier looks at."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from monai.visualize import GradCAM, GradCAMpp, VanillaGrad
from torch import Tensor, nn

from ..patches import Generators
from ..slices import Progress
from ..translation import Batch, Translator
from .controls import with_map


class AttributionTranslator(Translator):
    """Add to each image what makes a classifier call it diseased, scaled to [0, 1].

    Args:
        method: one of ``ATTRIBUTIONS``; ``saliency`` is the magnitude of the gradient in each pixel, the others are
            class activation maps.
        layer: of the classifier, whose activations are mapped.
        timestep: that the classifier of noisy images is told.
        smooth: take the mean over six views of the image: flipped or not, and 0.9, 1 or 1.1 times as bright.
        part: name of the classifier in the container.

    Raises:
        ValueError: if ``method`` is none of ``ATTRIBUTIONS``.
    """

    def __init__(
        self,
        *,
        method: str = "saliency",
        layer: str = "norm",
        timestep: int = 0,
        smooth: bool = False,
        part: str = "classifier",
    ) -> None:
        if method not in ATTRIBUTIONS:
            raise ValueError(f"method must be one of {', '.join(ATTRIBUTIONS)}, got {method!r}.")
        self.explainer, self.layer, self.timestep, self.part = ATTRIBUTIONS[method], layer, timestep, part
        self.views = list(product((1.0, 0.9, 1.1), (False, True))) if smooth else [(1.0, False)]

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return images that differ from the given ones by the map."""
        copied = deepcopy(network.get_submodule(self.part))  # MONAI's explainers leave hooks and gradients behind
        explain = self.explainer(AtTimestep(copied, self.timestep), f"network.{self.layer}")
        with torch.enable_grad():  # they take one image at a time
            found = torch.cat([self.explain(explain, image) for image in batch.image.split(1)]).detach()
        return with_map(batch.image, found / found.amax((1, 2), keepdim=True).clamp(min=1e-12))

    def explain(self, explain: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Return the mean map of the views of an image, shape (1, X, Y)."""
        maps = []
        for factor, flipped in self.views:
            found = explain(factor * (image.flip(2) if flipped else image))
            maps.append(found.flip(1) if flipped else found)
        return torch.stack(maps).mean(0)


class LayerCAM(GradCAM):
    """Jiang et al. 2021, "LayerCAM", Eq. 6 and 7: activations weighted by their own positive gradients."""

    def compute_map(  # type: ignore[override]
        self, x: Tensor, class_idx: Any = None, retain_graph: bool = False, layer_idx: int = -1, **options: Any
    ) -> Tensor:
        """Return the map on the layer's grid, shape (1, 1, x, y)."""
        _, activations, gradients = self.nn_module(x, class_idx=class_idx, retain_graph=retain_graph, **options)
        return (gradients[layer_idx].clamp(min=0) * activations[layer_idx]).sum(1, keepdim=True).clamp(min=0)


class ScoreCAM(GradCAM):
    """Wang et al. 2020, "Score-CAM", Eq. 4 to 6: channels weighted by the score of the image seen through them."""

    def compute_map(  # type: ignore[override]
        self, x: Tensor, class_idx: Any = None, retain_graph: bool = False, layer_idx: int = -1, **options: Any
    ) -> Tensor:
        """Return the map on the layer's grid, shape (1, 1, x, y)."""
        _, activations, _ = self.nn_module(x, class_idx=class_idx, retain_graph=retain_graph, **options)
        channels = activations[layer_idx].detach().clone().movedim(1, 0)
        with torch.no_grad():
            masks = F.interpolate(channels, size=x.shape[2:], mode="bilinear", align_corners=False)
            low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            seen = x * (masks - low) / (high - low).clamp(min=1e-12)
            scores = self.nn_module.model(seen)[:, class_idx].softmax(0)
        return (scores[:, None, None, None] * channels).sum(0, keepdim=True).clamp(min=0)


def _saliency(model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    gradient = VanillaGrad(model)
    return lambda image: gradient(image, index=1).abs().sum(1)


def _activations(cam: type[GradCAM], model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    mapped = cam(model, layer, postprocessing=lambda found: found)
    return lambda image: mapped(image, class_idx=1)[:, 0].clamp(min=0)


ATTRIBUTIONS: dict[str, Callable[[nn.Module, str], Callable[[Tensor], Tensor]]] = {
    "saliency": _saliency,
    "grad_cam": partial(_activations, GradCAM),
    "grad_cam_pp": partial(_activations, GradCAMpp),
    "layer_cam": partial(_activations, LayerCAM),
    "score_cam": partial(_activations, ScoreCAM),
}
"""What explains a classifier: takes it and the name of a layer, gives images of shape (1, C, X, Y) -> (1, X, Y)."""


class AtTimestep(nn.Module):
    """A network of noisy images that is always told the same timestep.

    Args:
        network: takes images and timesteps.
        timestep: 0 where there is no noise.
    """

    def __init__(self, network: nn.Module, timestep: int = 0) -> None:
        super().__init__()
        self.network, self.timestep = network, timestep

    def forward(self, image: Tensor) -> Tensor:
        """Return what the network says of images."""
        return self.network(image, torch.full((len(image),), self.timestep, device=image.device))
