"""The noise-conditioned encoder of guided-diffusion: classifies noisy images, or tells a number of them."""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from monai.networks.blocks import SpatialAttentionBlock
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from ..checkpoints import refuse_other_weights


class EncoderUNet(nn.Module):
    """The descending half of a diffusion U-Net with attention pooling at its end.

    Source: Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", section 4 and appendix I; the
    defaults are those of Wolleb et al. 2022.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: classes, or 1 for a number.
        spatial_size: of the images; the pooling has a position for each pixel of the last level, so other sizes do not
            fit.
        channels: of each level; each but the first is half as large as the one before.
        num_res_blocks: at each level.
        attention_levels: which levels have self-attention.
        num_head_channels: of the attention's heads.
        norm_num_groups: of all normalisations.
        norm_eps: of all normalisations.

    Raises:
        ValueError: if ``spatial_size`` cannot be halved often enough.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        spatial_size: Sequence[int] | int,
        channels: Sequence[int] = (32, 32, 64, 64, 128, 128),
        num_res_blocks: int = 4,
        attention_levels: Sequence[bool] = (False, False, False, True, True, True),
        num_head_channels: int = 64,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.channels, self.spatial_size = channels, ensure_tuple_rep(spatial_size, spatial_dims)
        shrink = 2 ** (len(channels) - 1)
        if any(size % shrink for size in self.spatial_size):
            raise ValueError(f"spatial_size must be divisible by {shrink}, got {self.spatial_size}.")
        embedded = 4 * channels[0]
        self.time_embed = nn.Sequential(nn.Linear(channels[0], embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.conv_in = Conv[Conv.CONV, spatial_dims](in_channels, channels[0], 3, padding=1)
        self.blocks, self.attentions = nn.ModuleList(), nn.ModuleList()

        def add(before: int, after: int, attention: bool = False, down: bool = False) -> None:
            block = ScaleShiftBlock(spatial_dims, before, after, embedded, down, norm_num_groups, norm_eps)
            heads = (num_head_channels, norm_num_groups, norm_eps)
            self.blocks.append(block)
            self.attentions.append(SpatialAttentionBlock(spatial_dims, after, *heads) if attention else nn.Identity())

        width = channels[0]
        for level, (wide, attention) in enumerate(zip(channels, attention_levels, strict=True)):
            if level > 0:
                add(width, width, down=True)
            for _ in range(num_res_blocks):
                add(width, wide, attention)
                width = wide
        add(width, width, attention=True)
        add(width, width)
        self.norm = nn.GroupNorm(norm_num_groups, width, norm_eps)
        positions = prod(size // shrink for size in self.spatial_size)
        self.pool = AttentionPool(width, out_channels, positions, width // num_head_channels)
        self.register_load_state_dict_post_hook(refuse_other_weights)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return logits or numbers, shape (B, out_channels).

        Args:
            x: noisy images, shape (B, C, *spatial_size).
            timesteps: of training, shape (B,).

        Raises:
            ValueError: for images of another size.
        """
        if tuple(x.shape[2:]) != tuple(self.spatial_size):
            got = tuple(x.shape[2:])
            raise ValueError(f"expected images of {self.spatial_size} pixels, as in training, got {got}.")
        embedding = self.time_embed(get_timestep_embedding(timesteps, self.channels[0]).to(x.dtype))
        hidden = self.conv_in(x)
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            hidden = attention(block(hidden, embedding))
        return self.pool(F.silu(self.norm(hidden)))


class ScaleShiftBlock(nn.Module):
    """A residual block whose second normalisation is scaled and shifted by the timestep; it may halve the image.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of what comes in.
        out_channels: of what goes out.
        embedding_channels: of the timestep's embedding.
        down: halve the image, on both paths.
        norm_num_groups: see ``EncoderUNet``.
        norm_eps: see ``EncoderUNet``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        down: bool,
        norm_num_groups: int,
        norm_eps: float,
    ) -> None:
        super().__init__()
        conv, pool = Conv[Conv.CONV, spatial_dims], Pool[Pool.AVG, spatial_dims]
        self.norm1 = nn.GroupNorm(norm_num_groups, in_channels, norm_eps)
        self.downsample = pool(2) if down else nn.Identity()
        self.conv1 = conv(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding_channels, 2 * out_channels)
        self.norm2 = nn.GroupNorm(norm_num_groups, out_channels, norm_eps)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        self.skip_connection = nn.Identity() if in_channels == out_channels else conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return the features, shape (B, out_channels, *spatial)."""
        hidden = self.conv1(self.downsample(F.silu(self.norm1(x))))
        scale_and_shift = self.time_emb_proj(F.silu(embedding)).view(len(x), -1, *[1] * (x.ndim - 2))
        scale, shift = scale_and_shift.chunk(2, dim=1)
        hidden = self.conv2(F.silu(self.norm2(hidden) * (1 + scale) + shift))
        return self.skip_connection(self.downsample(x)) + hidden


class AttentionPool(nn.Module):
    """What the mean over an image attends to.

    Source: Radford et al. 2021 (CLIP), https://arxiv.org/abs/2103.00020, section 2.4.

    Args:
        channels: of the features.
        out_channels: of the answer.
        positions: pixels of the features.
        num_heads: of the attention.
    """

    def __init__(self, channels: int, out_channels: int, positions: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.position = nn.Parameter(torch.randn(channels, positions + 1) / channels**0.5)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return the answer, shape (B, out_channels)."""
        pixels = features.flatten(2)
        tokens = torch.cat([pixels.mean(2, keepdim=True), pixels], dim=2) + self.position
        tokens = tokens.transpose(1, 2)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in self.to_qkv(tokens).chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        return self.to_out(attended.flatten(1))
