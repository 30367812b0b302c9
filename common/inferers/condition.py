"""Maps of what depends on an image's class, from the difference of two conditions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..samplers.condition_difference import condition_difference
from ..samplers.guidance import Guide, classifier_guidance
from ..schedulers import NoiseSchedule
from .models import noise_predictor
from .patches import Generators
from .slices import Progress
from .translation import Batch, Translator, unusual

MAP_MODES: dict[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda difference: difference,
    "absolute": torch.abs,
    "positive": lambda difference: difference.clamp(min=0),
}
MAP_RANGES = ("slice", "volume")


class ConditionDifferenceTranslator(Translator):
    """Add to each image what its denoising under the class "diseased" differs by from that under nearly the same one.

    All of it is float32, also where other networks are not: differences are a thousandth of what they are taken of.

    Source: Hu et al. 2023, "Conditional Diffusion Models for Weakly Supervised Medical Image Segmentation", CDM and,
    with guidance, CG-CDM.

    Args:
        schedule: all timesteps of the training.
        noise_level: Q in the paper.
        num_difference_steps: R in the paper.
        tau: share of the class "diseased" in the other condition.
        guidance_scale: s in the paper; 0 is CDM.
        num_classes: that the network knows; 0 is healthy and 1 diseased.
        index_mode: see ``condition_difference``.
        clip_mode: see ``condition_difference``.
        divide: see ``condition_difference``; scaled maps do not depend on it.
        part: name of the diffusion model in the container.
        classifier: name of the part that guides.
        compile: ``torch.compile`` for the diffusion model.
    """

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        noise_level: int,
        num_difference_steps: int = 10,
        tau: float = 0.95,
        guidance_scale: float = 0.0,
        num_classes: int = 2,
        index_mode: str = "paper",
        clip_mode: str = "none",
        divide: bool = True,
        part: str = "diffusion",
        classifier: str = "classifier",
        compile: bool = False,
    ) -> None:
        self.schedule, self.noise_level, self.tau = schedule, noise_level, tau
        self.num_difference_steps, self.guidance_scale = num_difference_steps, guidance_scale
        self.part, self.classifier, self.compile = part, classifier, compile
        self.modes: dict[str, Any] = {
            "num_classes": num_classes,
            "index_mode": index_mode,
            "clip_mode": clip_mode,
            "divide": divide,
        }

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return the images plus their differences."""
        difference = condition_difference(
            noise_predictor(network.get_submodule(self.part), False, self.compile),
            batch.image,
            self.schedule,
            self.noise_level,
            self.num_difference_steps,
            self.tau,
            guide=partial(self.guide, network) if self.guidance_scale else None,
            generator=generators,
            progress=progress,
            **self.modes,
        )
        return batch.image + difference

    def guide(self, network: nn.Module, targets: Tensor) -> Guide:
        """Return the classifier's guide towards the class of each image."""
        return classifier_guidance(network.get_submodule(self.classifier), targets, self.guidance_scale)

    @property
    def num_steps(self) -> int:
        """The steps that differences are summed over."""
        return self.num_difference_steps

    @property
    def settings(self) -> dict[str, Any]:
        """Where the steps begin, how many there are, what is different in the two ways, and what is ``unusual``."""
        names = ("noise_level", "num_difference_steps", "tau", "guidance_scale")
        return {name: getattr(self, name) for name in names} | unusual(self.modes)


class ScaledDifference:
    """The map of a difference: summed over channels, then scaled, so that its range in the organ is [0, 1].

    Args:
        map_mode: the summed difference, ``signed``, as in the paper, ``absolute``, or what is ``positive`` in it.
        map_range: what is scaled, each ``slice``, as in the paper, or the ``volume``, in which healthy slices can then
            stay low.

    Raises:
        ValueError: if one of them is unknown.
    """

    def __init__(self, *, map_mode: str = "signed", map_range: str = "slice") -> None:
        for name, value, known in (("map_mode", map_mode, [*MAP_MODES]), ("map_range", map_range, MAP_RANGES)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
        self.map_mode, self.map_range = map_mode, map_range

    @property
    def settings(self) -> dict[str, Any]:
        """What is scaled, and in what."""
        return {"map_mode": self.map_mode, "map_range": self.map_range}

    def __call__(self, change: Tensor, organ: Tensor) -> Tensor:
        """Return the map, shape (S, 1, X, Y), 0 outside the organ.

        Args:
            change: shape (S, C, X, Y).
            organ: bool, shape (S, 1, X, Y).
        """
        difference = MAP_MODES[self.map_mode](change.sum(1, keepdim=True))
        axes = (1, 2, 3) if self.map_range == "slice" else (0, 1, 2, 3)
        low = difference.masked_fill(~organ, torch.inf).amin(axes, keepdim=True)
        high = difference.masked_fill(~organ, -torch.inf).amax(axes, keepdim=True)
        return torch.where(organ, (difference - low) / (high - low).clamp(min=1e-12), 0.0)
