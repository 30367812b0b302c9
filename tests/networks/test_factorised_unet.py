import json
from pathlib import Path

import pytest
import torch

from common.networks.factorised_unet import FactorisedUNet, RelativeDistances, rotated

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tumour_synthesis.json").read_text())


def small(**options):
    torch.manual_seed(0)
    settings = {"in_channels": 3, "out_channels": 2, "width": 8, "multipliers": (1, 2), "num_heads": 2, "head_dim": 8}
    return FactorisedUNet(**{**settings, **options})


def volume(*shape):
    return torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))


def test_the_papers_network_has_as_many_parameters_as_the_authors():
    assert sum(p.numel() for p in FactorisedUNet().parameters()) == GOLDEN["parameters"]["unet3d_params"] == 6_018_576


def test_noise_has_the_size_of_the_image_at_any_depth():
    for depth in (1, 3, 16):
        assert small()(volume(8, 4, depth), torch.tensor([0, 7])).shape == (2, 2, 8, 4, depth)


def test_planes_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="multiples of 2"):
        small()(volume(7, 4, 3), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="multiple of 8"):
        small(width=12)


def test_the_timestep_and_every_plane_matter():
    network, image = small(), volume(8, 8, 4)
    early, late = (network(image, torch.full((2,), t)) for t in (0, 3))
    assert not torch.allclose(early, late)
    changed = image.clone()
    changed[..., 3] += 1
    assert not torch.allclose(network(changed, torch.zeros(2))[..., 0], network(image, torch.zeros(2))[..., 0])


def test_depth_is_mixed_by_attention_alone():
    network, image = small(), volume(8, 8, 4)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            assert module.kernel_size[2] == module.stride[2] == 1
    changed = image.clone()
    changed[..., 3] += 1
    for name, parameter in network.named_parameters():
        if "depth" in name and name.endswith("answer.weight"):
            torch.nn.init.zeros_(parameter)
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)):
        norm.num_groups, norm.forward = 1, torch.nn.Identity().forward  # statistics are of all planes
    first, second = (network(each, torch.zeros(2)) for each in (image, changed))
    assert torch.equal(first[..., :3], second[..., :3])
    assert not torch.equal(first[..., 3], second[..., 3])


def test_turned_pairs_depend_on_distances_alone():
    query, key = torch.randn(2, 1, 16, dtype=torch.float64)
    ahead = torch.zeros(9, 16, dtype=torch.float64)

    def product(i, j):
        at_i, at_j = ahead.clone(), ahead.clone()
        at_i[i], at_j[j] = query, key
        return rotated(at_i)[i] @ rotated(at_j)[j]

    torch.testing.assert_close(product(2, 5), product(4, 7))
    assert not torch.isclose(product(2, 5), product(5, 2))
    torch.testing.assert_close(product(3, 3), (query @ key.T).squeeze())


def test_distances_share_buckets_when_they_are_far():
    buckets = RelativeDistances(2, 32, 32).bucket(torch.tensor([0, -1, -7, -8, -31, -32, -500, 1, 7, 500]))
    assert buckets[:3].tolist() == [0, 1, 7]
    assert buckets[4:7].tolist() == [15, 15, 15]
    assert buckets[7:].tolist() == [17, 23, 31]
    assert 8 <= buckets[3] < 15
