import pytest
import torch
from evaluated import container, item, run
from torch import nn

from common.handlers.detection import Detection
from common.handlers.weights import LoadWeights
from common.networks.parts import NetworkParts


def test_weights_are_loaded_when_the_engine_starts_and_not_before(tmp_path):
    published, network = container(7.0), container()
    handler = LoadWeights(network, str(tmp_path / "model.pt"))
    torch.save(published.state_dict(), tmp_path / "model.pt")
    assert torch.isnan(network.threshold)
    run([item()], handler)
    assert torch.equal(network.score.weight, published.score.weight)
    assert network.threshold == 7


def test_weights_of_another_network_end_the_run_with_one_sentence(tmp_path):
    torch.save(NetworkParts("score", score=nn.Linear(3, 3)).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"expected score.weight of shape \(2, 2\), got \(3, 3\)"):
        run([item()], LoadWeights(container(), str(tmp_path / "model.pt")))


def test_missing_weights_end_the_run_before_a_case_is_done(tmp_path):
    detection = Detection()
    with pytest.raises(FileNotFoundError, match="no weights at"):
        run([item()], LoadWeights(container(), str(tmp_path / "model.pt")), detection)
    assert detection.records == []
