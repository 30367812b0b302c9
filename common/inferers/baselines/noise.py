"""The ablation of noise encoding: random noise in its place."""

from torch import Tensor, nn

from ...samplers.ancestral import denoise
from ...samplers.noise import randn_like
from ...schedulers import NoiseSchedule
from ..ddim import Guidance, guides, steps_to
from ..models import noise_predictor
from ..patches import Generators
from ..slices import Progress
from ..translation import Batch, Translator


class NoiseTranslator(Translator):
    """Random noise, and DDPM sampling with guidance.

    Args:
        schedule: of the steps to make; with ``trailing`` spacing if it has fewer than in training.
        noise_level: training timesteps up to which the image is noised.
        guidance: where the sampling is pulled to.
        guidance_scale: 0 is no guidance.
        decode_class: class that the diffusion model is told, None for an unconditional one.
        part: name of the diffusion model in the container.
        amp: bfloat16 autocast for it.

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
        decode_class: int | None = 0,
        part: str = "diffusion",
        amp: bool = False,
    ) -> None:
        self.schedule, self.noise_level = schedule, noise_level
        self.guidance, self.guidance_scale = guidance, guidance_scale
        self.decode_class, self.part, self.amp = decode_class, part, amp
        steps_to(noise_level, schedule)

    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return the images denoised."""
        model = noise_predictor(network.get_submodule(self.part), self.amp, label=self.decode_class)
        schedule, steps = self.schedule.like(batch.image), self.num_steps
        noisy = schedule.add_noise(batch.image, randn_like(batch.image, generators), steps - 1)
        pulled = guides(self.guidance, self.guidance_scale, batch, network)
        return denoise(model, noisy, schedule, generators, guides=pulled, num_steps=steps, progress=progress)

    @property
    def num_steps(self) -> int:
        """The steps of the sampling."""
        return steps_to(self.noise_level, self.schedule)
