"""Writes DICOM series to be read."""

from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import
from numpy.typing import NDArray

pydicom, _ = optional_import("pydicom")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
INTERCEPT = -1024


def write_series(
    folder: str | Path,
    voxels: NDArray[Any],
    affine: NDArray[np.float64],
    uid: str = "1.2.3",
    compression: str | None = None,
    name: str = "image_{}",
    hu: bool = True,
    **tags: Any,
) -> list[Path]:
    """Write a volume as a series, one file a slice, and return the files; their names tell nothing about the order.

    Args:
        folder: made if it is not there.
        voxels: shape (X, Y, Z), stored as uint16 with RescaleIntercept, or as they are in uint8 and without ``hu``.
        affine: voxel to world in mm, RAS.
        uid: of the series.
        compression: UID of a transfer syntax.
        name: of a file, with the place of a number.
        hu: say how Hounsfield units are made of what is stored.
        tags: of every slice, by keyword.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    steps = (LPS @ affine)[:3]
    files = []
    for k in range(voxels.shape[2]):
        data = _slice(f"{uid}.{k + 1}", steps, k)
        data.SeriesInstanceUID = uid
        rescaled = hu and voxels.dtype != np.uint8
        if rescaled:
            data.RescaleSlope, data.RescaleIntercept = 1, INTERCEPT
        pixels = voxels[:, :, k].T
        set_pixels(data, (pixels - INTERCEPT).astype(np.uint16) if rescaled else pixels)
        for keyword, value in tags.items():
            setattr(data, keyword, value)
        if compression is not None:
            data.compress(compression, generate_instance_uid=False)
        path = folder / name.format((k * 7 + 3) % 1009)
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def set_pixels(data: Any, pixels: NDArray[Any]) -> None:
    """Let a data set hold pixels of whole numbers without sign, rows first."""
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit = data.BitsStored - 1
    content = np.ascontiguousarray(pixels).tobytes()
    data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"


def _slice(uid: str, steps: NDArray[np.float64], k: int) -> Any:
    """Return a CT slice without pixels: the k-th along columns x, y, z and origin of ``steps``, mm, LPS."""
    x_step, y_step, z_step, origin = steps.T
    spacing = np.linalg.norm(x_step), np.linalg.norm(y_step)
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
    data.StudyInstanceUID = "1.2"
    data.Modality, data.PatientID, data.ImageType = "CT", "", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.ImageOrientationPatient = [f"{c:.9f}" for c in (*(x_step / spacing[0]), *(y_step / spacing[1]))]
    data.ImagePositionPatient = [f"{c:.6f}" for c in origin + k * z_step]
    data.PixelSpacing = [f"{spacing[1]:.9f}", f"{spacing[0]:.9f}"]
    data.SliceThickness = f"{np.linalg.norm(z_step):.6f}"
    return data
