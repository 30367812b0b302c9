"""Organs and their tumours segmented in CT volumes."""

from collections.abc import Sequence
from math import prod

import torch
from monai.inferers import SlidingWindowInferer
from monai.utils import convert_to_numpy
from torch import Tensor, nn

from ..progress import bar
from ..transforms.grid import resample_volume, size_along
from ..transforms.intensity import scale_hu
from .models import finite
from .slices import PatchwiseInferer, image_and_organ, largest_without_holes


class TumourSegmentationInferer(PatchwiseInferer):
    """Segment an organ and its tumours with a network of three classes: background, organ, tumour.

    Where a mask of the organ is given, the network looks at the box around it alone, and tumours lie within it.

    Args:
        voxel_mm: of the network's grid.
        patch_size: of the network's input; it slides.
        window: HU at -1 and 1 for the network.
        overlap: share of a patch that its neighbour sees too.
        threshold: of the probability of tumour in the mask.
        part: name of the network in the container.
        slice_batch_size: patches in a batch.
        amp: bfloat16 autocast.
        progress: show a progress bar for each image.

    Raises:
        ValueError: if there is nothing to do, or ``overlap`` is no share.
    """

    channels = ("probability", "labels", "mask", "organ")
    """Probability of tumour; 1 in the organ and 2 in its tumours; 1 in tumours; 1 in the organ with them."""

    def __init__(
        self,
        *,
        voxel_mm: Sequence[float],
        patch_size: Sequence[int],
        window: Sequence[float],
        overlap: float = 0.5,
        threshold: float = 0.5,
        part: str = "segmenter",
        slice_batch_size: int = 4,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(patch_size=patch_size, slice_batch_size=slice_batch_size, amp=amp, progress=progress)
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must lie in [0, 1), got {overlap}.")
        self.voxel_mm, self.window, self.overlap, self.threshold, self.part = voxel_mm, window, overlap, threshold, part
        self.slide = SlidingWindowInferer(patch_size, slice_batch_size, overlap, mode="gaussian", cval=-1.0)

    def examine(self, volume: Tensor, size_mm: tuple[float, ...], network: nn.Module) -> Tensor:
        """Return the ``channels`` of one volume.

        Args:
            volume: HU, then perhaps the organ's mask, shape (C, X, Y, Z).
            size_mm: of its voxels.
            network: the container.

        Raises:
            ValueError: for a single slice, other channels, or where the organ's mask is empty, or none is found.
        """
        image, given = image_and_organ(volume)
        if given is not None and not given.any():
            raise ValueError("there is no organ to search: its mask is empty.")
        size = volume.shape[1:]
        grid = size_along(size, size_mm, self.voxel_mm)
        coarse = scale_hu(resample_volume(image, grid), self.window)
        box = (slice(None),) * 4 if given is None else _box_of(resample_volume(given.float(), grid) > 0)
        classes = coarse.new_zeros(3, *grid)
        classes[box] = self.classes(coarse[box], network)
        tumour, organ = (resample_volume(p, size) for p in (classes[2:], classes[1:].sum(0, keepdim=True)))
        if given is None:
            found = largest_without_holes(convert_to_numpy(organ[0] > 0.5))
            given = torch.from_numpy(found)[None].to(volume.device)
            if not given.any():
                raise ValueError("expected a CT that shows the organ, but the network found none: give a mask of it.")
        tumour = torch.where(given, tumour, 0.0)
        mask = tumour > self.threshold
        return torch.cat([tumour, given.float() + mask, mask, given])

    def classes(self, image: Tensor, network: nn.Module) -> Tensor:
        """Return the probability of each class, shape (3, X, Y, Z), for an image of shape (1, X, Y, Z)."""
        segmenter = network.get_submodule(self.part)
        total = -(-self.num_windows(image.shape[1:]) // self.slice_batch_size)
        with (
            bar(total=total, shown=self.progress) as done,
            torch.autocast(image.device.type, torch.bfloat16, enabled=self.amp),
        ):

            def counted(patches: Tensor) -> Tensor:
                logits: Tensor = segmenter(patches)
                done.update()
                return logits

            logits = self.slide(image[None], counted)
        return finite(torch.as_tensor(logits).float())[0].softmax(0)

    def num_windows(self, size: Sequence[int]) -> int:
        """Return at how many places the patch is looked at in an image of a size."""
        steps = [max(int(patch * (1 - self.overlap)), 1) for patch in self.patch_size]
        return prod(
            1 + -(-max(n - patch, 0) // step) for n, patch, step in zip(size, self.patch_size, steps, strict=True)
        )


def _box_of(mask: Tensor) -> tuple[slice, ...]:
    """Return the box around a mask, shape (1, X, Y, Z)."""
    inside = mask[0].nonzero()
    low, high = inside.amin(0).tolist(), inside.amax(0).tolist()
    return (slice(None), *(slice(first, last + 1) for first, last in zip(low, high, strict=True)))
