import logging

import pytest
import torch
from torch import nn

from common.losses.reconstruction import AutoencoderLoss, gradients, slices_at


def volume(seed=0):
    return torch.rand(2, 1, 8, 6, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_perfect_reconstruction_costs_its_commitment():
    assert AutoencoderLoss()((volume(), torch.tensor(0.3)), volume()) == pytest.approx(0.3)


def test_the_absolute_error_has_its_weight():
    loss = AutoencoderLoss(pixel_weight=4.0, perceptual_weight=0.0)
    assert loss((volume() + 0.5, torch.zeros(())), volume()) == pytest.approx(2.0)


def test_gradients_see_edges_and_no_shift_of_all_values():
    loss = AutoencoderLoss(pixel_weight=0.0)
    assert loss((volume() + 0.5, torch.zeros(())), volume()) == pytest.approx(0, abs=1e-5)
    assert loss((volume(1), torch.zeros(())), volume()) > 0.1


def test_a_given_network_is_frozen_used_and_named(caplog):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with caplog.at_level(logging.INFO):
        loss = AutoencoderLoss(pixel_weight=0.0, perceptual_network=network)
    assert "Sequential" in caplog.text
    image = volume(1).requires_grad_(True)
    loss((image, torch.zeros(())), volume()).backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())


def test_without_a_network_the_log_says_what_is_compared(caplog):
    with caplog.at_level(logging.INFO):
        AutoencoderLoss()
    assert "gradients at 3 scales" in caplog.text


def test_slices_lie_where_they_are_asked_for():
    image = torch.arange(4.0).expand(2, 1, 3, 3, 4)
    assert slices_at(image, torch.tensor([0.0, 0.99]))[:, 0, 0, 0].tolist() == [0, 3]
    assert slices_at(volume(), torch.tensor([0.5, 0.5]), axis=3).shape == (2, 1, 8, 4)


def test_a_slice_of_one_row_has_gradients_along_the_other_axis():
    assert all(difference.numel() for difference in gradients(torch.rand(1, 1, 1, 9)))
