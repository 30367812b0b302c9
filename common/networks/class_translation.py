"""A generator with a branch for each class, and a critic that also classifies."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

MULTIPLE = 8
"""Of the sides of an image, which is halved three times."""

SMALLEST = 64
"""Side of the smallest image whose classifier has a pixel left."""


class BranchedGenerator(nn.Module):
    """Translate images to classes: a U-Net that these share, then two convolutions of each class's own.

    Sources: Wolleb et al. 2020, "DeScarGAN: Disease-Specific Anomaly Detection with Weak Supervision", section 2.2,
    whose network, with the defaults, has 8,528,262 parameters. It is told the class by maps beside the image, and the
    finest level has no skip connection, as in the authors' program.

    Args:
        in_channels: of an image.
        num_classes: K.
        width: channels of the finest level.

    Example:
        >>> network = BranchedGenerator(width=4)
        >>> network(torch.randn(2, 1, 16, 24), target=1).shape
        torch.Size([2, 1, 16, 24])
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 2, width: int = 64) -> None:
        super().__init__()
        self.num_classes = num_classes
        first, second, third, fourth = widths = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList(
            [
                nn.Sequential(_block(narrow, wide), _block(wide, wide))
                for narrow, wide in pairwise([in_channels + num_classes, *widths])
            ]
        )
        self.halve, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.up = nn.ModuleList([_block(fourth, third), _block(third, second), _block(second, first)])
        self.merge = nn.ModuleList(
            [nn.Sequential(_block(2 * wide, wide), _block(wide, wide)) for wide in (third, second)]
        )
        self.branches = nn.ModuleList(
            [nn.Sequential(_block(first, first), _block(first, in_channels, act="tanh")) for _ in range(num_classes)]
        )
        _initialise(self, nn.init.kaiming_normal_)

    def forward(self, image: Tensor, target: int | Tensor = 0) -> Tensor:
        """Return what images look like in a class, in [-1, 1].

        A batch may go to several classes, so that what classes share is normalised by all of them, in training as
        afterwards; of a batch of one class the norms remove what the class maps say.

        Args:
            image: in [-1, 1], shape (B, in_channels, X, Y).
            target: the class of all of them, or of each, shape (B,).

        Raises:
            ValueError: if X or Y is no multiple of 8.
        """
        if any(side % MULTIPLE for side in image.shape[2:]):
            raise ValueError(f"X and Y must be multiples of {MULTIPLE}, got {tuple(image.shape[2:])}.")
        x, seen = with_class_maps(image, target, self.num_classes), []
        for level, block in enumerate(self.down):
            x = block(self.halve(x) if level else x)
            seen.append(x)
        for up, merge, skipped in zip(self.up, self.merge, (seen[2], seen[1]), strict=False):
            x = merge(torch.cat([up(self.enlarge(x)), skipped], dim=1))
        x = self.up[-1](self.enlarge(x))
        if isinstance(target, int):
            return self.branches[target](x)
        places = [(target == k).nonzero().flatten() for k in range(self.num_classes)]
        made = [branch(x[where]) for branch, where in zip(self.branches, places, strict=True) if len(where)]
        return torch.cat(made)[torch.cat(places).argsort()]


class ResidualGenerator(nn.Module):
    """Translate images to classes by residual blocks, all of which these share.

    Sources: Choi et al. 2018, "StarGAN", table 4; with ``additive`` the class is reached by a map that is added to the
    image, as in Siddiquee et al. 2019, "Learning Fixed Points in Generative Adversarial Networks" (FP-GAN).

    Args:
        in_channels: of an image.
        num_classes: K.
        width: channels of the finest level.
        num_blocks: at a quarter of the image's size.
        additive: see above.
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 2, width: int = 64, num_blocks: int = 6, additive: bool = False
    ) -> None:
        super().__init__()
        self.num_classes, self.additive = num_classes, additive
        norm: dict[str, Any] = {"norm": ("instance", {"affine": True})}
        halved = {**norm, "kernel_size": 4, "strides": 2, "padding": 1}
        doubled = {**halved, "is_transposed": True, "output_padding": 0}
        self.layers = nn.Sequential(
            _block(in_channels + num_classes, width, **norm, kernel_size=7),
            _block(width, 2 * width, **halved),
            _block(2 * width, 4 * width, **halved),
            *[_Residual(4 * width, norm) for _ in range(num_blocks)],
            _block(4 * width, 2 * width, **doubled),
            _block(2 * width, width, **doubled),
            nn.Conv2d(width, in_channels, 7, padding=3, bias=False),
        )

    def forward(self, image: Tensor, target: int | Tensor = 0) -> Tensor:
        """Return what images look like in a class, in [-1, 1]; see ``BranchedGenerator``."""
        found = self.layers(with_class_maps(image, target, self.num_classes))
        return (found + image if self.additive else found).tanh()


class _Residual(nn.Module):
    """Two convolutions whose answer is added to what they are given."""

    def __init__(self, channels: int, norm: Mapping[str, Any]) -> None:
        super().__init__()
        self.first, self.second = _block(channels, channels, **norm), _block(channels, channels, **norm, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class CriticClassifier(nn.Module):
    """Tell the class of an image, by features that the critics of the classes share.

    Source: see ``BranchedGenerator``; with those of ``RealnessHeads``, and at the paper's size, 18,170,180 parameters.

    Args:
        image_size: sides of an image.
        in_channels: of an image.
        num_classes: K.
        width: channels of the finest level.
        dropout: before the last layer.

    Raises:
        ValueError: if images are too small.
    """

    def __init__(
        self,
        image_size: Sequence[int] = (256, 256),
        in_channels: int = 1,
        num_classes: int = 2,
        width: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if min(image_size) < SMALLEST:
            raise ValueError(f"images must have {SMALLEST} pixels along each axis at least, got {list(image_size)}.")
        self.image_size = tuple(image_size)
        levels = ([1], [2], [4, 4], [8, 8], [8, 8], [16])
        layers: list[nn.Module] = []
        channels = in_channels
        for number, level in enumerate(levels):
            layers += [nn.MaxPool2d(2)] if number else []
            for multiplier in level:
                layers.append(_plain(channels, multiplier * width))
                channels = multiplier * width
        self.encoder = nn.Sequential(*layers)
        left = [side // 2 ** len(levels) for side in image_size]
        self.classes = nn.Sequential(
            _plain(channels, channels),
            _plain(channels, channels),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(channels * left[0] * left[1], 64),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, num_classes),
        )
        _initialise(self, nn.init.xavier_normal_)

    def encode(self, image: Tensor) -> Tensor:
        """Return features of images in [-1, 1], shape (B, 16 * width, X / 32, Y / 32).

        Raises:
            ValueError: for images of another size.
        """
        if image.shape[2:] != self.image_size:
            raise ValueError(f"expected images of {self.image_size} pixels, got {tuple(image.shape[2:])}.")
        return self.encoder(image)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the classes of images in [-1, 1], shape (B, K)."""
        return self.classes(self.encode(image))


class RealnessHeads(nn.Module):
    """Say of features how much they look like an image of each class.

    Args:
        channels: of the features, 16 times the width of ``CriticClassifier``.
        num_classes: K.
    """

    def __init__(self, channels: int = 512, num_classes: int = 2) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            [
                nn.Sequential(_plain(channels, channels), _plain(channels, channels), nn.Conv2d(channels, 1, 1))
                for _ in range(num_classes)
            ]
        )
        _initialise(self, nn.init.xavier_normal_)

    def forward(self, features: Tensor, target: int) -> Tensor:
        """Return a map of logits, shape (B, 1, x, y), for one class."""
        return self.heads[target](features)


def with_class_maps(image: Tensor, target: int | Tensor, num_classes: int) -> Tensor:
    """Return images with a channel for each class beside their own: 1 for their target, else 0."""
    told = image.new_zeros(len(image), num_classes)
    told[torch.arange(len(image), device=image.device), target] = 1
    return torch.cat([image, told[..., None, None].expand(-1, -1, *image.shape[2:])], dim=1)


def _block(in_channels: int, out_channels: int, **options: Any) -> Convolution:
    """Return a convolution, its norm and what it passes through."""
    given = {"norm": ("batch", {"momentum": 0.01}), "act": "relu", "adn_ordering": "NA", **options}
    return Convolution(2, in_channels, out_channels, **given)


def _plain(in_channels: int, out_channels: int) -> nn.Module:
    return Convolution(2, in_channels, out_channels, norm=None, act="relu", adn_ordering="A")


def _initialise(network: nn.Module, draw: Callable[[Tensor], Any]) -> None:
    """Draw the weights of all convolutions as the authors' program does, and set their biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            draw(module.weight)
            nn.init.zeros_(module.bias)
