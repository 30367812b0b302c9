"""Classes of whole images."""

from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from .models import all_finite, finite


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
        if not all_finite(image):
            raise ValueError("the image holds NaN or infinite values.")
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.amp):
            logits, latent, centres = network.get_submodule(self.part)(image)
        away = (latent[:, None] - centres).norm(dim=-1)
        return finite(torch.cat([logits.float().softmax(1), away, latent], dim=1))

    def threshold_warning(self, network: Any) -> str:
        """Return nothing: classes have no threshold."""
        return ""


class Evidence:
    """Show where in an image the class that is called is seen: activations times what they add to its logit.

    The gradient is that of the classifier's logits, also where the encoder was not trained with it. Grad-CAM, which
    weighs whole channels, does not find small lesions behind layers with instance normalisation.

    Source: Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", equation 7.

    Args:
        network: the container.
        layer: of the encoder, whose activations are looked at; early ones are finer. By default its
            ``early_layer``.
        part: name of the ``LatentClassifier`` in the container.
    """

    def __init__(self, network: Any, layer: str | None = None, part: str = "classifier") -> None:
        self.network, self.part = network, part
        self.layer = layer or network.get_submodule(part).early_layer

    def __call__(self, image: Tensor) -> Tensor:
        """Return a map of shape (*spatial) from 0 to 1, its highest value; 0 everywhere if nothing speaks for it.

        Args:
            image: on the network's grid, shape (C, *spatial).
        """
        part, found = self.network.get_submodule(self.part), []
        batch = convert_to_tensor(image, track_meta=False, device=next(part.parameters()).device).float()[None]
        handle = part.encoder.get_submodule(self.layer).register_forward_hook(lambda *said: found.append(said[-1]))
        try:
            with torch.enable_grad():
                latent = F.normalize(part.encoder(batch.requires_grad_()).float(), eps=1e-6)
                (gradient,) = torch.autograd.grad(part.classifier(latent).amax(), found)
        finally:
            handle.remove()
        seen = (gradient.clamp(min=0) * found[0].detach()).sum(1, keepdim=True).clamp(min=0)
        mode = "trilinear" if batch.ndim == 5 else "bilinear"
        fine = F.interpolate(seen, batch.shape[2:], mode=mode, align_corners=False)[0, 0]
        return fine / fine.max().clamp(min=1e-12)
