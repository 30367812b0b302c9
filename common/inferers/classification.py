"""Classes of whole images."""

from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from monai.visualize import GradCAM
from torch import Tensor, nn

from .models import finite


class LatentInferer(Inferer):
    """Say of an image how probable each class is, how far it is from the centre of each, and where it lies.

    Args:
        num_classes: K.
        embedding_dim: length of the vectors.
        part: name of the ``LatentClassifier`` in the container.
        amp: bfloat16 autocast.
    """

    settings: dict[str, Any] = {}  # noqa: RUF012

    def __init__(
        self, *, num_classes: int = 2, embedding_dim: int = 128, part: str = "classifier", amp: bool = False
    ) -> None:
        super().__init__()
        self.num_classes, self.embedding_dim, self.part, self.amp = num_classes, embedding_dim, part, amp

    @property
    def channels(self) -> tuple[str, ...]:
        """What each value of the result is; those of one name belong together."""
        return ("probability",) * self.num_classes + ("distance",) * self.num_classes + ("latent",) * self.embedding_dim

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D417
        """Return the ``channels`` of each image, shape (B, 2 K + embedding_dim).

        Args:
            inputs: on the network's grid, shape (B, C, *spatial).
            network: the container.

        Raises:
            ValueError: if the image or the answer is not finite.
        """
        image = convert_to_tensor(inputs, track_meta=False).float()
        if not image.isfinite().all():
            raise ValueError("the image holds NaN or infinite values.")
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.amp):
            logits, latent, centres = network.get_submodule(self.part)(image)
        away = (latent[:, None] - centres).norm(dim=-1)
        return finite(torch.cat([logits.float().softmax(1), away, latent], dim=1))

    def threshold_warning(self, network: Any) -> str:
        """Return nothing: classes have no threshold."""
        return ""


class Evidence:
    """Show where in an image the class that is called is seen: Grad-CAM of the logits.

    The encoder's gradient is that of the classifier's logits, also where it was not trained with that.

    Source: Selvaraju et al. 2017, "Grad-CAM", https://arxiv.org/abs/1610.02391, by MONAI.

    Args:
        network: the container.
        layer: of the encoder, whose activations are weighed.
        part: name of the ``LatentClassifier`` in the container.
    """

    def __init__(self, network: Any, layer: str = "high.0", part: str = "classifier") -> None:
        self.network, self.layer, self.part = network, layer, part

    def __call__(self, image: Tensor) -> Tensor:
        """Return a map of shape (*spatial) from 0 to 1, its highest value; 0 everywhere if nothing speaks for it.

        Args:
            image: on the network's grid, shape (C, *spatial).
        """
        part = self.network.get_submodule(self.part)
        cam = GradCAM(_Logits(part), f"encoder.{self.layer}", postprocessing=lambda x: x)
        device = next(part.parameters()).device
        batch = convert_to_tensor(image, track_meta=False, dtype=torch.float32, device=device)[None]
        with torch.enable_grad():
            seen = torch.as_tensor(cam(batch))[0, 0].detach()
        return seen / seen.max().clamp(min=1e-12)


class _Logits(nn.Module):
    """The logits alone, with a gradient that reaches the encoder."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.encoder, self.classifier = part.encoder, part.classifier

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(F.normalize(self.encoder(image).float(), eps=1e-6))
