"""What is measured against the program of Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection"."""

import torch

from ci import bundle_parser


def test_the_papers_network_has_the_size_of_that_in_its_program():
    """A U-Net of guided-diffusion: of films with two classes."""
    with torch.device("meta"):
        network = bundle_parser("wolleb_anomaly", "train", "paper", "chexpert").get_parsed_content("network_def")
    assert sum(p.numel() for p in network.diffusion.parameters()) == 113_670_786
