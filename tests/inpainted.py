"""A liver with a lesion, networks for it, and inferers that inpaint what looks suspicious."""

from functools import partial
from inspect import signature

import torch
from monai.data import MetaTensor
from monai.networks.nets import DiffusionModelUNet, UNet
from torch import nn

from common.inferers.grid import Grid
from common.inferers.inpainting import InpaintingInferer
from common.inferers.repaint import RepaintInpainter
from common.networks.parts import NetworkParts
from common.schedulers import NoiseSchedule
from common.transforms.adaptive_mask import adaptive_mask

WINDOW = (-160.0, 240.0)
OPTIONS = {
    "pixel_mm": 3.0,
    "patch_size": (48, 48),
    "normalize": None,
    "organ": "network",
    "margin": 8,
    "window": WINDOW,
    "hole": partial(adaptive_mask, dilation=1),
    "median_radius": 0,
    "progress": False,
}


def liver_network():
    torch.manual_seed(0)
    organ = UNet(2, 1, 1, (4, 8), (2,))
    unet = DiffusionModelUNet(2, 1, 1, 1, (8, 16), (False, False), norm_num_groups=4, num_head_channels=8)
    return NetworkParts("diffusion", organ=organ, diffusion=unet, copy=nn.Identity()).eval()


def scan(shape=(48, 40, 5), spacing=(3.0, 3.0, 5.0), with_organ=True):
    """Return a liver of 60 HU in fat with a lesion of 20 HU, and its mask as second channel."""
    image, organ = torch.full(shape, -100.0), torch.zeros(shape)
    inside = (slice(8, 40), slice(8, 32), *(slice(1, 4),) * (len(shape) - 2))
    organ[inside] = 1
    image[inside] = 60
    lesion = (slice(16, 22), slice(16, 22), *(slice(2, 3),) * (len(shape) - 2))
    image[lesion] = 20
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    channels = torch.stack([image, organ]) if with_organ else image[None]
    return MetaTensor(channels[None], affine=affine)


def inpainting(inpainter, **options):
    """Return an inferer with an inpainter, and a grid that is given the options that it takes."""
    given = {**OPTIONS, **options}
    grid = {key: given.pop(key) for key in signature(Grid).parameters if key in given}
    return InpaintingInferer(grid=Grid(**grid), inpainter=inpainter, **given)


def repainter(**options):
    schedule = NoiseSchedule(100, num_inference_steps=3)
    return RepaintInpainter(**{"schedule": schedule, "jump_length": 1, "num_resamples": 2, "window": WINDOW, **options})


def maps(result):
    """Return the channels of an inpainting's result by their names."""
    return dict(zip(InpaintingInferer.channels, result[0], strict=True))
