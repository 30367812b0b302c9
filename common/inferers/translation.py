"""Anomaly maps by translating images to health, and translations to whatever a network can tell of an image."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_numpy
from skimage.filters import threshold_otsu
from torch import Tensor, nn

from ..samplers.guidance import logits_of
from ..transforms.anomaly import smooth_in
from ..transforms.grid import from_slices, resample_slices, to_slices
from .grid import Grid, View, filter_radius
from .patches import Generators
from .slices import Progress, SlicewiseInferer, Stepwise, per_slice


class Batch(NamedTuple):
    """What is to be translated, shape (B, C, *patch_size) each.

    Attributes:
        image: in [0, 1].
        organ: true in the organ, bool.
        target: mask of what the translation shall show, 0 or 1; None where nothing is asked for.
    """

    image: Tensor
    organ: Tensor
    target: Tensor | None = None


class Translator(Stepwise, ABC):
    """Makes an image of another one; how is left to subclasses."""

    @abstractmethod
    def __call__(self, batch: Batch, network: nn.Module, generators: Generators, progress: Progress) -> Tensor:
        """Return translated images, in [0, 1] or a little beyond.

        Args:
            batch: what is to be translated.
            network: the container.
            generators: one for each image.
            progress: hands on the steps of a sampler.
        """


USUAL = {"index_mode": "paper", "clip_mode": "none", "heun": False, "encode_class": 0, "decode_class": 0}
"""Settings of translators that are told with a threshold only where they are otherwise."""


def unusual(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``USUAL`` that settings have otherwise."""
    return {name: settings[name] for name, usual in USUAL.items() if settings.get(name, usual) != usual}


Translate = Callable[[Batch, nn.Module, Generators, Progress], Sequence[Tensor]]
"""A batch in several versions."""


def magnitude(change: Tensor, organ: Tensor) -> Tensor:
    """Return the sum over channels of a change's magnitude (Wolleb et al. 2022, Algorithm 1), shape (S, 1, X, Y)."""
    return change.abs().sum(1, keepdim=True)


class TranslationInferer(SlicewiseInferer):
    """Compare images with translated versions of themselves.

    What the translation changes on the network's grid is brought to the image's own grid and intensities, and added to
    the image. So fine detail that the network's grid cannot show is in both images, and not in the map.

    Args:
        grid: the network's.
        translator: makes the other version.
        threshold: see ``SlicewiseInferer``.
        default_threshold: see ``SlicewiseInferer``.
        score: (change in scaled intensities, 0 outside the organ, shape (S, C, X, Y); organ) -> map before its filter.
        median_radius: of the map's filter (see ``smooth``), pixels of the network; on a finer image as wide in mm.
        with_target: the inputs have a channel with the mask of what the translation shall show.
        classifier: part that tells the probability of disease, None without.
        relative_threshold: the mask's threshold as a share of the map's highest value in the slice, as Babaei et al.
            2024 set it, instead of the weights' own; a slice that changes at all then has a mask.
        otsu: masks begin at each slice's own threshold by Otsu's method instead.
        version: what the translated image is called.
        num_samples: translations whose mean is taken, where something is drawn.
        slice_batch_size: see ``SlicewiseInferer``.
        seed: see ``SlicewiseInferer``.
        amp: see ``SlicewiseInferer``.
        progress: see ``SlicewiseInferer``.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        translator: Translator,
        threshold: float | None = None,
        default_threshold: float = 0.5,
        score: Callable[[Tensor, Tensor], Tensor] = magnitude,
        median_radius: int | Sequence[int] = 0,
        with_target: bool = False,
        classifier: str | None = "classifier",
        relative_threshold: float | None = None,
        otsu: bool = False,
        version: str = "healthy",
        num_samples: int = 1,
        slice_batch_size: int = 16,
        seed: int = 0,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(
            grid=grid,
            threshold=threshold,
            default_threshold=default_threshold,
            num_samples=num_samples,
            slice_batch_size=slice_batch_size,
            seed=seed,
            amp=amp,
            progress=progress,
        )
        self.translator, self.score, self.median_radius, self.version = translator, score, median_radius, version
        self.with_target, self.classifier = with_target, classifier
        self.relative_threshold, self.otsu = relative_threshold, otsu

    @property
    def channels(self) -> tuple[str, ...]:
        """Map, translated image, binary lesions, binary organ, probability of disease in each slice."""
        return ("anomaly", *[self.version] * self.grid.num_channels, "mask", "organ", "probability")

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers that the values of a map depend on, and how they are scaled where the score tells it."""
        scaled = getattr(self.score, "settings", {})
        return {**self.translator.settings, **super().settings, "median_radius": self.median_radius, **scaled}

    def examine(self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module) -> Tensor:
        """Return the ``channels`` of one image."""

        def translate(*given: object) -> list[Tensor]:
            return [self.translator(*given)]  # type: ignore[arg-type]

        return self.examine_versions(volume, pixel_mm, network, translate, self.translator.num_steps)[0]

    def examine_versions(
        self, volume: Tensor, pixel_mm: tuple[float, float], network: nn.Module, translate: Translate, num_steps: int
    ) -> list[Tensor]:
        """Return what ``examine`` does for each version of a translation.

        Args:
            volume: see ``examine``.
            pixel_mm: see ``examine``.
            network: the container.
            translate: makes the versions.
            num_steps: that it hands to ``progress`` for a batch.

        Raises:
            ValueError: if there are fewer channels than the network needs, or no organ to search in.
        """
        c, asked_for = self.grid.num_channels, "what is wanted" * self.with_target
        view = self.grid.view(volume, pixel_mm, partial(self.segment_organ, network=network), asked_for)
        images = [(view.coarse, 0.0), (view.coarse_organ, 0)]
        if self.with_target:
            target = to_slices(volume[c : c + 1] > 0).float()
            images.append((resample_slices(target, view.coarse.shape[2:]) > 0.5, 0))

        def answer(*patches: Tensor, progress: Progress) -> Tensor:
            *batch, generators = patches
            versions = translate(Batch(*batch), network, generators, progress)  # type: ignore[arg-type]
            probability = self.disease_probability(batch[0], network)[:, None, None, None]
            return torch.cat([probability.expand(-1, 1, *self.grid.patch_size), *(v - batch[0] for v in versions)], 1)

        found = self.in_batches(answer, images, self.grid.patches(view), num_steps)[0]
        return [self.compare(volume, view, found[:, :1], change, network) for change in found[:, 1:].split(c, dim=1)]

    def compare(self, volume: Tensor, view: View, probability: Tensor, change: Tensor, network: nn.Module) -> Tensor:
        """Return the ``channels`` of one image.

        Args:
            volume: see ``examine``.
            view: of it.
            probability: of disease in each patch, on the network's grid, shape (S, 1, x, y).
            change: of scaled intensities, on the network's grid, shape (S, C, x, y).
            network: the container.
        """
        organ, size, spatial_dims = view.organ, view.organ.shape[2:], volume.ndim - 1
        probability = resample_slices(probability, size, "nearest")
        change = torch.where(organ, resample_slices(change, size), 0.0)
        scores, radius = self.score(change, organ), filter_radius(self.median_radius, view)
        anomaly = per_slice(smooth_in, organ, scores, radius=radius)
        mask = (anomaly >= self.threshold_of(anomaly, organ, network)) & organ
        translated = from_slices(change, spatial_dims) * (view.high - view.low) + volume[: self.grid.num_channels]
        rest = torch.cat([mask.float(), organ.float(), probability], dim=1)
        return torch.cat([from_slices(anomaly, spatial_dims), translated, from_slices(rest, spatial_dims)])

    def disease_probability(self, image: Tensor, network: nn.Module) -> Tensor:
        """Return the classifier's probability that an image is not of class 0, shape (B,); 0 without a classifier."""
        if self.classifier is None:
            return image.new_zeros(len(image))
        timesteps = torch.zeros(len(image), dtype=torch.long, device=image.device)
        return 1 - logits_of(network.get_submodule(self.classifier)(image, timesteps)).softmax(1)[:, 0]

    def threshold_warning(self, network: nn.Module) -> str:
        """Return what is doubtful about the weights' threshold, nothing where each slice has its own."""
        return "" if self.otsu or self.relative_threshold is not None else super().threshold_warning(network)

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
            return self.said_threshold(network)
        highest = anomaly.amax((1, 2, 3), keepdim=True)
        return torch.where(highest > 0, self.relative_threshold * highest, torch.inf)
