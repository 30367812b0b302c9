"""What inferers share that look at an image slice by slice, patch by patch."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from scipy.ndimage import label
from torch import Tensor, nn

from ..progress import bar
from ..transforms.grid import pixel_size_mm, to_canvas, voxel_size_mm
from ..transforms.organ import fill_holes
from .grid import ORGANS, Grid
from .models import all_finite, finite
from .patches import Patch, in_patches

ORGAN_MULTIPLE = 16
"""Organ segmenters halve their input up to four times."""

logger = logging.getLogger(__name__)

Progress = Callable[[Iterable[Any]], Iterator[Any]]
"""Hands on the steps of a sampler, and moves a bar on after each."""


class Stepwise:
    """What answers batches of patches, and may hand its steps to ``progress``."""

    @property
    def num_steps(self) -> int:
        """By how much a bar moves on for a batch: the steps that are handed to ``progress``, or 1 without any."""
        return 1

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers of steps, levels and scales that the values of a map depend on, by the names of keys."""
        return {}


class PatchwiseInferer(Inferer):
    """Examine images one after another, patch by patch; what is looked for is left to subclasses.

    It has no state: the same image and the same network give the same result.

    Args:
        patch_size: the networks' input along each axis.
        num_samples: how often each patch is done with other noise.
        slice_batch_size: slices or patches in a batch.
        seed: of all draws; those of a patch do not depend on the other patches of its batch.
        amp: bfloat16 autocast for the organ's network.
        progress: show a progress bar for each image.

    Raises:
        ValueError: if there is nothing to do.
    """

    def __init__(
        self,
        *,
        patch_size: Sequence[int],
        num_samples: int = 1,
        slice_batch_size: int = 16,
        seed: int = 0,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__()
        if min(num_samples, slice_batch_size) < 1:
            raise ValueError(
                f"num_samples and slice_batch_size must be >= 1, got {num_samples} and {slice_batch_size}."
            )
        self.patch_size, self.num_samples = patch_size, num_samples
        self.slice_batch_size, self.seed, self.amp, self.progress = slice_batch_size, seed, amp, progress

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D417
        """Return what ``examine`` says of each image, stacked.

        Args:
            inputs: MetaTensor, shape (B, C, X, Y[, Z]), oriented with slices along the last axis.
            network: container with the parts that the method needs.

        Raises:
            ValueError: if the organ is empty, the image or the result not finite, or its pixel size unknown.
        """
        size_mm = self.size_mm(inputs)
        plain = convert_to_tensor(inputs, track_meta=False).float()
        if not all_finite(plain):
            raise ValueError("the image holds NaN or infinite values.")
        results = [self.examine(image, size_mm, network) for image in plain]
        return finite(results[0][None] if len(results) == 1 else torch.stack(results))  # a stack of one is a copy

    def size_mm(self, image: Tensor) -> tuple[float, ...]:
        """Return what ``examine`` is told of the size of an image's voxels."""
        return voxel_size_mm(image)

    @property
    @abstractmethod
    def channels(self) -> tuple[str, ...]:
        """What each channel of the result is; channels of one name belong together."""

    @abstractmethod
    def examine(self, volume: Tensor, size_mm: Any, network: nn.Module, /) -> Tensor:
        """Return the channels of one image.

        Args:
            volume: shape (C, X, Y[, Z]), finite.
            size_mm: see the method of this name.
            network: the container.
        """

    def in_batches(
        self,
        function: Callable[..., Tensor],
        images: Sequence[tuple[Tensor, float]],
        where: Sequence[Patch],
        num_steps: int = 1,
        apart: bool = False,
        seeds: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what ``in_patches`` does, and show a bar that moves on with each step, and is full at the end.

        Args:
            function: takes the patches of all images, a generator for each, and ``progress``, which its sampler hands
                its steps to.
            images: see ``in_patches``.
            where: patches.
            num_steps: by which the bar moves on in a batch, also where a function hands fewer to ``progress``.
            apart: see ``in_patches``.
            seeds: of each image, instead of the inferer's.

        Raises:
            ValueError: if an answer is not finite; filters and masks might hide that.
        """
        total = -(-len(where) * self.num_samples // self.slice_batch_size) * num_steps
        with bar(total=total, shown=self.progress) as steps_done:

            def progress(steps: Iterable[Any]) -> Iterator[Any]:
                for step in steps:
                    yield step
                    steps_done.update()

            def counted(*batch: Any) -> Tensor:
                start = steps_done.n
                answers = function(*batch, progress=progress)
                steps_done.update(start + num_steps - steps_done.n)
                return answers

            found, covered = in_patches(
                counted,
                images,
                where,
                self.patch_size,
                self.slice_batch_size,
                self.num_samples,
                self.seed if seeds is None else seeds,
                apart,
            )
        return finite(found), covered

    def segment_organ(self, slices: Tensor, network: nn.Module, background: float = 0.0) -> Tensor:
        """Return where the container's part ``organ`` sees the organ: the largest connected part, its holes filled.

        Args:
            slices: as it was trained with, shape (S, 1, x, y).
            network: the container.
            background: value beyond the slices.

        Raises:
            ValueError: if what it says is not finite.
        """
        segmenter, (x, y) = network.get_submodule("organ"), slices.shape[2:]
        canvas = to_canvas(slices, ORGAN_MULTIPLE, background)
        with torch.autocast(slices.device.type, torch.bfloat16, enabled=self.amp):
            logits = torch.cat([segmenter(batch) for batch in canvas.split(self.slice_batch_size)])
        return per_slice(largest_without_holes, finite(logits)[..., :x, :y] > 0)

    @property
    def organ_from(self) -> str:
        """How the organ of an image is had that comes without a mask of it, in words."""
        return "found by the network"

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers that the values of a result depend on, by the names of keys; a threshold is kept with them."""
        return {"num_samples": self.num_samples}

    def threshold_warning(self, network: nn.Module) -> str:
        """Return what is doubtful about the threshold of masks in a sentence; nothing where no mask has one.

        Args:
            network: container with the ``thresholds``.
        """
        return ""


class SlicewiseInferer(PatchwiseInferer):
    """Examine images slice by slice on the network's grid.

    Args:
        grid: the network's.
        threshold: of the mask in the map's unit; None takes the one that came with the weights.
        default_threshold: used with a warning where the weights bring none.
        num_samples: see ``PatchwiseInferer``.
        slice_batch_size: see ``PatchwiseInferer``.
        seed: see ``PatchwiseInferer``.
        amp: see ``PatchwiseInferer``.
        progress: see ``PatchwiseInferer``.

    Raises:
        ValueError: if there is nothing to do, or a threshold is no number.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        threshold: float | None = None,
        default_threshold: float = 0.5,
        num_samples: int = 1,
        slice_batch_size: int = 16,
        seed: int = 0,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(
            patch_size=grid.patch_size,
            num_samples=num_samples,
            slice_batch_size=slice_batch_size,
            seed=seed,
            amp=amp,
            progress=progress,
        )
        for number in (default_threshold, *([] if threshold is None else [threshold])):
            if not np.isfinite(number):
                raise ValueError(f"threshold must be a finite number, as NaN and infinity mask nothing, got {number}.")
        self.grid, self.threshold, self.default_threshold = grid, threshold, default_threshold

    def size_mm(self, image: Tensor) -> tuple[float, ...]:
        """Return the size of an image's pixels in the slice."""
        return pixel_size_mm(image)

    @property
    def organ_from(self) -> str:
        """How the organ of an image is had that comes without a mask of it, in words."""
        return ORGANS[self.grid.organ]

    def mask_threshold(self, network: nn.Module) -> float:
        """Return the threshold of masks: the given one, that of the weights for these settings, or the default."""
        if self.threshold is not None:
            return self.threshold
        fitted, _ = self._fitted(network)
        return fitted if np.isfinite(fitted) else self.default_threshold

    def said_threshold(self, network: nn.Module) -> float:
        """Return ``mask_threshold``, and say what is doubtful about it."""
        if warning := self.threshold_warning(network):
            logger.warning(warning)
        return self.mask_threshold(network)

    def threshold_warning(self, network: nn.Module) -> str:
        """Return what is doubtful about the threshold of masks in a sentence, or nothing."""
        if self.threshold is not None:
            return ""
        fitted, theirs = self._fitted(network)
        if not np.isfinite(fitted):
            return f"the weights bring no threshold: masks are made with {self.default_threshold:g}."
        ours = self.settings
        names = dict.fromkeys([*theirs, *ours]) if theirs else []  # where nothing is told of it nothing is doubtful
        others = [name for name in names if not np.array_equal(theirs.get(name, False), ours.get(name, False))]
        if not others:
            return ""
        then, here = (" and ".join(_told(name, settings) for name in others) for settings in (theirs, ours))
        return f"the threshold was fitted with {then}; this run has {here}: the mask may be too small or too large."

    def _fitted(self, network: Any) -> tuple[float, Mapping[str, Any]]:
        """Return the threshold of a container for these settings, NaN if it has none, and what it was fitted with."""
        return network.threshold_for(self.settings) if hasattr(network, "threshold_for") else (np.nan, {})


def image_and_organ(volume: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a volume in HU, and the mask of its organ as bool, None where it comes without one.

    Args:
        volume: HU, then perhaps the organ's mask, shape (C, X, Y, Z).

    Raises:
        ValueError: for a single slice, or other channels.
    """
    if volume.ndim != 4 or len(volume) > 2:
        raise ValueError(f"expected a volume in HU, perhaps an organ mask, got shape {tuple(volume.shape)}.")
    return volume[:1], volume[1:] > 0 if len(volume) == 2 else None


def per_slice(function: Callable[..., NDArray[Any]], *slices: Tensor, **options: Any) -> Tensor:
    """Call a function of arrays with slices along the last axis on tensors of shape (S, 1, X, Y)."""
    arrays = [x[:, 0].movedim(0, -1).cpu().numpy() for x in slices]
    result = torch.from_numpy(np.ascontiguousarray(function(*arrays, **options)))
    return result.movedim(-1, 0)[:, None].to(slices[0].device)


def _told(name: str, settings: Mapping[str, Any]) -> str:
    return f"{name} {settings[name]}" if name in settings else f"no {name}"


def largest_without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part of a mask, its holes filled slice by slice along the last axis."""
    components, count = label(mask)
    if count == 0:
        return mask
    return fill_holes(components == np.bincount(components.ravel())[1:].argmax() + 1)
