"""A diffusion network whose condition may lie between classes."""

from typing import Any

from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn


class MixedClassUNet(DiffusionModelUNet):
    """MONAI's class-conditional U-Net, whose ``class_labels`` may also be shares of the classes.

    Classes are integers of shape (B,), as ever. Shares are floating point, shape (B, num_class_embeds); the condition
    is then the mean of the classes' embeddings by these shares, as in Hu et al. 2023, "Conditional Diffusion Models
    for Weakly Supervised Medical Image Segmentation", Algorithm 1. Weights are those of ``DiffusionModelUNet``.

    Args:
        num_class_embeds: number of classes.
        options: see MONAI's ``DiffusionModelUNet``.
    """

    def __init__(self, num_class_embeds: int, **options: Any) -> None:
        super().__init__(num_class_embeds=num_class_embeds, **options)
        self.class_embedding = _MixedEmbedding(num_class_embeds, self.class_embedding.embedding_dim)


class _MixedEmbedding(nn.Embedding):
    def forward(self, classes: Tensor) -> Tensor:
        return classes @ self.weight if classes.is_floating_point() else super().forward(classes)
