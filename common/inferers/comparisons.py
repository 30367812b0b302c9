"""What translation is compared with: autoencoders, what a classifier looks at, and controls without a network."""

from typing import Any

import torch
from monai.utils import convert_to_numpy
from monai.visualize import GradCAM, VanillaGrad
from skimage.exposure import equalize_hist
from torch import Tensor, nn
from tqdm import tqdm

from .translation import Batch, Generators, TranslationInferer


class ReconstructionTranslationInferer(TranslationInferer):
    """Autoencoders: the translation is the reconstruction.

    Args:
        part: name of the autoencoder in the container.
        options: see ``TranslationInferer``.
    """

    def __init__(self, part: str, **options: Any) -> None:
        super().__init__(**options)
        self.part = part

    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return the reconstructions."""
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=self.amp):
            output = network.get_submodule(self.part)(batch.image)
        bar.update()
        return [(output[0] if isinstance(output, tuple) else output).float()]


class MedianTranslationInferer(TranslationInferer):
    """The control without a network: the organ's median in each slice and channel takes the image's place."""

    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return constant images."""
        bar.update()
        inside = batch.image.masked_fill(~batch.organ, float("nan")).flatten(2)
        return [inside.nanmedian(2).values[..., None, None].expand_as(batch.image)]


class EqualizedInferer(TranslationInferer):
    """The control without a network: the map is one channel, its histogram equalised within the organ of each slice.

    Source: Meissen et al. 2021, "Challenging current semi-supervised anomaly segmentation methods for brain MRI".

    Args:
        channel: in which lesions are bright.
        options: see ``TranslationInferer``.
    """

    def __init__(self, channel: int, **options: Any) -> None:
        super().__init__(**options)
        self.channel = channel

    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return images that differ from the given ones by the map."""
        bar.update()
        pairs = zip(convert_to_numpy(batch.image[:, self.channel]), convert_to_numpy(batch.organ[:, 0]), strict=True)
        equalized = torch.stack([torch.from_numpy(equalize_hist(image, mask=organ)) for image, organ in pairs])
        return [_with_map(batch.image, equalized)]


class AttributionInferer(TranslationInferer):
    """The map is what makes a classifier call the noise-free image diseased, scaled to [0, 1] in each slice.

    Args:
        layer: of the classifier, for Grad-CAM; None is the saliency, the magnitude of the gradient in each pixel.
        part: name of the classifier in the container.
        options: see ``TranslationInferer``.
    """

    def __init__(self, layer: str | None = None, part: str = "classifier", **options: Any) -> None:
        super().__init__(**options)
        self.layer, self.part = layer, part

    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return images that differ from the given ones by the map."""
        bar.update()
        model = NoiseFree(network.get_submodule(self.part))
        with torch.enable_grad():  # MONAI's take one image at a time
            if self.layer is None:
                saliency = VanillaGrad(model)
                found = torch.cat([saliency(x, index=1).abs().sum(1) for x in batch.image.split(1)]).detach()
            else:
                cam = GradCAM(model, f"network.{self.layer}", postprocessing=lambda x: x)
                found = torch.cat([cam(x, class_idx=1)[:, 0].clamp(min=0) for x in batch.image.split(1)]).detach()
        model.zero_grad()  # both run a whole backward pass
        return [_with_map(batch.image, found / found.amax((1, 2), keepdim=True).clamp(min=1e-12))]


class NoiseFree(nn.Module):
    """A network of noisy images that is told that there is no noise.

    Args:
        network: takes images and timesteps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return what the network says at timestep 0."""
        return self.network(image, torch.zeros(len(image), dtype=torch.long, device=image.device))


def _with_map(image: Tensor, found: Tensor) -> Tensor:
    """Return images whose first channel differs by a map of shape (B, X, Y)."""
    changed = image.clone()
    changed[:, 0] += found.to(image)
    return changed
