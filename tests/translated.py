"""Brains that are translated, networks of which it is known what they do to them, and inferers of a small grid."""

from functools import partial
from inspect import signature

import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers.ddim import DdimTranslator
from common.inferers.grid import Grid
from common.inferers.translation import TranslationInferer
from common.networks.parts import NetworkParts
from common.samplers.guidance import classifier_guidance
from common.schedulers import NoiseSchedule

SCHEDULE = NoiseSchedule(100, num_inference_steps=20, spacing="trailing")
OPTIONS = {
    "pixel_mm": 2.0,
    "patch_size": (24, 24),
    "num_channels": 2,
    "default_threshold": 0.1,
    "progress": False,
    "percentile": 100.0,
}
TOWARDS_HEALTH = {
    "schedule": SCHEDULE,
    "noise_level": 50,
    "guidance": {"classifier": partial(classifier_guidance, target=0)},
    "guidance_scale": 0.0,
}


class GaussianNoise(nn.Module):
    """The exact noise predictor for pixels of mean 0.5 and standard deviation 0.3; it remembers its classes."""

    def __init__(self):
        super().__init__()
        self.classes, self.calls = [], 0

    def forward(self, x_t, timesteps, class_labels=None):
        self.calls += 1
        self.classes.append(None if class_labels is None else int(class_labels[0]))
        alpha_bar = NoiseSchedule(100).alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        variance = alpha_bar * 0.09 + 1 - alpha_bar
        return ((1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * 0.5) / variance).to(x_t)


class BrightIsDiseased(nn.Module):
    """Calls images diseased whose mean is above one half."""

    def forward(self, x_t, timesteps):
        brightness = 40 * (x_t.flatten(1).mean(1, keepdim=True) - 0.5)
        return torch.cat([-brightness, brightness], 1)


class BrightIsTumour(nn.Module):
    def forward(self, x_t, timesteps):
        return 10 * (x_t[:, :1] - 0.5)


def brain_network():
    parts = {"diffusion": GaussianNoise(), "classifier": BrightIsDiseased(), "segmenter": BrightIsTumour()}
    return NetworkParts("diffusion", **parts, copy=nn.Identity()).eval()


def brain(size=32, num_slices=3, channels=2, scale=200.0, pixel_mm=2.0):
    """Return a head in the middle of black air, its voxels between a third and all of ``scale``."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.zeros(channels, size, size, num_slices)
    inside = (slice(None), *(slice(size // 4, 3 * size // 4),) * 2)
    shape = volume[inside].shape
    volume[inside] = scale * (1 + 2 * torch.rand(shape, generator=generator)) / 3
    affine = torch.diag(torch.tensor([pixel_mm, pixel_mm, 5.0, 1.0], dtype=torch.float64))
    return MetaTensor(volume[None], affine=affine)


def taken(kind, options):
    """Return those options that a class takes."""
    return {key: value for key, value in options.items() if key in signature(kind).parameters}


def translating(kind, **options):
    """Return an inferer with a translator of a class, and a grid; each is given the options that it takes."""
    given = {**OPTIONS, **options}
    translator, grid = taken(kind, given), taken(Grid, given)
    rest = {key: value for key, value in given.items() if key not in {**translator, **grid}}
    return TranslationInferer(grid=Grid(**grid), translator=kind(**translator), **rest)


def ddim(**options):
    return translating(DdimTranslator, **{**TOWARDS_HEALTH, **options})


def maps(result, count=2):
    """Return the channels of a translation's result by their names."""
    names = ("anomaly", "translated", "mask", "organ", "probability")
    return dict(zip(names, result[0].split([1, count, 1, 1, 1]), strict=True))
