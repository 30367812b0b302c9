from functools import partial

import pytest
import torch
from inpainted import inpainting, liver_network, scan
from torch import nn
from translated import brain, maps, translating

from common.inferers.baselines.reconstruction import Reconstruction
from common.networks.parts import NetworkParts
from common.transforms.adaptive_mask import adaptive_mask


class Halves(nn.Module):
    def forward(self, x):
        return x / 2, None


def test_an_autoencoder_that_codes_its_input_in_a_tuple_is_understood():
    image = brain(scale=1.0)
    inferer = translating(Reconstruction, part="vae", normalize="none", classifier=None)
    result = maps(inferer(image, NetworkParts("vae", vae=Halves())))
    torch.testing.assert_close(result["translated"], image[0].as_tensor() / 2)


def test_a_copying_autoencoder_finds_nothing_in_holes():
    hole = partial(adaptive_mask, adaptive=False)
    inferer = inpainting(Reconstruction(part="copy"), patch_size=(32, 32), hole=hole, median_radius=2)
    assert inferer(scan(), liver_network())[0, 0].abs().max() < 1e-3


def test_what_an_autoencoder_changes_in_holes_is_found():
    hole = partial(adaptive_mask, adaptive=False)
    result = inpainting(Reconstruction(part="vae"), hole=hole)(scan(), NetworkParts("vae", vae=Halves()))
    assert result[0, 1, 12, 12, 2] == pytest.approx(50, abs=1e-3)  # 60 HU is 0.1 of the window, half of it 50 HU
