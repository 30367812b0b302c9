"""What is measured against the program of Wolleb et al. 2022, "Diffusion Models for Implicit Image Segmentation"."""

import torch

from ci import bundle_parser


def test_the_papers_network_has_the_size_of_that_in_its_program():
    """A U-Net of guided-diffusion: of a mask beside four sequences."""
    with torch.device("meta"):
        network = bundle_parser("ensemble_segmentation", "train", "paper").get_parsed_content("network_def")
    assert sum(p.numel() for p in network.diffusion.parameters()) == 113_674_370
