"""A classifier of vectors on the unit sphere, in which each class has a centre."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets import DenseNet, DenseNet121, DenseNet169, ResNet, resnet18
from monai.networks.utils import replace_modules
from torch import Tensor, nn

from .inception_resnet import InceptionResNetV1

DENSENETS = {"densenet121": DenseNet121, "densenet169": DenseNet169}
ENCODERS = ("inception_resnet", *DENSENETS, "resnet18")
CENTRES = ("learned", "fixed")


class LatentClassifier(nn.Module):
    """Give an image a vector of length 1, and from that the logits of its classes.

    Source: Wolleb et al. 2022, "Learn to Ignore: Domain Adaptation for Multi-Site MRI Analysis".

    Args:
        encoder: turns images into vectors.
        embedding_dim: of the vectors.
        num_classes: that are told apart.
        centres: ``learned``, or ``fixed`` and as far from one another as can be, which the paper compares.
        detach: in training the encoder does not learn from the classifier, as in the paper; false for plain
            classification.

    Raises:
        ValueError: if ``centres`` is unknown, or there are fewer than two classes.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 128,
        num_classes: int = 2,
        centres: str = "learned",
        detach: bool = True,
    ) -> None:
        super().__init__()
        if centres not in CENTRES:
            raise ValueError(f"centres must be one of {', '.join(CENTRES)}, got {centres!r}.")
        if num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, got {num_classes}.")
        self.encoder, self.detach = encoder, detach
        self.classifier = nn.Linear(embedding_dim, num_classes)
        if centres == "learned":
            self.centres = nn.Parameter(F.normalize(torch.randn(num_classes, embedding_dim)))
        else:
            self.register_buffer("centres", simplex(num_classes, embedding_dim))

    def forward(self, image: Tensor, *more: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, vectors of length 1, and the centres, of length 1 too, for each image.

        Args:
            image: shape (B, C, *spatial).
            more: what the encoder takes beside it, as the timesteps of noisy images.

        Returns:
            Shapes (B, K), (B, embedding_dim) and (B, K, embedding_dim).
        """
        latent = F.normalize(self.encoder(image, *more).float(), eps=1e-6)
        apart = self.detach and self.training  # what guides a sampler has gradients all the way
        logits = self.classifier(latent.detach() if apart else latent)
        return logits, latent, F.normalize(self.centres).expand(len(image), -1, -1)

    @property
    def early_layer(self) -> str:
        """The name of a layer of the encoder which still knows where things are, at a half or a quarter of the size.

        Raises:
            ValueError: if the encoder is none of ``image_encoder``.
        """
        known = {InceptionResNetV1: "stem.5", DenseNet: "features.denseblock1", ResNet: "layer1"}
        for kind, layer in known.items():
            if isinstance(self.encoder, kind):
                return layer
        raise ValueError(f"expected the name of a layer of {type(self.encoder).__name__}, which has none by default.")


def simplex(num_points: int, dimensions: int) -> Tensor:
    """Return points of length 1 that are all as far from one another as can be, shape (num_points, dimensions).

    Raises:
        ValueError: if there are not enough dimensions.
    """
    if dimensions < num_points - 1:
        raise ValueError(f"{num_points} points need {num_points - 1} dimensions, got {dimensions}.")
    if num_points == 2:
        point = torch.full((1, dimensions), dimensions**-0.5)  # the paper's
        return torch.cat([point, -point])
    corners = torch.eye(num_points) - 1 / num_points
    directions = torch.linalg.svd(corners)[2][: num_points - 1]
    return F.pad(F.normalize(corners @ directions.T), (0, dimensions - num_points + 1))


def image_encoder(
    encoder: str,
    spatial_dims: int = 3,
    in_channels: int = 1,
    embedding_dim: int = 128,
    hidden_dim: int = 1024,
    num_blocks: Sequence[int] = (5, 10, 5),
    width: float = 1.0,
    dropout: float = 0.2,
    padding: str = "valid",
) -> nn.Module:
    """Return a network that turns images into vectors, all of them with instance normalisation.

    Args:
        encoder: ``inception_resnet``, see ``InceptionResNetV1``, or MONAI's ``densenet121``, ``densenet169`` or
            ``resnet18``.
        spatial_dims: 2 or 3.
        in_channels: of the images.
        embedding_dim: length of the vectors.
        hidden_dim: of ``inception_resnet``.
        num_blocks: of ``inception_resnet``.
        width: of ``inception_resnet``.
        dropout: of all but ``resnet18``.
        padding: of ``inception_resnet``.

    Raises:
        ValueError: if ``encoder`` is unknown.
    """
    norm = ("instance", {"affine": True})
    match encoder:
        case "inception_resnet":
            options: dict[str, Any] = {"width": width, "dropout": dropout, "padding": padding}
            return InceptionResNetV1(spatial_dims, in_channels, embedding_dim, hidden_dim, num_blocks, **options)
        case "densenet121" | "densenet169":
            return DENSENETS[encoder](spatial_dims, in_channels, embedding_dim, norm=norm, dropout_prob=dropout)
        case "resnet18":
            made: ResNet = resnet18(
                spatial_dims=spatial_dims, n_input_channels=in_channels, num_classes=embedding_dim, norm=norm
            )
            for name, module in list(made.named_modules()):  # MONAI tells its blocks but the first of a level no norm
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    replace_modules(made, name, get_norm_layer(norm, spatial_dims, module.num_features))
            return made
    raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}.")
