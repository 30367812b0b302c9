"""How a batch of slices becomes the input of a training step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines import PrepareBatch
from torch import Tensor, nn

from ..transforms.grid import crop
from ..transforms.slices import UNKNOWN


class PatchPrepareBatch(PrepareBatch):
    """Crop each slice to a patch around its organ; the patch is input and target: for autoencoders.

    Args:
        patch_size: pixels along X and Y.
        organ_network: finds the organ where a slice's mask is ``UNKNOWN``: logits for images in [-1, 1]; None if all
            cases have masks.
        jitter: the patch's centre is off the organ's by up to this many pixels; 0 for validation.
    """

    def __init__(self, patch_size: Sequence[int], organ_network: nn.Module | None = None, jitter: int = 0) -> None:
        self.patch_size, self.organ_network, self.jitter = patch_size, organ_network, jitter

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Return what the trainer takes for a batch: input and target, and what else ``prepare`` adds."""
        return self.prepare(self.patches(batchdata, device, non_blocking))

    def prepare(self, patches: Tensor) -> tuple:
        """Return the patches as input and as target."""
        return patches, patches

    def patches(self, batchdata: Mapping[str, Tensor], device: Any, non_blocking: bool) -> Tensor:
        """Return the patches of a batch, shape (B, C, *patch_size)."""
        image = batchdata["image"].to(device, non_blocking=non_blocking)
        organ = batchdata["organ"].to(device, non_blocking=non_blocking)
        unknown = (organ == UNKNOWN).flatten(1).all(1)
        if unknown.any():
            organ = organ.clone()
            organ[unknown] = self.find_organ(image[unknown])
        corners = [self._corner(mask[0] > 0) for mask in organ]
        return torch.stack([crop(x, corner, self.patch_size, -1.0) for x, corner in zip(image, corners, strict=True)])

    def find_organ(self, image: Tensor) -> Tensor:
        """Return where the organ part sees the organ, 0 or 1."""
        if self.organ_network is None:
            raise ValueError("expected an organ mask for each case, as there is no network that finds it; got none.")
        training = self.organ_network.training
        self.organ_network.eval()
        with torch.no_grad():
            found = (self.organ_network(image) > 0).float()
        self.organ_network.train(training)
        return found

    def _corner(self, organ: Tensor) -> list[int]:
        """Return the corner of a patch whose centre is the organ's, or the image's if there is no organ."""
        corner = []
        for axis, patch in enumerate(self.patch_size):
            seen = organ.any(1 - axis).nonzero().flatten()
            centre = (seen[0] + seen[-1] + 1).item() / 2 if len(seen) else organ.shape[axis] / 2
            shift = int(torch.randint(-self.jitter, self.jitter + 1, ())) if self.jitter else 0
            corner.append(round(centre - patch / 2) + shift)
        return corner


class DiffusionPrepareBatch(PatchPrepareBatch):
    """Draw timestep and noise for each patch: for MONAI's ``DiffusionInferer`` and ``HybridVLBLoss``.

    Args:
        patch_size: see ``PatchPrepareBatch``.
        organ_network: see ``PatchPrepareBatch``.
        num_train_timesteps: T.
        jitter: see ``PatchPrepareBatch``.
        fixed: the same noise in every batch and timesteps spread over all of [0, T - 1], so that validation losses of
            two epochs can be compared.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        organ_network: nn.Module | None,
        num_train_timesteps: int,
        jitter: int = 0,
        fixed: bool = False,
    ) -> None:
        super().__init__(patch_size, organ_network, jitter)
        self.num_train_timesteps, self.fixed = num_train_timesteps, fixed

    def prepare(self, patches: Tensor) -> tuple:
        """Return patches, the loss' target (image, noise, timesteps), and what the inferer wants."""
        # Drawn on the CPU, so that a run on a GPU sees the same noise.
        generator = torch.Generator().manual_seed(0) if self.fixed else None
        noise = torch.randn(patches.shape, generator=generator).to(patches)
        if self.fixed:
            timesteps = ((torch.arange(len(patches)) + 0.5) * self.num_train_timesteps / len(patches)).long()
        else:
            timesteps = torch.randint(0, self.num_train_timesteps, (len(patches),))
        drawn = {"noise": noise, "timesteps": timesteps.to(patches.device)}
        return patches, {"image": patches, **drawn}, (), drawn


class CoarseNoisePrepareBatch(PatchPrepareBatch):
    """Add coarse noise to each patch; the clean patch is the target: for denoising autoencoders.

    Source: Kascenas et al. 2022, "Denoising autoencoders for unsupervised anomaly detection in brain MRI".

    Args:
        noise_size: nodes of the noise along X and Y, enlarged to the patch.
        noise_std: its standard deviation, images are in [-1, 1].
        options: see ``PatchPrepareBatch``.
    """

    def __init__(self, noise_size: Sequence[int] = (16, 16), noise_std: float = 0.4, **options: Any) -> None:
        super().__init__(**options)
        self.noise_size, self.noise_std = noise_size, noise_std

    def prepare(self, patches: Tensor) -> tuple:
        """Return noisy patches and clean ones."""
        coarse = torch.randn(*patches.shape[:2], *self.noise_size).to(patches)
        noise = F.interpolate(coarse, size=patches.shape[2:], mode="bilinear", align_corners=False)
        return patches + self.noise_std * noise, patches
