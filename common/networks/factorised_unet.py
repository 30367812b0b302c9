"""A diffusion U-Net of volumes that looks at planes, and along depth by attention alone."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn

IN_PLANE = (3, 3, 1)
"""Kernel of convolutions: depth, the last axis, is neither convolved nor halved."""

ROTATED = 32
"""Channels of a head that the rotary embedding turns, at the most."""


class FactorisedUNet(nn.Module):
    """Predict the noise in volumes, told a condition in further channels.

    Convolutions and linear attention work within each plane, softmax attention along depth for each of its points.

    Sources: Ho et al. 2022, "Video Diffusion Models", section 3; Chen et al. 2024, "Towards Generalizable Tumor
    Synthesis", section 3.2, whose network, with the defaults, has 6,018,576 parameters.

    Args:
        in_channels: noisy image and condition.
        out_channels: of the noise.
        width: channels of the first level; a multiple of 8.
        multipliers: of the width, for each level; between levels the plane is halved.
        num_heads: of all attentions.
        head_dim: channels of each head.
        num_buckets: distances along depth that are told apart.
        max_distance: from which on all distances are alike.

    Raises:
        ValueError: if ``width`` is no multiple of 8.

    Example:
        >>> network = FactorisedUNet(3, 1, width=8, multipliers=(1, 2), num_heads=2, head_dim=8)
        >>> network(torch.randn(2, 3, 8, 8, 4), torch.tensor([0, 3])).shape
        torch.Size([2, 1, 8, 8, 4])
    """

    def __init__(
        self,
        in_channels: int = 17,
        out_channels: int = 8,
        width: int = 24,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        num_heads: int = 8,
        head_dim: int = 32,
        num_buckets: int = 32,
        max_distance: int = 32,
    ) -> None:
        super().__init__()
        if width % NUM_GROUPS:
            raise ValueError(f"width must be a multiple of {NUM_GROUPS}, got {width}.")
        self.width, self.multiple = width, 2 ** (len(multipliers) - 1)
        widths = [width, *(width * multiplier for multiplier in multipliers)]
        embedding, heads = 4 * width, (num_heads, head_dim)
        self.first = nn.Conv3d(in_channels, width, (7, 7, 1), padding=(3, 3, 0))
        self.first_depth = _Around(width, DepthAttention(width, *heads))
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.GELU(), nn.Linear(embedding, embedding))
        self.distances = RelativeDistances(num_heads, num_buckets, max_distance)

        levels = list(pairwise(widths))
        self.down = nn.ModuleList([Level(narrow, wide, embedding, *heads) for narrow, wide in levels])
        self.halving = nn.ModuleList([nn.Conv3d(wide, wide, *HALF) for _, wide in levels[:-1]])
        inner = widths[-1]
        self.middle = nn.ModuleList([ResidualBlock(inner, inner, embedding) for _ in range(2)])
        self.middle_plane = _Around(inner, PlaneAttention(inner, *heads))
        self.middle_depth = _Around(inner, DepthAttention(inner, *heads))
        self.up = nn.ModuleList([Level(2 * wide, narrow, embedding, *heads) for narrow, wide in reversed(levels)])
        self.doubling = nn.ModuleList([nn.ConvTranspose3d(narrow, narrow, *HALF) for narrow, _ in reversed(levels[1:])])
        self.last = nn.Sequential(ResidualBlock(2 * width, width), nn.Conv3d(width, out_channels, 1))

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noise in images.

        Args:
            x: condition and noisy images, shape (B, in_channels, X, Y, Z); X and Y are multiples of ``multiple``.
            timesteps: of training, shape (B,).

        Raises:
            ValueError: if X or Y cannot be halved as often as there are levels.
        """
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(f"X and Y must be multiples of {self.multiple}, got {tuple(x.shape[2:])}.")
        told = self.time(get_timestep_embedding(timesteps, self.width).to(x.dtype))
        distances = self.distances(x.shape[-1])
        x = first = self.first_depth(self.first(x), distances)
        skipped = []
        for level, halve in zip(self.down, [*self.halving, nn.Identity()], strict=True):
            x = level(x, told, distances)
            skipped.append(x)
            x = halve(x)
        before, after = self.middle
        x = after(self.middle_depth(self.middle_plane(before(x, told)), distances), told)
        for level, double in zip(self.up, [*self.doubling, nn.Identity()], strict=True):
            x = double(level(torch.cat([x, skipped.pop()], dim=1), told, distances))
        return self.last(torch.cat([x, first], dim=1))


HALF = ((4, 4, 1), (2, 2, 1), (1, 1, 0))
"""Kernel, stride and padding that halve or double the plane."""

NUM_GROUPS = 8


class Level(nn.Module):
    """Two blocks, attention within planes, and attention along depth.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        embedding: channels of the timestep's embedding.
        num_heads: of the attentions.
        head_dim: channels of each head.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.first = ResidualBlock(in_channels, out_channels, embedding)
        self.second = ResidualBlock(out_channels, out_channels, embedding)
        self.plane = _Around(out_channels, PlaneLinearAttention(out_channels, num_heads, head_dim))
        self.depth = _Around(out_channels, DepthAttention(out_channels, num_heads, head_dim))

    def forward(self, x: Tensor, told: Tensor, distances: Tensor) -> Tensor:
        """Return features of the same size."""
        return self.depth(self.plane(self.second(self.first(x, told), told)), distances)


class ResidualBlock(nn.Module):
    """Two convolutions within planes; the timestep scales and shifts what the first one says.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        embedding: channels of the timestep's embedding, 0 without.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int = 0) -> None:
        super().__init__()
        self.told = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out_channels)) if embedding else None
        self.first = nn.Conv3d(in_channels, out_channels, IN_PLANE, padding=(1, 1, 0))
        self.first_norm = nn.GroupNorm(NUM_GROUPS, out_channels)
        self.second = nn.Conv3d(out_channels, out_channels, IN_PLANE, padding=(1, 1, 0))
        self.second_norm = nn.GroupNorm(NUM_GROUPS, out_channels)
        same = in_channels == out_channels
        self.direct = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """Return features of the same size."""
        y = self.first_norm(self.first(x))
        if self.told is not None:
            scale, shift = self.told(told)[..., None, None, None].chunk(2, dim=1)
            y = y * (scale + 1) + shift
        y = F.silu(self.second_norm(self.second(F.silu(y))))
        return y + self.direct(x)


class _Around(nn.Module):
    """Add what an attention says of normalised features to them."""

    def __init__(self, channels: int, attention: nn.Module) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.attention = attention

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim(1, -1), x.shape[1:2], self.gain)
        return x + self.attention(y, *args).movedim(-1, 1)


class _Heads(nn.Module):
    """Queries, keys and values of several heads, and what comes of them.

    Args:
        channels: of the features.
        num_heads: of the attention.
        head_dim: channels of each.
        bias: of what comes of them.
    """

    def __init__(self, channels: int, num_heads: int, head_dim: int, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ask = nn.Linear(channels, 3 * num_heads * head_dim, bias=False)
        self.answer = nn.Linear(num_heads * head_dim, channels, bias=bias)

    def asked(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values of tokens (N, L, C), shape (N, heads, L, head_dim) each."""
        return self.ask(x).unflatten(-1, (3, self.num_heads, -1)).movedim(1, 3).unbind(1)

    def answered(self, values: Tensor) -> Tensor:
        """Return tokens of the shape that ``asked`` was given."""
        return self.answer(values.transpose(1, 2).flatten(2))


class PlaneLinearAttention(_Heads):
    """Attention within each plane whose cost grows with the plane's area, not its square (Shen et al. 2021)."""

    def __init__(self, channels: int, num_heads: int, head_dim: int) -> None:
        super().__init__(channels, num_heads, head_dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of (B, X, Y, Z, C)."""
        planes = x.movedim(3, 1)
        query, key, value = self.asked(planes.flatten(0, 1).flatten(1, 2))
        query = query.softmax(-1) * query.shape[-1] ** -0.5
        context = key.softmax(-2).transpose(-1, -2) @ value
        return self.answered(query @ context).view(planes.shape).movedim(1, 3)


class PlaneAttention(_Heads):
    """Softmax attention within each plane."""

    def __init__(self, channels: int, num_heads: int, head_dim: int) -> None:
        super().__init__(channels, num_heads, head_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of (B, X, Y, Z, C)."""
        planes = x.movedim(3, 1)
        query, key, value = self.asked(planes.flatten(0, 1).flatten(1, 2))
        answer = F.scaled_dot_product_attention(query, key, value)
        return self.answered(answer).view(planes.shape).movedim(1, 3)


class DepthAttention(_Heads):
    """Softmax attention along depth for each point of the plane, which knows how far apart two planes are."""

    def __init__(self, channels: int, num_heads: int, head_dim: int) -> None:
        super().__init__(channels, num_heads, head_dim, bias=False)

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        """Return features of (B, X, Y, Z, C); ``distances`` are added to the logits, shape (heads, Z, Z)."""
        query, key, value = self.asked(x.flatten(0, 2))
        bias = distances.to(query.dtype)[None]  # of four axes, or torch takes a slower way
        answer = F.scaled_dot_product_attention(
            rotated(query).contiguous(), rotated(key).contiguous(), value.contiguous(), bias
        )
        return self.answered(answer).view(x.shape)


class RelativeDistances(nn.Module):
    """What each head makes of how far a plane lies above or below another; far ones share a bucket.

    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1.

    Args:
        num_heads: of the attention.
        num_buckets: half of them for planes above; a quarter for single distances, the others ever wider.
        max_distance: from which on all share the last.
    """

    def __init__(self, num_heads: int, num_buckets: int, max_distance: int) -> None:
        super().__init__()
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.weights = nn.Embedding(num_buckets, num_heads)

    def forward(self, depth: int) -> Tensor:
        """Return what is added to the logits, shape (heads, depth, depth)."""
        plane = torch.arange(depth, device=self.weights.weight.device)
        return self.weights(self.bucket(plane[None] - plane[:, None])).movedim(-1, 0)

    def bucket(self, distance: Tensor) -> Tensor:
        """Return the bucket of signed distances."""
        half = self.num_buckets // 2
        single = half // 2
        away = distance.abs()
        octaves = (away.clamp(min=1) / single).log() / torch.tensor(self.max_distance / single).log()
        far = (single + (octaves * (half - single)).long()).clamp(max=half - 1)
        return torch.where(away < single, away, far) + half * (distance > 0)


def rotated(x: Tensor) -> Tensor:
    """Turn pairs of channels by angles that grow with the position, so that products depend on distances alone.

    Source: Su et al. 2021, "RoFormer", Eq. 34.

    Args:
        x: shape (..., L, head_dim).
    """
    turned = min(ROTATED, x.shape[-1])
    speed = 10000 ** (-torch.arange(0, turned, 2, device=x.device) / turned)
    exact = torch.promote_types(x.dtype, torch.float32)  # complex numbers have no half precision worth the name
    angle = (torch.arange(x.shape[-2], device=x.device)[:, None] * speed).to(exact)
    pairs = torch.view_as_complex(x[..., :turned].to(exact).unflatten(-1, (-1, 2)).contiguous())
    pairs = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2).to(x.dtype)
    return pairs if turned == x.shape[-1] else torch.cat([pairs, x[..., turned:]], dim=-1)
