"""How a batch of slices or patches becomes the input of a training step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines import PrepareBatch
from monai.networks import eval_mode
from torch import Tensor, nn

from ..transforms.grid import crop
from ..transforms.holes import organ_medians, random_ellipses, shown_with_holes
from ..transforms.intensity import to_symmetric
from ..transforms.organ import right_part
from ..transforms.slices import UNKNOWN


class PatchPrepareBatch(PrepareBatch):
    """Crop each slice to a patch around its organ; the patch is input and target: for autoencoders.

    Args:
        patch_size: pixels along X and Y.
        organ_network: finds the organ where a slice's mask is ``UNKNOWN``: logits for images in [-1, 1]; None if all
            cases have masks.
        jitter: the patch's centre is off the organ's by up to this many pixels; 0 for validation.
        background: value of what a patch shows beyond the slice.
        only_organ: set what lies outside the organ to ``background``.
        right_share: of what the network finds, the ``right_part`` of each slice is the organ.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        organ_network: nn.Module | None = None,
        jitter: int = 0,
        background: float = -1.0,
        only_organ: bool = False,
        right_share: float = 1.0,
    ) -> None:
        self.patch_size, self.organ_network, self.jitter = patch_size, organ_network, jitter
        self.background, self.only_organ, self.right_share = background, only_organ, right_share

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Return what the trainer takes for a batch: input and target, and what else ``prepare`` adds."""
        return self.prepare(self.patches(batchdata, device, non_blocking))

    def prepare(self, patches: Mapping[str, Tensor]) -> tuple:
        """Return the patches of the images as input and as target."""
        return patches["image"], patches["image"]

    def patches(self, batchdata: Mapping[str, Any], device: Any, non_blocking: bool) -> dict[str, Tensor]:
        """Return the patches of all images of a batch, shape (B, C, *patch_size); what is no image stays."""
        whole = {k: v.to(device, non_blocking=non_blocking) for k, v in batchdata.items() if isinstance(v, Tensor)}
        unknown = (whole["organ"] == UNKNOWN).flatten(1).all(1)
        if unknown.any():
            whole["organ"] = whole["organ"].clone()
            whole["organ"][unknown] = self.find_organ(whole["image"][unknown])
        corners = [self._corner(mask[0] > 0) for mask in whole["organ"]]

        def cropped(slices: Tensor, beyond: float) -> Tensor:
            return torch.stack([crop(x, c, self.patch_size, beyond) for x, c in zip(slices, corners, strict=True)])

        images = {key: x for key, x in whole.items() if x.ndim == 4}
        found = whole | {key: cropped(x, self.background if key == "image" else 0.0) for key, x in images.items()}
        if self.only_organ:
            found["image"] = torch.where(found["organ"] > 0, found["image"], self.background)
        return found

    def find_organ(self, image: Tensor) -> Tensor:
        """Return where the organ part sees the organ, 0 or 1."""
        if self.organ_network is None:
            raise ValueError("expected an organ mask for each case, as there is no network that finds it; got none.")
        with eval_mode(self.organ_network):
            found = self.organ_network(image) > 0
        return torch.stack([right_part(mask, self.right_share) for mask in found]).float()

    def _corner(self, organ: Tensor) -> list[int]:
        """Return the corner of a patch whose centre is the organ's, or the image's if there is no organ."""
        corner = []
        for axis, patch in enumerate(self.patch_size):
            seen = organ.any(1 - axis).nonzero().flatten()
            centre = (seen[0] + seen[-1] + 1).item() / 2 if len(seen) else organ.shape[axis] / 2
            shift = int(torch.randint(-self.jitter, self.jitter + 1, ())) if self.jitter else 0
            corner.append(round(centre - patch / 2) + shift)
        return corner


class TranslationPrepareBatch(PatchPrepareBatch):
    """Images in [-1, 1] with their classes, for ``CycleInferer``; the targets are those of ``WassersteinLoss``."""

    def prepare(self, patches: Mapping[str, Tensor]) -> tuple:
        """Return images, targets, and what the inferer wants: the classes."""
        image, classes = to_symmetric(patches["image"]), _classes(patches)
        return image, {"image": image, "class": classes}, (), {"classes": classes}


class SegmentationPrepareBatch(PatchPrepareBatch):
    """The patch of the image is the input, that of the label the target, 0 or 1 in each of its channels."""

    def prepare(self, patches: Mapping[str, Tensor]) -> tuple:
        """Return images and masks."""
        return patches["image"], TARGETS["label"](patches)


class NoisyPrepareBatch(PatchPrepareBatch):
    """Draw timestep and noise for each patch: for MONAI's ``DiffusionInferer`` or ``NoisyInferer``.

    Args:
        num_train_timesteps: T.
        target: what the network learns, one of ``TARGETS``.
        with_classes: the inferer is also given ``class_labels``, as class-conditional networks want them.
        conditioned: what is noised is the ``label``, 0 or 1 in each of its channels; the inferer is given the image as
            ``condition``.
        fixed: the same noise in every batch and timesteps spread over all that there are, so that validation losses of
            two epochs can be compared.
        timesteps: that are drawn, increasing; all of [0, T - 1] by default. Those that a sampler of few steps makes
            leave the network nothing else to learn. Source: Jiang et al. 2024, "Fast-DDPM".
        options: see ``PatchPrepareBatch``.

    Raises:
        ValueError: if ``target`` is none of ``TARGETS``.
    """

    def __init__(
        self,
        num_train_timesteps: int,
        target: str = "noise",
        with_classes: bool = False,
        conditioned: bool = False,
        fixed: bool = False,
        timesteps: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}.")
        self.timesteps = torch.tensor(range(num_train_timesteps) if timesteps is None else timesteps)
        self.fixed = fixed
        self.target, self.with_classes, self.conditioned = TARGETS[target], with_classes, conditioned

    def prepare(self, patches: Mapping[str, Tensor]) -> tuple:
        """Return images, the target, and what the inferer wants: noise and timesteps."""
        given = {}
        if self.conditioned:
            given = {"condition": patches["image"]}
            patches = {**patches, "image": (patches["label"] > 0).to(patches["image"])}
        image = patches["image"]
        drawn = noise_and_timesteps(image, self.timesteps, self.fixed)
        if self.with_classes:
            given["class_labels"] = _classes(patches)
        return image, self.target({**patches, **drawn}), (), {**drawn, **given}


class RecycledPrepareBatch(NoisyPrepareBatch):
    """Noise what the network itself takes for the mask, in place of the mask, so that it learns to undo its own errors.

    The network is asked for the mask at a later timestep, without a gradient. The target is the noise that would have
    made the same x_t of the true mask.

    Source: Fu et al. 2023, "A Recycling Training Strategy for Medical Image Segmentation with Diffusion Denoising
    Models", MELBA 2023:016, section 3.2, whose network predicts the mask where this one predicts the noise.

    Args:
        network: that is trained, of the noise, perhaps with its variance behind it.
        inferer: that calls it, a ``NoisyInferer``.
        options: see ``NoisyPrepareBatch``.
    """

    def __init__(self, network: nn.Module, inferer: Any, **options: Any) -> None:
        super().__init__(**options)
        self.network, self.inferer = network, inferer

    def prepare(self, patches: Mapping[str, Tensor]) -> tuple:
        """Return masks that the network has found, the target, and noise and timesteps for the inferer."""
        mask, target, args, given = super().prepare(patches)
        schedule, noise = self.inferer.schedule, torch.randn(mask.shape).to(mask)
        later = self.later_than(given["timesteps"])
        with eval_mode(self.network):
            epsilon = self.inferer(mask, self.network, **{**given, "noise": noise, "timesteps": later})
        noisy = schedule.add_noise(mask, noise, later)
        found = schedule.predict_x_0(noisy, epsilon[:, : mask.shape[1]], later).clamp(0, 1)
        x_t = schedule.add_noise(found, given["noise"], given["timesteps"])
        return found, {**target, "noise": schedule.noise_in(x_t, mask, given["timesteps"])}, args, given

    def later_than(self, timesteps: Tensor) -> Tensor:
        """Return for each timestep one of those behind it, the last one for itself."""
        places = torch.searchsorted(self.timesteps, timesteps.cpu())
        behind = len(self.timesteps) - 1 - places
        further = 1 + (torch.rand(len(places)) * behind).long()
        return self.timesteps[(places + further).clamp(max=len(self.timesteps) - 1)].to(timesteps.device)


class LatentPrepareBatch(PrepareBatch):
    """Encode patches that show tumours, and draw timestep and noise for each: for ``NoisyInferer``.

    Args:
        autoencoder: a ``VQGAN``, which is left as it is.
        num_train_timesteps: T.
        mask_mode: see ``VQGAN.condition``.
        fixed: see ``NoisyPrepareBatch``.
    """

    def __init__(
        self, autoencoder: nn.Module, num_train_timesteps: int, mask_mode: str = "area", fixed: bool = False
    ) -> None:
        self.autoencoder, self.timesteps = autoencoder, torch.arange(num_train_timesteps)
        self.mask_mode, self.fixed = mask_mode, fixed

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Return latent images, the target, and what the inferer wants: noise, timesteps and the condition."""
        image, label = (batchdata[key].to(device, non_blocking=non_blocking) for key in ("image", "label"))
        tumours, autoencoder = (label > 0).to(image), self.autoencoder
        with eval_mode(autoencoder):
            latent = autoencoder.encode(image)  # type: ignore[operator]
            condition = autoencoder.condition(image, tumours, self.mask_mode)  # type: ignore[operator]
        drawn = noise_and_timesteps(latent, self.timesteps, self.fixed)
        return latent, TARGETS["noise"]({"image": latent, **drawn}), (), {**drawn, "condition": condition}


def noise_and_timesteps(image: Tensor, choices: Tensor, fixed: bool) -> dict[str, Tensor]:
    """Return ``noise`` of the shape of images, and ``timesteps``, shape (B,), see ``NoisyPrepareBatch``."""
    # Drawn on the CPU, so that a run on a GPU sees the same noise.
    generator = torch.Generator().manual_seed(0) if fixed else None
    noise = torch.randn(image.shape, generator=generator).to(image)
    if fixed:
        places = ((torch.arange(len(image)) + 0.5) * len(choices) / len(image)).long()
    else:
        places = torch.randint(0, len(choices), (len(image),))
    return {"noise": noise, "timesteps": choices[places].to(image.device)}


def _classes(patches: Mapping[str, Tensor]) -> Tensor:
    """Return 1 for diseased slices and 0 for healthy ones, int64, shape (B,)."""
    return (patches["slice_class"] > 0).flatten(1).any(1).long()


def _lesion_ratio(patches: Mapping[str, Tensor]) -> Tensor:
    """Return which share of the organ in the patch is lesion, shape (B, 1)."""
    lesion, organ = ((patches[key] > 0).flatten(1).sum(1, keepdim=True) for key in ("label", "organ"))
    return (lesion / organ.clamp(min=1)).to(patches["image"])


TARGETS: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
    "noise": lambda patches: {key: patches[key] for key in ("image", "noise", "timesteps")},
    "class": _classes,
    "ratio": _lesion_ratio,
    "label": lambda patches: (patches["label"] > 0).to(patches["image"]),
    "class and site": lambda patches: patches["label"],
}
"""What networks learn of noisy slices: the noise, as ``HybridVLBLoss`` wants it; healthy or diseased; which share of
the organ is lesion; where the lesions are; class and site as ``ClassAndSited`` has put them into ``label``."""


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

    def prepare(self, patches: Mapping[str, Tensor]) -> tuple:
        """Return noisy patches and clean ones."""
        image = patches["image"]
        coarse = torch.randn(*image.shape[:2], *self.noise_size).to(image)
        noise = F.interpolate(coarse, size=image.shape[2:], mode="bilinear", align_corners=False)
        return image + self.noise_std * noise, image


class HolePrepareBatch(PatchPrepareBatch):
    """Cut random ellipses out of the organ; the target is what was there, for ``HoleLoss``.

    Args:
        max_holes: see ``random_ellipses``.
        half_axes: the same.
        fixed: the same holes in every epoch, for validation.
        options: see ``PatchPrepareBatch``.
    """

    def __init__(
        self, max_holes: int = 12, half_axes: Sequence[float] = (2.0, 9.0), fixed: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.max_holes, self.half_axes, self.fixed = max_holes, half_axes, fixed

    def prepare(self, patches: Mapping[str, Tensor]) -> tuple:
        """Return what a network is shown, and how far pixels are from the organ's median behind where holes are."""
        image, organ = patches["image"], patches["organ"] > 0
        generator = torch.Generator().manual_seed(0) if self.fixed else None
        hole, median = random_ellipses(organ, self.max_holes, self.half_axes, generator), organ_medians(image, organ)
        return shown_with_holes(image, hole, organ, median), torch.cat([image - median, hole.to(image)], dim=1)
