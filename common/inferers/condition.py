"""Maps of what depends on an image's class, from the difference of two conditions."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from monai.utils import ensure_tuple
from torch import Tensor, nn
from tqdm import tqdm

from ..samplers.condition_difference import condition_difference
from ..samplers.guidance import Guide, classifier_guidance
from ..schedulers import NoiseSchedule
from .models import noise_predictor, ticking
from .patches import Generators
from .translation import Batch, TranslationInferer

MAP_MODES: dict[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda difference: difference,
    "absolute": torch.abs,
    "positive": lambda difference: difference.clamp(min=0),
}
MAP_RANGES = ("slice", "volume")


class ConditionDifferenceInferer(TranslationInferer):
    """Compare each slice's denoising under the class "diseased" with that under nearly the same condition.

    The map is the difference of both, summed over steps and channels, and scaled: its lowest value in the organ becomes
    0, its highest 1. All of it is float32, also with ``amp``: differences are a thousandth of what they are taken of.

    Source: Hu et al. 2023, "Conditional Diffusion Models for Weakly Supervised Medical Image Segmentation", CDM and,
    with guidance, CG-CDM.

    Args:
        schedule: all timesteps of the training.
        noise_level: Q in the paper; several values, here and in the next three, give a version for each combination.
        num_difference_steps: R in the paper.
        tau: share of the class "diseased" in the other condition.
        guidance_scale: s in the paper; 0 is CDM.
        num_classes: that the network knows; 0 is healthy and 1 diseased.
        map_mode: the summed difference, ``signed``, as in the paper, ``absolute``, or what is ``positive`` in it.
        map_range: what is scaled to [0, 1], each ``slice``, as in the paper, or the ``volume``, in which healthy slices
            can then stay low.
        index_mode: see ``condition_difference``.
        clip_mode: see ``condition_difference``.
        divide: see ``condition_difference``; scaled maps do not depend on it.
        part: name of the diffusion model in the container.
        compile: ``torch.compile`` for it.
        options: see ``TranslationInferer``.

    Raises:
        ValueError: if ``map_mode`` or ``map_range`` is unknown.
    """

    version = "changed"

    def __init__(
        self,
        schedule: NoiseSchedule,
        noise_level: int | Sequence[int],
        num_difference_steps: int | Sequence[int] = 10,
        tau: float | Sequence[float] = 0.95,
        guidance_scale: float | Sequence[float] = 0.0,
        num_classes: int = 2,
        map_mode: str = "signed",
        map_range: str = "slice",
        index_mode: str = "paper",
        clip_mode: str = "none",
        divide: bool = True,
        part: str = "diffusion",
        compile: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, value, known in (("map_mode", map_mode, [*MAP_MODES]), ("map_range", map_range, MAP_RANGES)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
        self.schedule, self.part, self.compile = schedule, part, compile
        several = (noise_level, num_difference_steps, tau, guidance_scale)
        self.versions = list(product(*(ensure_tuple(values) for values in several)))
        self.map_mode, self.map_range = map_mode, map_range
        self.modes: dict[str, Any] = {
            "num_classes": num_classes,
            "index_mode": index_mode,
            "clip_mode": clip_mode,
            "divide": divide,
        }

    @property
    def settings(self) -> list[dict[str, float]]:
        """What each version is made with, by the names of the keys."""
        names = ("noise_level", "num_difference_steps", "tau", "guidance_scale")
        return [dict(zip(names, version, strict=True)) for version in self.versions]

    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return the images plus their differences, for all settings."""
        model = noise_predictor(network.get_submodule(self.part), False, self.compile)
        versions = []
        for noise_level, num_steps, tau, scale in self.versions:
            guide = partial(self.guide, network, scale) if scale else None
            difference = condition_difference(
                model,
                batch.image,
                self.schedule,
                noise_level,
                num_steps,
                tau,
                guide=guide,
                generator=[g.clone_state() for g in generators],  # all versions see the same noise
                progress=partial(ticking, bar),
                **self.modes,
            )
            versions.append(batch.image + difference)
        return versions

    def guide(self, network: nn.Module, scale: float, targets: Tensor) -> Guide:
        """Return the classifier's guide towards the class of each image."""
        if self.classifier is None:
            raise ValueError("guidance needs a classifier: expected the name of its part, got None.")
        return classifier_guidance(network.get_submodule(self.classifier), targets, scale)

    def num_steps(self) -> int:
        """Return the steps of all versions."""
        return sum(num_steps for _, num_steps, _, _ in self.versions)

    def scores(self, change: Tensor, organ: Tensor) -> Tensor:
        """Return the summed difference, scaled to [0, 1] within the organ."""
        difference = MAP_MODES[self.map_mode](change.sum(1, keepdim=True))
        axes = (1, 2, 3) if self.map_range == "slice" else (0, 1, 2, 3)
        low = difference.masked_fill(~organ, torch.inf).amin(axes, keepdim=True)
        high = difference.masked_fill(~organ, -torch.inf).amax(axes, keepdim=True)
        return torch.where(organ, (difference - low) / (high - low).clamp(min=1e-12), 0.0)
