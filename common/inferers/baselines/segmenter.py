"""Segmentations by a network without diffusion."""

import torch
from torch import Tensor, nn

from ...samplers.noise import randn_like
from ..patches import Generators
from ..segmentation import Segmenter
from ..slices import Progress


class NetworkSegmenter(Segmenter):
    """Probabilities of a network, with one of two sources of uncertainty, or with none.

    Sources: Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation"; Kendall and Gal 2017, "What Uncertainties
    Do We Need in Bayesian Deep Learning for Computer Vision?", Eq. 12.

    Args:
        part: name of the network in the container. One with twice as many outputs as there are regions gives logits and
            logarithms of their variances; each sample is one of such logits.
        dropout: the network's dropout stays on; a seed gives the same samples for the same batches.
        amp: bfloat16 autocast for the network.
    """

    def __init__(self, *, part: str, dropout: bool = False, amp: bool = False) -> None:
        self.part, self.dropout, self.amp = part, dropout, amp

    def __call__(
        self, image: Tensor, num_regions: int, network: nn.Module, generators: Generators, progress: Progress
    ) -> Tensor:
        """Return probabilities."""
        segmenter = network.get_submodule(self.part)
        switched = [m for m in segmenter.modules() if self.dropout and isinstance(m, nn.modules.dropout._DropoutNd)]
        training = [module.training for module in switched]
        with torch.random.fork_rng(devices=[image.device] if image.device.type == "cuda" else []):
            torch.manual_seed(generators[0].initial_seed())  # dropout draws from the global generator
            for module in switched:
                module.train()
            with torch.autocast(image.device.type, torch.bfloat16, enabled=self.amp):
                output = segmenter(image).float()
            for module, was in zip(switched, training, strict=True):
                module.train(was)
        if output.shape[1] > num_regions:
            output, log_variance = output.split(num_regions, dim=1)
            noise = randn_like(output, generators)
            output = output + (0.5 * log_variance).exp() * noise
        return output.sigmoid()
