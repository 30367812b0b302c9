"""Networks that segment volumes, as they are compared in Chen et al. 2024."""

from collections.abc import Sequence

from monai.networks.nets import DynUNet, SwinUNETR, UNet
from torch import nn

BACKBONES = ("unet", "dynunet", "swinunetr")


def segmenter(
    backbone: str,
    out_channels: int,
    channels: Sequence[int] = (16, 32, 64, 128, 256),
    feature_size: int = 48,
    in_channels: int = 1,
) -> nn.Module:
    """Return a network of volumes; it gives logits, shape (B, out_channels, X, Y, Z).

    Sizes of its input are multiples of 2 ** (levels - 1), those of ``swinunetr`` of 32, and twice that at least.

    Args:
        backbone: ``unet``, with two residual units a level; ``dynunet``, as nnU-Net has it, without deep supervision;
            or ``swinunetr``, its second version.
        out_channels: classes.
        channels: of each level of the first two.
        feature_size: channels of the third, a multiple of 12.
        in_channels: of the image.

    Raises:
        ValueError: if ``backbone`` is unknown.
    """
    halved = [2] * (len(channels) - 1)
    match backbone:
        case "unet":
            return UNet(3, in_channels, out_channels, channels, halved, num_res_units=2)
        case "dynunet":
            kernels = [3] * len(channels)
            return DynUNet(3, in_channels, out_channels, kernels, [1, *halved], halved, filters=channels)
        case "swinunetr":
            return SwinUNETR(in_channels, out_channels, feature_size=feature_size, use_v2=True)
    raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}.")
