"""Make a CT as large as scanners write them: ``python -m ci.large_ct --src ct.nii.gz --dst large.nii.gz``."""

from pathlib import Path

import fire
import nibabel as nib
import numpy as np
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, ResizeWithPadOrCrop, Spacing

AIR = -1000


def large_ct(
    src: str, dst: str, pixel_mm: float = 0.7, pixels: int = 512, slices: int = 300, mask: bool = False
) -> None:
    """Write a volume of many slices: smaller pixels, air around them, and the slices up and down again.

    Args:
        src: CT, or a mask on its grid.
        dst: NIfTI that is written.
        pixel_mm: of its slices.
        pixels: along both sides of a slice.
        slices: of the volume.
        mask: it is no image but numbers of organs.
    """
    grow = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Orientation(axcodes="RAS", labels=None),
            Spacing(pixdim=(pixel_mm, pixel_mm, -1.0), mode="nearest" if mask else "bilinear", padding_mode="border"),
            ResizeWithPadOrCrop((pixels, pixels, -1), constant_values=0 if mask else AIR),
        ]
    )
    image = grow(src)
    voxels = np.asarray(image[0])
    stacked = np.pad(voxels, [(0, 0), (0, 0), (0, max(0, slices - voxels.shape[2]))], mode="symmetric")[..., :slices]
    Path(dst).parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(stacked.round().astype(np.int16), np.asarray(image.affine)), dst)
    print(f"{dst}: {' x '.join(map(str, stacked.shape))} voxels")


if __name__ == "__main__":
    fire.Fire(large_ct)
