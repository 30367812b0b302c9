"""Tumours put into healthy images while a network learns to find them."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import PrepareBatch
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from ..checkpoints import read_data, save_atomically
from ..transforms.intensity import scale_hu, unscale_hu

ORGAN, TUMOUR = 1, 2
"""Values of labels."""


class SynthesisPrepareBatch(PrepareBatch):
    """Put tumours into some of the healthy images of a batch, on the training's device, in each epoch others.

    What the patches of a case are given depends on the seed, the epoch and the case alone, so that a training that is
    resumed goes on with what an unbroken one has.

    Source: Chen et al. 2024, "Towards Generalizable Tumor Synthesis", section 3.3.

    Attributes:
        epoch: of the training, set by ``SeedEachEpoch``.

    Args:
        insert: (images in HU, organs, seeds, network) -> images and masks of tumours, see ``SynthesisInferer.insert``.
        network: that it calls.
        share: of healthy images that are given tumours.
        window: HU of images at -1 and 1.
        seed: of all that is drawn.
        pool_dir: folder where each image that was given tumours is kept; those that are there are taken as they are.
            It serves trainings of one seed that differ in nothing that comes before the network.
        pool_epochs: epochs after which what was drawn comes again, with a pool as images that are made once; None
            draws anew in each epoch.

    Raises:
        ValueError: if ``share`` is none, or ``pool_epochs`` no count.
    """

    def __init__(
        self,
        insert: Callable[..., tuple[Tensor, Tensor]],
        network: nn.Module | None,
        share: float,
        window: Sequence[float],
        seed: int = 0,
        pool_dir: str | None = None,
        pool_epochs: int | None = None,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {share}.")
        if pool_epochs is not None and pool_epochs < 1:
            raise ValueError(f"pool_epochs must be 1 or more, got {pool_epochs}.")
        self.insert, self.network, self.share, self.window, self.seed = insert, network, share, window, seed
        self.pool_dir = None if pool_dir is None else Path(pool_dir)
        self.pool_epochs, self.epoch = pool_epochs, 1

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return images and labels, 1 in organs and 2 in tumours.

        Args:
            batchdata: ``image`` in [-1, 1] and ``label``, shape (B, 1, X, Y, Z); ``case`` and whether it is
                ``healthy``, without which none is given tumours.
            device: of the training.
            non_blocking: see torch.
            kwargs: not used.
        """
        plain = (convert_to_tensor(batchdata[key], track_meta=False) for key in ("image", "label"))
        image, label = (tensor.to(device, non_blocking=non_blocking) for tensor in plain)
        patches = _patches(batchdata["case"]) if "case" in batchdata else []
        seeds = self._seeds(batchdata, patches, len(image))
        if not seeds:
            return image, label
        image, label, where = image.clone(), label.clone(), list(seeds)
        paths = [self._path(*patches[index]) for index in where]
        if all(path is not None and path.is_file() for path in paths):
            kept = [read_data(str(path), "an image of a pool") for path in paths]
            image[where], label[where] = (torch.stack([x[key] for x in kept]).to(image) for key in ("image", "label"))
            return image, label
        hu, organs = unscale_hu(image[where], self.window), label[where] == ORGAN
        made, tumours = self.insert(hu, organs, list(seeds.values()), self.network)
        image[where], label[where] = scale_hu(made, self.window), torch.where(tumours, TUMOUR, label[where])
        for path, index in zip(paths, where, strict=True):
            if path is not None:
                save_atomically({"image": image[index].cpu().clone(), "label": label[index].cpu().clone()}, path)
        return image, label

    def _seeds(self, batchdata: Mapping[str, Any], patches: Sequence[tuple[str, int]], count: int) -> dict[int, int]:
        """Return the seed of each image that is given tumours, by its place in the batch."""
        healthy = torch.as_tensor(batchdata.get("healthy", [False] * count)).tolist()
        seeds = {}
        for index in (index for index, well in enumerate(healthy) if well):
            case, patch = patches[index]
            entropy = [self.seed, self._drawn_epoch, zlib.crc32(case.encode()), *[patch] * (patch > 0)]
            whether, seed = np.random.SeedSequence(entropy).generate_state(2).tolist()
            if whether < self.share * 2**32:
                seeds[index] = seed
        return seeds

    @property
    def _drawn_epoch(self) -> int:
        """The epoch whose draws are taken."""
        return self.epoch if self.pool_epochs is None else (self.epoch - 1) % self.pool_epochs + 1

    def _path(self, case: str, patch: int) -> Path | None:
        """Return where an image with tumours is kept, None where there is no pool."""
        if self.pool_dir is None:
            return None
        return self.pool_dir / f"{case}_patch{patch}_seed{self.seed}_epoch{self._drawn_epoch}.pt"


def _patches(cases: Sequence[Any]) -> list[tuple[str, int]]:
    """Return the case of each patch in a batch, and which of the case's patches it is."""
    names = list(map(str, cases))
    return [(name, names[:index].count(name)) for index, name in enumerate(names)]
