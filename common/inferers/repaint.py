"""Holes filled by a diffusion model of healthy images."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..samplers.ancestral import Bounds
from ..samplers.repaint import jump_schedule, repaint
from ..schedulers import NoiseSchedule
from .inpainting import Holes, Inpainter
from .models import noise_predictor
from .patches import Generators
from .slices import Progress


class RepaintInpainter(Inpainter):
    """RePaint with a model of healthy slices.

    Source: Shi et al. 2024, "CT-based Anomaly Detection of Liver Tumors Using Generative Diffusion Prior".

    Args:
        schedule: respaced to the steps to make.
        jump_length: see ``jump_schedule``.
        num_resamples: see ``jump_schedule``.
        window: HU at -1 and 1 for the network.
        fill_range: HU that a filling may lie below and above the organ's median, as (-30, 100): what fills the organ is
            the organ, not the fat beside it. None, as in the paper, lets the model draw what it likes.
        part: name of the diffusion model in the container.
        amp: bfloat16 autocast for it.
        compile: ``torch.compile`` for it.
    """

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        jump_length: int = 10,
        num_resamples: int = 10,
        window: Sequence[float],
        fill_range: Sequence[float] | None = None,
        part: str = "diffusion",
        amp: bool = False,
        compile: bool = False,
    ) -> None:
        self.schedule, self.jump_length, self.num_resamples = schedule, jump_length, num_resamples
        self.window, self.fill_range = window, fill_range
        self.part, self.amp, self.compile = part, amp, compile

    def __call__(self, holes: Holes, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return the images with their holes inpainted."""
        model = noise_predictor(network.get_submodule(self.part), self.amp, self.compile)
        bounds: Bounds = (-1.0, 1.0)
        if self.fill_range is not None:
            scaled = [2 * hu / (self.window[1] - self.window[0]) for hu in self.fill_range]
            limits = [(holes.median + limit).clamp(-1, 1) for limit in scaled]
            bounds = (limits[0].where(holes.hole, -1.0), limits[1].where(holes.hole, 1.0))
        return repaint(
            model,
            holes.image,
            holes.hole,
            self.schedule,
            self.jump_length,
            self.num_resamples,
            generators,
            bounds,
            progress,
        )

    @property
    def num_steps(self) -> int:
        """The transitions of a batch."""
        return len(jump_schedule(len(self.schedule), self.jump_length, self.num_resamples)) - 1

    @property
    def settings(self) -> dict[str, Any]:
        """The steps of RePaint, and what the fillings are held to."""
        steps = {"num_inference_steps": len(self.schedule), "jump_length": self.jump_length}
        return {**steps, "num_resamples": self.num_resamples, "fill_range": self.fill_range}
