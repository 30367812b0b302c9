"""Tumours put into CT volumes: what is synthesised, patch by patch, and how it enters the image."""

import logging
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from monai.networks.layers import GaussianFilter
from monai.utils import convert_to_numpy, convert_to_tensor
from torch import Tensor, nn

from ..schedulers import NoiseSchedule
from ..transforms.grid import from_slices, patch_corners, resample_volume, size_along, to_slices, voxel_size_mm
from ..transforms.intensity import scale_hu, unscale_hu
from ..transforms.tumours import SIZES, NoPlaceError, TumourShapes, blend_weight, handcrafted
from .models import draw, noise_predictor, refuse_other_sampler
from .patches import Generators, Patch, patches_around
from .slices import PatchwiseInferer, Progress, Stepwise, image_and_organ

logger = logging.getLogger(__name__)

MARGIN = 4
"""Voxels of the network's grid that a patch shows around a tumour at least."""


class Synthesiser(Stepwise, ABC):
    """Says what images look like where tumours are wanted; how is left to subclasses."""

    @abstractmethod
    def __call__(
        self,
        image: Tensor,
        tumours: Tensor,
        around: Tensor,
        network: nn.Module,
        generators: Generators,
        progress: Progress,
    ) -> Tensor:
        """Return images with tumours, of which only these are used.

        Args:
            image: healthy, in [-1, 1], shape (B, 1, X, Y, Z).
            tumours: 1 where they are wanted, else 0, of the same shape.
            around: 1 in what remains of the organ, else 0, of the same shape.
            network: the container.
            generators: one for each image.
            progress: hands on the steps of a sampler.
        """


class DiffusionSynthesiser(Synthesiser):
    """Tumours sampled in the latent images of an autoencoder, which is shown what is around them.

    Where a tumour is wanted, it is shown 0. What it answers depends on how far that is from the organ, so it is also
    shown every organ as bright as ``organ_level``; and the organ around a tumour tells by how much an answer is too
    bright or too dark as a whole, since the autoencoder normalises each patch by itself.

    Source: Chen et al. 2024, "Towards Generalizable Tumor Synthesis", section 3.2.

    Args:
        schedule: of the steps to make.
        sampler: ``ddpm``, as in the paper for early tumours, or ``ddim``, its sampler for larger ones.
        part: name of the diffusion model in the container, whose part ``autoencoder`` has the latent images.
        mask_mode: see ``VQGAN.condition``.
        organ_level: mean of the organ around tumours that the networks are shown, in [-1, 1]; None shows it as it is.
        amp: bfloat16 autocast for the diffusion model.
        compile: ``torch.compile`` for it.

    Raises:
        ValueError: if ``sampler`` is unknown.
    """

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        sampler: str = "ddpm",
        part: str = "diffusion",
        mask_mode: str = "area",
        organ_level: float | None = None,
        amp: bool = False,
        compile: bool = False,
    ) -> None:
        refuse_other_sampler(sampler)
        self.schedule, self.sampler, self.part = schedule, sampler, part
        self.mask_mode, self.organ_level, self.amp, self.compile = mask_mode, organ_level, amp, compile

    def __call__(
        self,
        image: Tensor,
        tumours: Tensor,
        around: Tensor,
        network: nn.Module,
        generators: Generators,
        progress: Progress,
    ) -> Tensor:
        """Return what is decoded from sampled latent images, around the tumours as bright as the image."""
        autoencoder: Any = network.get_submodule("autoencoder")
        model = noise_predictor(network.get_submodule(self.part), self.amp, self.compile)
        condition = autoencoder.condition(self.levelled(image, around), tumours, self.mask_mode)
        channels = autoencoder.embedding_dim
        latent = draw(model, condition, channels, self.schedule, self.sampler, generators, progress)
        made = autoencoder.decode(latent).clamp(-1, 1)
        return made + _mean_where(around, image - made)

    def levelled(self, image: Tensor, around: Tensor) -> Tensor:
        """Return images whose organ is as bright as ``organ_level``, those that show it."""
        if self.organ_level is None:
            return image
        shown = around.flatten(1).any(1).view(-1, *[1] * (image.ndim - 1))
        return torch.where(shown, image + self.organ_level - _mean_where(around, image), image).clamp(-1, 1)

    @property
    def num_steps(self) -> int:
        """The steps of the schedule."""
        return len(self.schedule)


class HandcraftedSynthesiser(Synthesiser):
    """Tumours that are drawn, not learnt, see ``handcrafted``: for comparisons, and where there are no weights.

    Args:
        window: HU at -1 and 1.
    """

    def __init__(self, *, window: Sequence[float]) -> None:
        self.window = window

    def __call__(
        self,
        image: Tensor,
        tumours: Tensor,
        around: Tensor,
        network: nn.Module,
        generators: Generators,
        progress: Progress,
    ) -> Tensor:
        """Return the images, darker by the texture of tumours."""
        made = [
            handcrafted(convert_to_numpy(one), np.random.RandomState(own.initial_seed() % 2**32), self.window)
            for one, own in zip(image[:, 0], generators, strict=True)
        ]
        return torch.from_numpy(np.stack(made))[:, None].to(image)


class ConstantSynthesiser(Synthesiser):
    """Tumours of one value, for comparisons.

    Args:
        hu: value.
        window: HU at -1 and 1.
    """

    def __init__(self, *, hu: float, window: Sequence[float]) -> None:
        self.hu, self.window = hu, window

    def __call__(
        self,
        image: Tensor,
        tumours: Tensor,
        around: Tensor,
        network: nn.Module,
        generators: Generators,
        progress: Progress,
    ) -> Tensor:
        """Return the value everywhere."""
        return scale_hu(torch.full_like(image, self.hu), self.window)


SYNTHESES = ("diffusion", "handcrafted", "constant")


def choose_synthesis(synthesis: str, weights: str) -> str:
    """Return a name in ``SYNTHESES``, or ``none``: of ``auto``, ``diffusion`` where there is a file of weights.

    Args:
        synthesis: such a name, or ``auto``.
        weights: path of the file.
    """
    if synthesis != "auto":
        return synthesis
    chosen = "diffusion" if Path(weights).is_file() else "handcrafted"
    logger.info(f"tumours in healthy scans: {chosen}, as {weights} {'is' if chosen == 'diffusion' else 'is not'} there")
    return chosen


def synthesisers_of(
    synthesis: str, early: Synthesiser, late: Synthesiser, handcrafted: Synthesiser, constant: Synthesiser
) -> dict[str, Synthesiser]:
    """Return what synthesises tumours of each size in ``SIZES``.

    Args:
        synthesis: a name in ``SYNTHESES``, or ``none``, where nothing is asked for any.
        early: of ``diffusion``, for the first two sizes.
        late: of ``diffusion``, for the others.
        handcrafted: of all sizes.
        constant: of all sizes.

    Raises:
        ValueError: for another name.
    """
    if synthesis not in (*SYNTHESES, "none"):
        raise ValueError(f"synthesis must be one of {', '.join((*SYNTHESES, 'none'))}, got {synthesis!r}.")
    if synthesis == "diffusion":
        return {"tiny": early, "small": early, "medium": late, "large": late}
    return dict.fromkeys(SIZES, handcrafted if synthesis == "handcrafted" else constant)


class SynthesisInferer(PatchwiseInferer):
    """Put tumours into CT volumes.

    Shape and place are drawn on the volume's own grid, what they look like is synthesised on the network's, and the
    change between the volume there, before and after, is brought back and blended in. What is finer than ``detail``
    stays the volume's, above all its noise, which no tissue changes and four steps of a sampler do not bring back; and
    to the bit so does all that lies beyond the blend.

    Args:
        synthesisers: by the name of a size of tumours what synthesises them.
        shapes: of the tumours; it is not drawn from, but copied for each image.
        voxel_mm: of the network's grid.
        patch_size: the networks' input.
        window: HU at -1 and 1 for the networks.
        detail: standard deviation of a Gaussian, voxels of the network; only what passes it is changed. 0 changes all.
        slice_batch_size: see ``PatchwiseInferer``.
        seed: of all draws, which also depend on the organ, so that each volume has its own.
        amp: see ``PatchwiseInferer``.
        progress: see ``PatchwiseInferer``.
    """

    channels = ("synthetic", "change", "mask", "organ")
    """Image in HU, absolute change in HU, 1 in tumours, binary organ."""

    def __init__(
        self,
        *,
        synthesisers: Mapping[str, Synthesiser],
        shapes: TumourShapes,
        voxel_mm: Sequence[float],
        patch_size: Sequence[int],
        window: Sequence[float],
        detail: float = 0.0,
        slice_batch_size: int = 16,
        seed: int = 0,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(
            patch_size=patch_size, slice_batch_size=slice_batch_size, seed=seed, amp=amp, progress=progress
        )
        self.synthesisers, self.shapes, self.voxel_mm, self.window = synthesisers, shapes, voxel_mm, window
        self.detail = detail

    def examine(self, volume: Tensor, size_mm: tuple[float, ...], network: nn.Module) -> Tensor:
        """Return the ``channels`` of one volume.

        Args:
            volume: HU, then perhaps the organ's mask, shape (C, X, Y, Z).
            size_mm: of its voxels.
            network: the container.

        Raises:
            ValueError: for a single slice, other channels, without an organ, or where a tumour has no place.
        """
        image, organ = image_and_organ(volume)
        size_mm = tuple(round(mm, 4) for mm in size_mm)  # of an oblique scan the last digits depend on how it is stored
        grid = size_along(volume.shape[1:], size_mm, self.voxel_mm)
        coarse = resample_volume(image, grid)
        organ = self.found_organ(coarse, volume.shape[1:], network) if organ is None else organ
        inside = convert_to_numpy(organ[0])
        seed = int(np.random.SeedSequence([self.seed, zlib.crc32(inside)]).generate_state(1)[0])
        tumours, size = self.drawn(inside, size_mm, seed)
        wanted = torch.stack([_coarse_tumour(tumours == n, coarse) for n in range(1, int(tumours.max()) + 1)])
        coarse_organ = resample_volume(organ.float(), grid) > 0.5
        change = self.change(coarse[None], coarse_organ[None], [wanted], [size], network)[0]
        synthetic = _blended(image, resample_volume(change, image.shape[1:]), tumours, size_mm)
        mask = torch.from_numpy(tumours > 0)[None].to(image)
        return torch.cat([synthetic, (synthetic - image).abs(), mask, organ.to(image)])

    @torch.no_grad()
    def insert(self, images: Tensor, organs: Tensor, seeds: Sequence[int], network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return images with tumours, and where these are: for images that lie on the network's grid already.

        One whose organ has no place for tumours comes back as it is, with an empty mask.

        Args:
            images: HU, shape (B, 1, X, Y, Z).
            organs: bool, of the same shape.
            seeds: of each image; what is drawn for one does not depend on the others.
            network: the container.

        Returns:
            HU and bool, both of the images' shape.
        """
        result, masks = images.clone(), torch.zeros_like(organs)
        drawn = {}
        for index, (organ, seed) in enumerate(zip(organs, seeds, strict=True)):
            with suppress(NoPlaceError):
                drawn[index] = self.drawn(convert_to_numpy(organ[0]), self.voxel_mm, seed)
        if not drawn:
            return result, masks
        wanted, sizes = [], []
        for tumours, size in drawn.values():
            pieces = torch.from_numpy(np.stack([tumours == n for n in range(1, tumours.max() + 1)]))
            wanted.append(pieces[:, None].to(images.device))
            sizes.append(size)
        where = list(drawn)
        own = [seeds[index] for index in where]
        changes = self.change(images[where], organs[where], wanted, sizes, network, own)
        for index, change, pieces in zip(where, changes, wanted, strict=True):
            result[index] = _blended(images[index], change, drawn[index][0], self.voxel_mm)
            masks[index] = pieces.any(0)
        return result, masks

    def drawn(self, organ: Any, size_mm: Sequence[float], seed: int) -> tuple[Any, str]:
        """Return 1, 2, ... in the voxels of tumours, and the name of their size, see ``TumourShapes``."""
        shapes = deepcopy(self.shapes)
        shapes.set_random_state(seed)
        return shapes(organ, size_mm), shapes.drawn

    def found_organ(self, coarse: Tensor, size: Sequence[int], network: nn.Module) -> Tensor:
        """Return where the container's part ``organ`` sees the organ, on a volume's own grid, bool."""
        found = self.segment_organ(scale_hu(to_slices(coarse), self.window), network, -1.0)
        if not found.any():
            raise ValueError("there is no organ to put a tumour into: the network found none.")
        return resample_volume(from_slices(found.float(), 3), size) > 0.5

    def change(
        self,
        images: Tensor,
        organs: Tensor,
        wanted: Sequence[Tensor],
        sizes: Sequence[str],
        network: nn.Module,
        seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Return by how many HU synthesisers change images around tumours, on the network's grid; elsewhere it is 0.

        Args:
            images: HU, shape (B, 1, X, Y, Z).
            organs: bool, of the same shape.
            wanted: of each image the masks of its tumours, bool, shape (N, 1, X, Y, Z).
            sizes: of each image the size of its tumours.
            network: the container.
            seeds: of each image, instead of the inferer's.
        """
        masks = torch.stack([tumours.any(0) for tumours in wanted])
        shown = [(scale_hu(images, self.window), -1.0), (masks.to(images), 0.0), ((organs & ~masks).to(images), 0.0)]
        change = torch.zeros_like(images)
        for synthesiser in dict.fromkeys(self.synthesisers[size] for size in sizes):
            own = [index for index, size in enumerate(sizes) if self.synthesisers[size] is synthesiser]
            where = [Patch(index, list(corner)) for index in own for corner in sorted(self._corners(wanted[index]))]

            def fill(*batch: Any, progress: Progress, synthesiser: Synthesiser = synthesiser) -> Tensor:
                image, tumours, around, generators = batch
                return synthesiser(image, tumours, around, network, generators, progress)

            content, covered = self.in_batches(fill, shown, where, synthesiser.num_steps, apart=True, seeds=seeds)
            change = torch.where(covered, unscale_hu(content, self.window) - images, change)
        return GaussianFilter(3, self.detail).to(change.device)(change) if self.detail else change

    def _corners(self, tumours: Tensor) -> set[tuple[int, ...]]:
        """Return the corners of the patches that cover each of some tumours, shape (N, 1, X, Y, Z)."""
        found = set()
        for tumour in tumours:
            inside = tumour[0].nonzero()
            low, high = inside.amin(0).tolist(), inside.amax(0).tolist()
            found |= {tuple(corner) for corner in patch_corners(low, high, self.patch_size, MARGIN)}
        return found


def _coarse_tumour(tumour: Any, coarse: Tensor) -> Tensor:
    """Return a tumour on the grid of ``coarse``, one voxel at least, bool, shape (1, x, y, z)."""
    share = resample_volume(torch.from_numpy(tumour)[None].to(coarse), coarse.shape[1:])
    return share >= min(0.5, float(share.max()))


def _blended(image: Tensor, change: Tensor, tumours: Any, size_mm: Sequence[float]) -> Tensor:
    """Return an image that changes where tumours are, and stays to the bit beyond their blend.

    Args:
        image: HU, shape (1, X, Y, Z).
        change: HU, of the same shape.
        tumours: 1, 2, ... in the voxels of each, shape (X, Y, Z).
        size_mm: of the voxels.
    """
    weight = torch.from_numpy(blend_weight(tumours, size_mm))[None].to(image)
    return torch.where(weight > 0, image + weight * change, image)


def _mean_where(mask: Tensor, images: Tensor) -> Tensor:
    """Return the mean of each image where a mask is 1, 0 where that is nowhere."""
    axes = tuple(range(1, images.ndim))
    return (images * mask).sum(axes, keepdim=True) / mask.sum(axes, keepdim=True).clamp(min=1)


@torch.no_grad()
def reconstruction_rows(dataset: Sequence[Mapping[str, Any]], inferer: SynthesisInferer, network: Any) -> list[dict]:
    """Return how far the autoencoder's reconstruction is from the organ of each case.

    Args:
        dataset: items with ``case`` and ``image``: HU, then the organ's mask, MetaTensor of shape (2, X, Y, Z).
        inferer: whose grid, window and patches are taken.
        network: container with the part ``autoencoder``.
    """
    rows = []
    for index in range(len(dataset)):
        item = dataset[index]
        volume, size_mm = convert_to_tensor(item["image"], track_meta=False).float(), voxel_size_mm(item["image"])
        grid = size_along(volume.shape[1:], size_mm, inferer.voxel_mm)
        organ = resample_volume(volume[-1:], grid) > 0.5
        scaled = scale_hu(resample_volume(volume[:1], grid), inferer.window)[None]
        where = list(patches_around(organ[None], organ[None], inferer.patch_size, MARGIN))

        def rebuilt(patches: Tensor, generators: Generators, progress: Progress) -> Tensor:
            return network.get_submodule("autoencoder")(patches)[0]

        with eval_mode(network):  # a training autoencoder would move its codes
            found, covered = inferer.in_batches(rebuilt, [(scaled, -1.0)], where)
        difference = unscale_hu(found, inferer.window) - unscale_hu(scaled, inferer.window)
        error = difference[organ[None] & covered]
        fine = [float((x - F.avg_pool3d(x, 3, 1, 1))[organ[None]].std()) for x in (found, scaled)]
        rows.append(
            {
                "case": item["case"],
                "mean_absolute_error_hu": float(error.abs().mean()),
                "root_mean_squared_error_hu": float(error.square().mean().sqrt()),
                "bias_hu": float(error.mean()),
                "noise_ratio": fine[0] / fine[1],
            }
        )
    return rows
