"""Translation by noise encoding and guided decoding."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..samplers.ddim import Trajectory, decode, encode, encoding_levels, steps_below
from ..samplers.guidance import Guide
from ..schedulers import NoiseSchedule
from .models import noise_predictor
from .patches import Generators
from .slices import Progress
from .translation import Batch, Translator, unusual

Guidance = Mapping[str, Callable[..., Guide]]
"""By the name of a part of the container what makes a guide of it, such as ``classifier_guidance`` with its target; it
is given ``scale`` unless it has one, and ``target`` if a batch asks for something. Guides of several parts add up."""


def guides(guidance: Guidance, scale: float, batch: Batch, network: nn.Module) -> list[Guide]:
    """Return the guides that look through parts of the container, none where the scale is 0."""
    if scale == 0:
        return []
    given = {"scale": scale} | ({} if batch.target is None else {"target": batch.target})
    return [
        make(network.get_submodule(part), **{**given, **getattr(make, "keywords", {})})
        for part, make in guidance.items()
    ]


def steps_to(noise_level: int, schedule: NoiseSchedule, index_mode: str = "paper") -> int:
    """Return how many steps lead up to a noise level, and back.

    Raises:
        ValueError: if there are none, or the level lies outside the schedule.
    """
    below = steps_below(noise_level, schedule, index_mode)
    steps = len(encoding_levels(below, index_mode)) - 1
    if steps == 0:
        raise ValueError(
            f"expected a step to make, got none: of {len(schedule)} steps (num_inference_steps) {below} lie below "
            f"noise_level {noise_level} (index_mode {index_mode}); take more, or a higher level."
        )
    return steps


class DdimTranslator(Translator):
    """Noise encoding and guided decoding.

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", Algorithm 1, and "The Swiss Army Knife
    for Image-to-Image Translation".

    Args:
        schedule: of the steps to make; with ``trailing`` spacing if it has fewer than in training.
        noise_level: training timesteps up to which the image is noised, L in the papers.
        guidance: where the decoding is pulled to.
        guidance_scale: s (classifier) or c (others) in the papers; 0 is no guidance.
        encode_class: class that the diffusion model is told on the way to noise, None for an unconditional one.
        decode_class: class that it is told on the way back.
        index_mode: see ``encoding_levels``.
        clip_mode: see ``predict_noise``.
        heun: see ``encode``.
        exact_inversion: correct the way back by what it makes wrong of the way there, see ``Trajectory``.
        keep_on: where that is kept, see ``Trajectory``.
        part: name of the diffusion model in the container.
        amp: bfloat16 autocast for it.
        compile: ``torch.compile`` for it.

    Raises:
        ValueError: if no step lies below ``noise_level``.
    """

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        noise_level: int,
        guidance: Guidance,
        guidance_scale: float,
        encode_class: int | None = 0,
        decode_class: int | None = 0,
        index_mode: str = "paper",
        clip_mode: str = "none",
        heun: bool = False,
        exact_inversion: bool = False,
        keep_on: str = "device",
        part: str = "diffusion",
        amp: bool = False,
        compile: bool = False,
    ) -> None:
        self.schedule, self.noise_level = schedule, noise_level
        self.guidance, self.guidance_scale = guidance, guidance_scale
        self.encode_class, self.decode_class = encode_class, decode_class
        self.index_mode, self.clip_mode, self.heun = index_mode, clip_mode, heun
        self.exact_inversion, self.keep_on = exact_inversion, keep_on
        self.part, self.amp, self.compile = part, amp, compile
        self.steps(noise_level)

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return the images decoded."""
        (encoded,) = self.encode(batch, network, generators, progress, [self.noise_level])
        return self.decode(encoded, batch, network, progress, self.noise_level, self.guidance, self.guidance_scale)

    def encode(
        self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress, noise_levels: Sequence[int]
    ) -> list[tuple[Tensor, Trajectory | None]]:
        """Return the images encoded up to each of several noise levels, on one way, with what is kept of it."""
        model = self.model(network, self.encode_class)
        modes: dict[str, Any] = {"index_mode": self.index_mode, "clip_mode": self.clip_mode, "heun": self.heun}
        image, levels = batch.image, tuple(noise_levels)
        modes["trajectory"] = trajectory = Trajectory(self.keep_on) if self.exact_inversion else None
        latents = encode(model, image, self.schedule, levels, generator=generators, progress=progress, **modes)
        return [(latent, trajectory) for latent in latents]

    def decode(
        self,
        encoded: tuple[Tensor, Trajectory | None],
        batch: Batch,
        network: nn.Module,
        progress: Progress,
        noise_level: int,
        guidance: Guidance,
        scale: float,
    ) -> Tensor:
        """Return the images decoded from a noise level."""
        model, pulled = self.model(network, self.decode_class), guides(guidance, scale, batch, network)
        latent, trajectory = encoded
        modes: dict[str, Any] = {"index_mode": self.index_mode, "clip_mode": self.clip_mode, "trajectory": trajectory}
        return decode(model, latent, self.schedule, noise_level, pulled, progress=progress, **modes)

    def model(self, network: nn.Module, label: int | None) -> Callable[..., Tensor]:
        """Return the noise predictor for a class."""
        return noise_predictor(network.get_submodule(self.part), self.amp, self.compile, label)

    def steps(self, noise_level: int) -> int:
        """Return how many steps lead up to a noise level, and back."""
        return steps_to(noise_level, self.schedule, self.index_mode)

    @property
    def num_steps(self) -> int:
        """The steps of encoding and decoding."""
        return 2 * self.steps(self.noise_level)

    @property
    def settings(self) -> dict[str, Any]:
        """Steps of the whole schedule, how far and how it is followed, the guidance, and what is ``unusual``."""
        steps = {"num_inference_steps": len(self.schedule), "noise_level": self.noise_level}
        guided = {"guidance_scale": self.guidance_scale, "exact_inversion": self.exact_inversion}
        return {**steps, **guided, **unusual(vars(self))}
