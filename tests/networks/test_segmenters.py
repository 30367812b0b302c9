import pytest
import torch

from common.networks.segmenters import BACKBONES, segmenter

SIZES = {"unet": 32, "dynunet": 32, "swinunetr": 64}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_backbone_gives_logits_of_each_class(backbone):
    network = segmenter(backbone, 3, channels=(4, 8, 8, 8, 8), feature_size=12).eval()
    size = (SIZES[backbone],) * 3
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *size)).shape == (1, 3, *size)


def test_other_backbones_are_refused():
    with pytest.raises(ValueError, match="backbone must be one of unet, dynunet, swinunetr, got 'resnet'"):
        segmenter("resnet", 3)
