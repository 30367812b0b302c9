"""Inception-ResNet-v1 of any dimension, with instance normalisation: an encoder of whole images."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn

PADDINGS = ("valid", "same")


class InceptionResNetV1(nn.Module):
    """Turn an image into a vector.

    Its blocks are those of FaceNet. Each 1 x n and n x 1 pair of convolutions becomes one along each axis; convolutions
    have no bias but are normalised, and those that end a residual branch have a bias and are not.

    Source: Szegedy et al. 2017, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning".
    With the default sizes in 3-D it has as many parameters as the encoder of Wolleb et al. 2022, "Learn to Ignore",
    which names no layers.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        embedding_dim: length of the vector.
        hidden_dim: of the layer before it.
        num_blocks: of each of the three resolutions.
        width: factor of all channels but those of the last two layers.
        norm: of convolutions, see MONAI; batch norm would mix the images of a batch.
        dropout: share of units that are dropped before the last two layers.
        padding: ``valid``, where each axis needs 75 voxels at least and one of them 107; or ``same``, which pads every
            strided convolution and pooling, so that 33 are enough. The parameters are the same.

    Raises:
        ValueError: if ``padding`` is unknown.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        embedding_dim: int = 128,
        hidden_dim: int = 1024,
        num_blocks: Sequence[int] = (5, 10, 5),
        width: float = 1.0,
        norm: tuple | str = ("instance", {"affine": False, "eps": 1e-3}),
        dropout: float = 0.2,
        padding: str = "valid",
    ) -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}.")
        self.dims, self.width, self.norm, self.pad = spatial_dims, width, norm, int(padding == "same")
        first, second, third = num_blocks
        c = self.channels
        self.stem = nn.Sequential(
            self.conv(in_channels, c(32), 3, 2, self.pad),
            self.conv(c(32), c(32), 3, 1, self.pad),
            self.conv(c(32), c(64), 3, 1, 1),
            self.pool(),
            self.conv(c(64), c(80), 1),
            self.conv(c(80), c(192), 3, 1, self.pad),
            self.conv(c(192), c(256), 3, 2, self.pad),
        )
        self.high = nn.Sequential(
            *(
                Residual(
                    [self.path(256, (32, 1), *[(32, 3)] * depth) for depth in range(3)], self.projection(96, 256), 0.17
                )
                for _ in range(first)
            ),
            Parallel([self.strided(256, 384), self.strided(256, 192, 192, 256), self.pool()]),
        )
        self.middle = nn.Sequential(
            *(
                Residual([self.path(896, (128, 1)), self.factorised(896, 128, 7)], self.projection(256, 896), 0.1)
                for _ in range(second)
            ),
            Parallel(
                [
                    self.strided(896, 256, 384),
                    self.strided(896, 256, 256),
                    self.strided(896, 256, 256, 256),
                    self.pool(),
                ]
            ),
        )
        scales = [*[0.2] * third, 1.0]
        self.low = nn.Sequential(
            *(
                Residual(
                    [self.path(1792, (192, 1)), self.factorised(1792, 192, 3)],
                    self.projection(384, 1792),
                    scale,
                    last=number == third,
                )
                for number, scale in enumerate(scales)
            )
        )
        self.head = nn.Sequential(
            Pool[Pool.ADAPTIVEAVG, spatial_dims](1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(c(1792), hidden_dim, bias=False),
            nn.Linear(hidden_dim, embedding_dim),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return vectors, shape (B, embedding_dim), of images of shape (B, in_channels, *spatial)."""
        return self.head(self.low(self.middle(self.high(self.stem(image)))))

    def channels(self, count: int) -> int:
        """Return a number of channels at this width, one at least."""
        return max(1, round(count * self.width))

    def conv(
        self, given: int, made: int, kernel: int | Sequence[int], stride: int = 1, padding: int | Sequence[int] = 0
    ) -> nn.Module:
        """Return a convolution, normalised, then ReLU."""
        return nn.Sequential(
            Conv[Conv.CONV, self.dims](given, made, kernel, stride, padding, bias=False),
            get_norm_layer(self.norm, self.dims, made),
            nn.ReLU(),
        )

    def pool(self) -> nn.Module:
        """Return a pooling that halves each axis."""
        return Pool[Pool.MAX, self.dims](3, 2, self.pad)

    def path(self, given: int, *layers: tuple[int, int]) -> nn.Module:
        """Return convolutions one after another, of (channels, kernel), that keep the size."""
        counts = pairwise([self.channels(given), *(self.channels(made) for made, _ in layers)])
        made = zip(counts, layers, strict=True)
        return nn.Sequential(*(self.conv(*pair, kernel, 1, kernel // 2) for pair, (_, kernel) in made))

    def factorised(self, given: int, made: int, kernel: int) -> nn.Module:
        """Return a convolution of a voxel, then one along each axis, the last axis first."""
        c, layers = self.channels, []
        for axis in reversed(range(self.dims)):
            size = [kernel if other == axis else 1 for other in range(self.dims)]
            layers.append(self.conv(c(made), c(made), size, 1, [n // 2 for n in size]))
        return nn.Sequential(self.conv(c(given), c(made), 1), *layers)

    def strided(self, given: int, *made: int) -> nn.Module:
        """Return convolutions of which the last halves each axis; of several the first is of a voxel."""
        first, *others = pairwise([self.channels(given), *map(self.channels, made)])
        if not others:
            return self.conv(*first, 3, 2, self.pad)
        *between, last = others
        same = (self.conv(*pair, 3, 1, 1) for pair in between)
        return nn.Sequential(self.conv(*first, 1), *same, self.conv(*last, 3, 2, self.pad))

    def projection(self, given: int, made: int) -> nn.Module:
        """Return what ends a residual branch."""
        return Conv[Conv.CONV, self.dims](self.channels(given), self.channels(made), 1)


class Parallel(nn.Module):
    """Several branches, whose channels are put one after another."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels of all branches."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Residual(nn.Module):
    """Branches whose channels are projected, scaled and added to what came.

    Args:
        branches: of the residual.
        projection: to the channels that came.
        scale: of the residual.
        last: without ReLU.
    """

    def __init__(self, branches: Sequence[nn.Module], projection: nn.Module, scale: float, last: bool = False) -> None:
        super().__init__()
        self.branches, self.projection, self.scale, self.last = Parallel(branches), projection, scale, last

    def forward(self, x: Tensor) -> Tensor:
        """Return x and the residual."""
        added = x + self.scale * self.projection(self.branches(x))
        return added if self.last else added.relu()
