import pytest
import torch
from torch import nn

from common.checkpoints import load_parts
from common.networks.parts import NetworkParts
from common.training.thresholds import fit_threshold, publish_threshold


def container():
    return NetworkParts("second", second=nn.Linear(4, 4))


class Found:
    fitted_threshold = 12.5


class Nothing:
    fitted_threshold = float("nan")
    inferer = None

    def run(self):
        return None


class Inferer:
    def __init__(self):
        self.settings = {"noise_level": 300}


def test_a_fitted_threshold_and_what_it_was_fitted_with_become_part_of_the_weights(tmp_path):
    publish_threshold(True, Found(), container(), str(tmp_path / "model.pt"), Inferer())
    network = container()
    load_parts(network, tmp_path / "model.pt")
    assert network.thresholds == [(12.5, {"noise_level": 300})]


def test_a_threshold_for_other_settings_is_stored_beside_those_that_are_there(tmp_path):
    network, other = container(), Inferer()
    network.set_threshold(7.0, {"noise_level": 100})
    publish_threshold(True, Found(), network, str(tmp_path / "model.pt"), other)
    assert network.thresholds == [(7.0, {"noise_level": 100}), (12.5, other.settings)]


def test_weights_are_left_alone_unless_a_fit_is_wanted(tmp_path):
    publish_threshold(False, Found(), container(), str(tmp_path / "model.pt"), Inferer())
    assert not (tmp_path / "model.pt").exists()


def test_no_lesions_no_threshold(tmp_path, caplog):
    network = container()
    with pytest.raises(ValueError, match="no validation case has lesions"):
        publish_threshold(True, Nothing(), network, str(tmp_path / "model.pt"), Inferer())
    fit_threshold(Nothing(), Nothing(), network)
    assert "was not fitted" in caplog.text
    assert torch.isnan(network.threshold)
