"""Networks of guided-diffusion: what they gave, the weights they gave it with, and ours of the same sizes."""

import json

import numpy as np
import torch
from conftest import GOLDEN
from monai.networks.nets import DiffusionModelUNet

from common.networks.encoder_unet import EncoderUNet

RECORDED = np.load(GOLDEN / "guided_networks.npz")
KEYS = json.loads((GOLDEN / "guided_network_keys.json").read_text())
TIMESTEPS, CLASSES = torch.tensor(RECORDED["t"]), torch.tensor(RECORDED["y"])


def recorded_weights(name):
    """Return the weights that the outputs were recorded with: they are drawn by their names' order."""
    weights = {}
    shapes = dict(KEYS[name])
    for number, key in enumerate(sorted(shapes)):
        drawn = np.random.RandomState(number).standard_normal(shapes[key])
        if drawn.ndim > 1:
            drawn /= np.sqrt(np.prod(drawn.shape[1:]))
        else:
            drawn = 0.1 * drawn + (1 if key.endswith(".weight") else 0)
        weights[key] = torch.tensor(drawn, dtype=torch.float32)
    return weights


def image():
    drawn = np.random.RandomState(99).standard_normal((2, 2, 16, 16))
    return torch.tensor(drawn, dtype=torch.float32, requires_grad=True)


def small_unet():
    sizes = {"channels": (32, 64), "attention_levels": (False, True), "num_head_channels": (32, 64)}
    return DiffusionModelUNet(2, 2, 4, num_res_blocks=1, norm_eps=1e-5, num_class_embeds=2, **sizes)


def small_encoder(spatial_size=16):
    return EncoderUNet(2, 2, 2, spatial_size, (32, 64), 1, (False, True), 32)
