"""Writes the DICOM series that tests read."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
INTERCEPT = -1024


def write_series(folder, voxels, affine, uid="1.2.3", compression=None, name="image_{}", hu=True, **tags):
    """Write a volume (X, Y, Z) with its RAS affine as a series, one file a slice, and return the files.

    Values are stored as uint16 with RescaleIntercept, or as they are in uint8 and without ``hu``. Names tell nothing
    about the order.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    x_step, y_step, z_step, origin = (LPS @ affine)[:3].T
    spacing = np.linalg.norm(x_step), np.linalg.norm(y_step)
    files = []
    for k in range(voxels.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{uid}.{k + 1}"
        data.SeriesInstanceUID, data.StudyInstanceUID = uid, "1.2"
        data.Modality, data.PatientID, data.ImageType = "CT", "", ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImageOrientationPatient = [f"{c:.9f}" for c in (*(x_step / spacing[0]), *(y_step / spacing[1]))]
        data.ImagePositionPatient = [f"{c:.6f}" for c in origin + k * z_step]
        data.PixelSpacing = [f"{spacing[1]:.9f}", f"{spacing[0]:.9f}"]
        data.SliceThickness = f"{np.linalg.norm(z_step):.6f}"
        rescaled = hu and voxels.dtype != np.uint8
        if rescaled:
            data.RescaleSlope, data.RescaleIntercept = 1, INTERCEPT
        pixels = voxels[:, :, k].T
        _set_pixels(data, (pixels - INTERCEPT).astype(np.uint16) if rescaled else pixels)
        for keyword, value in tags.items():
            setattr(data, keyword, value)
        if compression is not None:
            data.compress(compression, generate_instance_uid=False)
        path = folder / name.format((k * 7 + 3) % 1009)
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _set_pixels(data, pixels):
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit = data.BitsStored - 1
    content = np.ascontiguousarray(pixels).tobytes()
    data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
