"""Classes of whole images."""

from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

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
