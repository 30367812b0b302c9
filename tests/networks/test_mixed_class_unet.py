import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from common.networks.mixed_class_unet import MixedClassUNet

SIZES = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "num_res_blocks": 1,
    "channels": (8, 16),
    "attention_levels": (False, True),
    "norm_num_groups": 4,
    "num_head_channels": 8,
    "num_class_embeds": 3,
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = MixedClassUNet(**SIZES).double()
    for parameter in network.parameters():  # a fresh one passes no condition on, as its last layers are zero
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture
def image():
    return torch.rand(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 500, 999])


def test_classes_are_as_in_monais_network_and_so_are_weights(network, image):
    theirs = DiffusionModelUNet(**SIZES).double().eval()
    theirs.load_state_dict(network.state_dict())
    classes = torch.tensor([2, 0, 1])
    assert torch.equal(network(*image, class_labels=classes), theirs(*image, class_labels=classes))


def test_all_of_a_class_is_that_class(network, image):
    classes = torch.tensor([2, 0, 1])
    shares = nn.functional.one_hot(classes, 3).double()
    torch.testing.assert_close(network(*image, class_labels=shares), network(*image, class_labels=classes))


def test_the_condition_is_the_mean_of_the_embeddings(network, image):
    weight = network.class_embedding.weight
    with torch.no_grad():
        mixed = network(*image, class_labels=torch.tensor([[0.05, 0.95, 0.0]] * 3, dtype=torch.float64))
        weight[2] = 0.05 * weight[0] + 0.95 * weight[1]
        alone = network(*image, class_labels=torch.tensor([2, 2, 2]))
    torch.testing.assert_close(mixed, alone)
    assert not torch.allclose(mixed, network(*image, class_labels=torch.tensor([1, 1, 1])))
