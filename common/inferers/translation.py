"""Anomaly maps by translating images to health, and translations to whatever a network can tell of an image."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_numpy, ensure_tuple
from skimage.filters import threshold_otsu
from torch import Tensor, nn
from tqdm import tqdm

from ..samplers.ancestral import denoise
from ..samplers.ddim import decode, encode, steps_below
from ..samplers.guidance import Guide
from ..samplers.noise import randn_like
from ..schedulers import NoiseSchedule
from ..transforms.anomaly import smooth_in
from ..transforms.grid import from_slices, resample_slices, to_slices
from .models import noise_predictor, ticking
from .patches import Generators, Patch, in_patches
from .scaled import ScaledSliceInferer
from .slices import per_slice

Task = Mapping[str, Callable[..., Guide]]
"""What guides are made of, by the part of the container that they look through."""


class Batch(NamedTuple):
    """What is to be translated, shape (B, C, *patch_size) each.

    Attributes:
        image: in [0, 1].
        organ: true in the organ, bool.
        wanted: mask of what the translation shall show, or of zeros.
    """

    image: Tensor
    organ: Tensor
    wanted: Tensor


class TranslationInferer(ScaledSliceInferer):
    """Compare images with translated versions of themselves; what translates is left to subclasses.

    What the translation changes on the network's grid is brought to the image's own grid and intensities, and added to
    the image. So fine detail that the network's grid cannot show is in both images, and not in the map, which is the
    sum over channels of the change's magnitude in scaled intensities (Wolleb et al. 2022, Algorithm 1).

    Args:
        with_wanted: the inputs have a channel with the mask of what the translation shall show.
        classifier: part that tells the probability of disease, None without.
        relative_threshold: the mask's threshold as a share of the map's highest value in the slice, as Babaei et al.
            2024 set it, instead of the weights' own; a slice that changes at all then has a mask.
        otsu: masks begin at each slice's own threshold by Otsu's method instead.
        num_samples: translations whose mean is taken, where something is drawn.
        options: see ``ScaledSliceInferer``.
    """

    version = "healthy"
    """What the translated image is."""

    def __init__(
        self,
        with_wanted: bool = False,
        classifier: str | None = "classifier",
        relative_threshold: float | None = None,
        otsu: bool = False,
        num_samples: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.with_wanted, self.classifier = with_wanted, classifier
        self.relative_threshold, self.otsu, self.num_samples = relative_threshold, otsu, num_samples

    @property
    def channels(self) -> tuple[str, ...]:
        """Map in scaled intensities, translated image, binary lesions, binary organ, probability of disease."""
        return ("anomaly", *[self.version] * self.num_channels, "mask", "organ", "probability")

    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return map, translated image (C channels), mask, organ and probability of disease in each slice."""
        return self.examine_versions(volume, pixel_mm, network)[0]

    def examine_versions(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> list[Tensor]:
        """Return what ``examine`` does for each version that ``translate`` gives.

        Raises:
            ValueError: if there are fewer channels than the network needs, or no organ to search in.
        """
        c, slices = self.num_channels, self.slices(volume, pixel_mm, network, "what is wanted" * self.with_wanted)
        organ, size = slices.organ, slices.organ.shape[2:]
        wanted = to_slices(volume[c : c + 1] > 0).float() if self.with_wanted else torch.zeros_like(organ.float())
        coarse_wanted = resample_slices(wanted, slices.coarse.shape[2:]) > 0.5
        answers = self.answers(Batch(slices.coarse, slices.coarse_organ, coarse_wanted), self.patches(slices), network)
        probability = resample_slices(answers[:, :1], size, "nearest")
        results = []
        for change in answers[:, 1:].split(c, dim=1):
            change = torch.where(organ, resample_slices(change, size), 0.0)
            scores = self.scores(change, organ)
            anomaly = per_slice(smooth_in, organ, scores, radius=self.filter_radius(size, pixel_mm))
            mask = (anomaly >= self.threshold_of(anomaly, organ, network)) & organ
            translated = from_slices(change, volume.ndim - 1) * (slices.high - slices.low) + volume[:c]
            rest = torch.cat([mask.float(), organ.float(), probability], dim=1)
            parts = (from_slices(anomaly, volume.ndim - 1), translated, from_slices(rest, volume.ndim - 1))
            results.append(torch.cat(parts))
        return results

    def scores(self, change: Tensor, organ: Tensor) -> Tensor:
        """Return the map, before its filter, of what a translation has changed, shape (S, 1, X, Y).

        Args:
            change: in scaled intensities, 0 outside the organ, shape (S, C, X, Y).
            organ: bool, shape (S, 1, X, Y).
        """
        return change.abs().sum(1, keepdim=True)

    def answers(self, slices: Batch, where: Sequence[Patch], network: nn.Module) -> Tensor:
        """Return the probability of disease and the changes of all versions, shape (S, 1 + versions * C, x, y)."""
        images = [(slices.image, 0.0), (slices.organ, 0), (slices.wanted, 0)]
        draws = (self.slice_batch_size, self.num_samples, self.seed)
        total = -(-len(where) * self.num_samples // self.slice_batch_size) * self.num_steps()
        with tqdm(total=total, disable=not self.progress, leave=False) as bar:

            def answer(image: Tensor, organ: Tensor, wanted: Tensor, generators: Generators) -> Tensor:
                changes = [v - image for v in self.translate(Batch(image, organ, wanted), network, generators, bar)]
                probability = self.disease_probability(image, network)[:, None, None, None]
                return torch.cat([probability.expand(-1, 1, *self.patch_size), *changes], dim=1)

            return in_patches(answer, images, where, self.patch_size, *draws)[0]

    def disease_probability(self, image: Tensor, network: nn.Module) -> Tensor:
        """Return the classifier's probability that an image is not of class 0, shape (B,); 0 without a classifier."""
        if self.classifier is None:
            return image.new_zeros(len(image))
        timesteps = torch.zeros(len(image), dtype=torch.long, device=image.device)
        return 1 - network.get_submodule(self.classifier)(image, timesteps).softmax(1)[:, 0]

    def threshold_of(self, anomaly: Tensor, organ: Tensor, network: nn.Module) -> float | Tensor:
        """Return where the mask begins, one value for all slices or one for each, shape (S, 1, 1, 1).

        Where it depends on the slice, one of a constant map has no mask.

        Args:
            anomaly: filtered, shape (S, 1, X, Y).
            organ: bool, of the same shape.
            network: the container.
        """
        if self.otsu:
            pairs = zip(convert_to_numpy(anomaly), convert_to_numpy(organ), strict=True)
            found = [threshold_otsu(a[o]) if len(np.unique(a[o])) > 1 else np.inf for a, o in pairs]
            return anomaly.new_tensor(found)[:, None, None, None]
        if self.relative_threshold is None:
            return self.mask_threshold(network)
        highest = anomaly.amax((1, 2, 3), keepdim=True)
        return torch.where(highest > 0, self.relative_threshold * highest, torch.inf)

    def num_steps(self) -> int:
        """Return how often ``translate`` will update the progress bar."""
        return 1

    @abstractmethod
    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return translated images, one for each setting, in [0, 1] or a little beyond.

        Args:
            batch: what is to be translated.
            network: the container.
            generators: one for each image.
            bar: to be updated after each step.
        """


class DiffusionTranslationInferer(TranslationInferer):
    """What the inferers with a diffusion model and guidance share.

    Args:
        schedule: of the steps to make; with ``trailing`` spacing if it has fewer than in training.
        noise_level: training timesteps up to which the image is noised, L in the papers; several give several versions.
        guidance: by the name of a part of the container what makes a guide of it, such as ``classifier_guidance`` with
            its target; it is given ``scale`` unless it has one, and ``target`` if something is wanted. Guides of
            several parts add up; a list of such mappings is a list of tasks and gives several versions.
        guidance_scale: s (classifier) or c (others) in the papers; several give several versions, 0 is no guidance.
        encode_class: class that the diffusion model is told on the way to noise, None for an unconditional one.
        decode_class: class that it is told on the way back.
        part: name of the diffusion model in the container.
        compile: ``torch.compile`` for it.
        options: see ``TranslationInferer``.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        noise_level: int | Sequence[int],
        guidance: Task | Sequence[Task],
        guidance_scale: float | Sequence[float],
        encode_class: int | None = 0,
        decode_class: int | None = 0,
        part: str = "diffusion",
        compile: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.schedule, self.part, self.compile = schedule, part, compile
        self.tasks = [guidance] if isinstance(guidance, Mapping) else list(guidance)
        self.noise_levels, self.guidance_scales = ensure_tuple(noise_level), ensure_tuple(guidance_scale)
        self.encode_class, self.decode_class = encode_class, decode_class

    @property
    def settings(self) -> list[dict[str, float]]:
        """What each version is made with, by the names of the keys; of several tasks also the number."""
        several = len(self.tasks) > 1
        return [
            {"noise_level": level, **({"task": task} if several else {}), "guidance_scale": scale}
            for level, task, scale in product(self.noise_levels, range(len(self.tasks)), self.guidance_scales)
        ]

    def model(self, network: nn.Module, label: int | None) -> Any:
        """Return the noise predictor for a class."""
        return noise_predictor(network.get_submodule(self.part), self.amp, self.compile, label)

    def guides(self, task: Task, scale: float, batch: Batch, network: nn.Module) -> list[Guide]:
        """Return the guides of a task with a scale."""
        if scale == 0:
            return []
        given = {"scale": scale} | ({"target": batch.wanted} if self.with_wanted else {})
        return [
            make(network.get_submodule(part), **{**given, **getattr(make, "keywords", {})})
            for part, make in task.items()
        ]


class DdimTranslationInferer(DiffusionTranslationInferer):
    """Noise encoding and guided decoding.

    Source: Wolleb et al. 2022, "Diffusion Models for Medical Anomaly Detection", Algorithm 1, and "The Swiss Army Knife
    for Image-to-Image Translation".

    Args:
        index_mode: see ``encoding_levels``.
        clip_mode: see ``predict_noise``.
        heun: see ``encode``.
        options: see ``DiffusionTranslationInferer``.
    """

    def __init__(self, index_mode: str = "paper", clip_mode: str = "none", heun: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.index_mode, self.clip_mode, self.heun = index_mode, clip_mode, heun

    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return the images decoded from all noise levels for all tasks with all scales; they share one encoding."""
        encoder, decoder = (self.model(network, label) for label in (self.encode_class, self.decode_class))
        modes: dict[str, Any] = {
            "index_mode": self.index_mode,
            "clip_mode": self.clip_mode,
            "progress": partial(ticking, bar),
        }
        latents = encode(
            encoder, batch.image, self.schedule, self.noise_levels, heun=self.heun, generator=generators, **modes
        )
        return [
            decode(decoder, latent, self.schedule, level, self.guides(task, scale, batch, network), **modes)
            for level, latent in zip(self.noise_levels, latents, strict=True)
            for task, scale in product(self.tasks, self.guidance_scales)
        ]

    def num_steps(self) -> int:
        """Return the steps of encoding and of all decodings."""
        steps = [steps_below(level, self.schedule, self.index_mode) for level in self.noise_levels]
        return max(steps) + sum(steps) * len(self.tasks) * len(self.guidance_scales)


class NoiseTranslationInferer(DiffusionTranslationInferer):
    """The ablation: random noise in place of the encoding, and DDPM sampling with the same guidance."""

    def translate(self, batch: Batch, network: nn.Module, generators: Generators, bar: tqdm) -> list[Tensor]:
        """Return the images denoised from all noise levels for all tasks with all scales."""
        model, schedule = self.model(network, self.decode_class), self.schedule.like(batch.image)
        versions = []
        for level, task, scale in product(self.noise_levels, self.tasks, self.guidance_scales):
            steps = steps_below(level, schedule)
            noisy = schedule.add_noise(batch.image, randn_like(batch.image, generators), steps - 1)
            guides, ticks = self.guides(task, scale, batch, network), partial(ticking, bar)
            versions.append(denoise(model, noisy, schedule, generators, guides=guides, num_steps=steps, progress=ticks))
        return versions

    def num_steps(self) -> int:
        """Return the steps of all samplings."""
        steps = sum(steps_below(level, self.schedule) for level in self.noise_levels)
        return steps * len(self.tasks) * len(self.guidance_scales)
