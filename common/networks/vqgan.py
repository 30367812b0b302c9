"""A vector-quantised autoencoder of images, as it is trained with discriminators."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from monai.networks.nets.autoencoderkl import AEKLResBlock
from torch import Tensor, nn

from .quantiser import RestartQuantiser


class VQGAN(nn.Module):
    """Encode images into small latent images of codes, and decode them.

    Each level halves the axes that its strides say, with convolutions whose borders repeat the image's, so that air
    around a body is no different from the body's edge of a patch.

    Sources: Esser et al. 2021, "Taming Transformers"; Ge et al. 2022; Chen et al. 2024, "Towards Generalizable Tumor
    Synthesis", section 3.1, whose network has 1,391,081 parameters, as this one with the defaults.

    Args:
        spatial_dims: 2 or 3.
        channels: of the image itself and after each level.
        strides: of each level, along each axis; 1 or 2.
        in_channels: of images.
        embedding_dim: channels of a latent image.
        num_embeddings: codes.
        norm_num_groups: of the group norms; 32 with 32 channels are instance norms, as in the paper.

    Raises:
        ValueError: if there is not one more number of channels than strides, or a stride is not 1 or 2.

    Example:
        >>> autoencoder = VQGAN(3, (8, 16), ((2, 2, 1),), embedding_dim=4, num_embeddings=16, norm_num_groups=8)
        >>> image = torch.randn(1, 1, 16, 16, 4)
        >>> reconstruction, loss = autoencoder(image)
        >>> latent = autoencoder.encode(image)
        >>> reconstruction.shape, latent.shape, autoencoder.decode(latent).shape
        (torch.Size([1, 1, 16, 16, 4]), torch.Size([1, 4, 8, 8, 4]), torch.Size([1, 1, 16, 16, 4]))
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        channels: Sequence[int] = (16, 32, 64),
        strides: Sequence[Sequence[int]] = ((2, 2, 2), (2, 2, 2)),
        in_channels: int = 1,
        embedding_dim: int = 8,
        num_embeddings: int = 16384,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__()
        if len(channels) != len(strides) + 1:
            raise ValueError(f"channels must be one more than strides, got {len(channels)} and {len(strides)}.")
        if any(len(stride) != spatial_dims or not set(stride) <= {1, 2} for stride in strides):
            raise ValueError(f"strides must be 1 or 2 along each of {spatial_dims} axes, got {strides}.")
        self.strides = [tuple(stride) for stride in strides]
        self.embedding_dim = embedding_dim
        convolution, transposed = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]

        def same(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Module:
            return convolution(inputs, outputs, kernel_size, padding=kernel_size // 2, padding_mode="replicate")

        def residual(width: int) -> nn.Module:
            return AEKLResBlock(spatial_dims, width, norm_num_groups, 1e-6, width)

        first, *_, last = channels
        encoder, decoder = [same(in_channels, first)], [same(embedding_dim, last, 1), _norm(last, norm_num_groups)]
        for (width, wider), stride in zip(pairwise(channels), self.strides, strict=True):
            kernel = [2 + s if s == 2 else 3 for s in stride]
            encoder.append(convolution(width, wider, kernel, stride, 1, padding_mode="replicate"))
            encoder.append(residual(wider))
        encoder += [_norm(last, norm_num_groups), same(last, embedding_dim, 1)]
        # the decoder keeps the width of the level below, but for the innermost
        widths = [last, *reversed(channels[1:])]
        for (wider, width), stride in zip(pairwise(widths), reversed(self.strides), strict=True):
            kernel = [2 + s if s == 2 else 3 for s in stride]
            decoder += [transposed(wider, width, kernel, stride, 1), residual(width), residual(width)]
        decoder.append(same(channels[1], in_channels))
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.quantiser = RestartQuantiser(num_embeddings, embedding_dim)

    @property
    def factor(self) -> tuple[int, ...]:
        """How many voxels of an image a latent voxel is wide, along each axis."""
        return tuple(int(torch.tensor(along).prod()) for along in zip(*self.strides, strict=True))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions and the commitment loss.

        Args:
            image: in [-1, 1], shape (B, C, *spatial), axes that ``factor`` divides.
        """
        latent, loss = self.quantiser(self.encoder(image))
        return self.decoder(latent), loss

    def encode(self, image: Tensor) -> Tensor:
        """Return latent images before they are quantised, scaled so that all codes lie in [-1, 1]."""
        low, high = self.quantiser.codes.aminmax()
        return (self.encoder(image) - low) / (high - low) * 2 - 1

    def condition(self, image: Tensor, tumours: Tensor, mode: str = "area") -> Tensor:
        """Return what a diffusion model is told: the latent image without tumours' voxels, and where these are.

        Args:
            image: in [-1, 1], shape (B, 1, *spatial).
            tumours: 1 there, else 0, of the same shape; cut out, it is 0 there, the middle of the range.
            mode: of their mask on the latent grid, in [-1, 1]: ``area`` is the share of each latent voxel, ``nearest``
                takes one of its voxels, as the authors' program does, by which small tumours can vanish.

        Raises:
            ValueError: for another mode.
        """
        if mode not in ("area", "nearest"):
            raise ValueError(f"mode must be area or nearest, got {mode!r}.")
        latent = self.encode(image * (1 - tumours))
        share = F.interpolate(tumours.to(image), size=latent.shape[2:], mode=mode)
        return torch.cat([latent, 2 * share - 1], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        """Return the images of scaled latent ones, which are quantised."""
        low, high = self.quantiser.codes.aminmax()
        return self.decoder(self.quantiser.quantise((latent + 1) / 2 * (high - low) + low))


def _norm(channels: int, num_groups: int) -> nn.Module:
    return nn.Sequential(nn.GroupNorm(num_groups, channels), nn.SiLU())
