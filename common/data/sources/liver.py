"""CT of the liver, and CT in NIfTI or DICOM: where the cases lie, and what their masks mean."""

import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ...files import BadFileError
from ..checks import check_same_grid, refuse_other_values
from ..dicom import patient_of, read_series, series_in
from ..listing import MASK_SUFFIXES
from .scans import Channel, Scan, Volume, annotated_ct, by_name, decathlon, not_empty, read_ct, some

ORGAN = "liver"

IRCAD_IN_LITS = range(28, 48)
"""Training volumes of LiTS that are the scans of 3D-IRCADb-01: from memory of the data set's documentation."""

MAX_UNPACKED = 16 * 2**30
"""Bytes that a zip file of 3D-IRCADb-01 may unpack to: a hundred masks, as 300 slices of 512 x 512 have 0.15 GiB."""


def find_lits(src: Path, exclude_ircad: bool = False) -> list[Scan]:
    """Return the training cases of LiTS: ``volume-<n>.nii[.gz]`` and ``segmentation-<n>.nii[.gz]`` in any folders.

    The segmentation is 1 in the liver and 2 in tumours. Volumes 28 to 47 have an identity affine instead of their voxel
    sizes (https://github.com/PatrickChrist/LITS-CHALLENGE/issues/14).

    Args:
        src: the folder they lie in, at any depth.
        exclude_ircad: leave out ``IRCAD_IN_LITS``, so that 3D-IRCADb-01 can be a test set.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if two files have the same name.
    """
    files = by_name([*src.rglob("volume-*"), *src.rglob("segmentation-*")])
    numbers = {int(name.partition("-")[2]) for name in files if re.fullmatch(r"(volume|segmentation)-\d+", name)}
    scans = []
    for n in sorted(numbers - set(IRCAD_IN_LITS if exclude_ircad else ())):
        volume, segmentation = (files.get(f"{k}-{n}", src / f"{k}-{n}.nii") for k in ("volume", "segmentation"))
        scans.append(annotated_ct(f"volume-{n}", volume, segmentation, ORGAN))
    return some(scans, src, "volume-<n>.nii and segmentation-<n>.nii")


def find_msd_liver(src: Path) -> list[Scan]:
    """Return the training cases of the Medical Segmentation Decathlon's Task03_Liver.

    The label is 1 in the liver and 2 in cancer.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if two files have the same name.
    """
    return [annotated_ct(case, image, labels, ORGAN) for case, image, labels in decathlon(src)]


def find_ircad(src: Path) -> list[Scan]:
    """Return the patients of 3D-IRCADb-01: folders with ``PATIENT_DICOM`` and ``MASKS_DICOM``, or their zip files.

    All ``livertumor*`` masks of a patient are joined. Other lesions are no tumours of the liver and stay out: cysts
    (``liverkyst``), the adrenal ``tumor`` of patient 7, ``leftsurretumor`` of patient 5. Five patients have none.

    Raises:
        FileNotFoundError: if there is none.
    """
    # Unpacking a zip file into a folder of its name gives PATIENT_DICOM/PATIENT_DICOM.
    found = [path for path in src.rglob("PATIENT_DICOM*") if path.name in ("PATIENT_DICOM", "PATIENT_DICOM.zip")]
    folders = sorted({path.parent for path in found if path.parent.name != "PATIENT_DICOM"})
    scans = []
    for folder in folders:
        name = folder.resolve().name
        scans.append(Scan(name, name, partial(_read_ircad, folder)))
    return some(scans, src, "3Dircadb1.<n>/PATIENT_DICOM and MASKS_DICOM")


def find_nifti(src: Path) -> list[Scan]:
    """Return the NIfTI files of a folder; ``<case>_liver`` or ``_organ`` and ``<case>_label`` are a case's masks.

    Each file is taken for a patient of its own.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if two files have the same name.
    """
    files = by_name(src.glob("*"))
    scans = []
    for case in sorted({re.sub(f"({'|'.join(MASK_SUFFIXES)})$", "", name) for name in files}):
        image = files.get(case, src / f"{case}.nii.gz")
        organ = files.get(f"{case}_liver") or files.get(f"{case}_organ")
        scans.append(Scan(case, case, partial(_read_with_masks, image, organ, files.get(f"{case}_label"))))
    return some(scans, src, "<case>.nii.gz")


def find_dicom(src: Path) -> list[Scan]:
    """Return the DICOM series in a folder and in all folders below it.

    A case is called as its folder, with SeriesInstanceUID added where the folder holds several. Its patient is a
    pseudonym made from PatientID, or the case where there is none.

    Raises:
        FileNotFoundError: if there is none.
        ImportError: if pydicom is missing or too old.
    """
    scans = []
    for folder in [path for path in (src, *sorted(src.rglob("*"))) if path.is_dir()]:
        name = "_".join(folder.relative_to(src).parts) or src.resolve().name
        try:
            series = series_in(folder)
            for uid, files in series.items():
                case = name if len(series) == 1 else f"{name}_{uid}"
                scans.append(Scan(case, patient_of(files[0]) or case, partial(_read_dicom, files)))
        except BadFileError as error:
            scans.append(Scan(name, name, partial(_fail, error)))
    return some(scans, src, "DICOM series")


def _read_with_masks(image: Path, organ: Path | None, label: Path | None) -> Volume:
    """Read a CT with a mask of the organ and one of the lesions, if there are any."""
    voxels, affine = read_ct(image)

    def drawn(path: Path) -> NDArray[np.bool_]:
        values = check_same_grid(voxels.shape, affine, path, image)
        refuse_other_values(values, (0, 1), path)
        return values > 0

    lesions = None if label is None else drawn(label)
    liver = None if organ is None else not_empty(drawn(organ), ORGAN, organ)
    if liver is not None and lesions is not None:
        liver |= lesions
    return Volume((Channel(voxels, image),), affine, liver, lesions)


def _read_dicom(files: Sequence[Path]) -> Volume:
    voxels, affine = read_series(files)
    return Volume((Channel(voxels),), affine)


def _read_ircad(folder: Path) -> Volume:
    with TemporaryDirectory() as temporary:
        try:
            patient, masks = (_unpacked(folder, name, Path(temporary)) for name in ("PATIENT_DICOM", "MASKS_DICOM"))
            return _read_ircad_folders(patient, masks)
        except BadFileError as error:
            raise BadFileError(str(error).replace(temporary, str(folder))) from error


def _read_ircad_folders(patient: Path, masks: Path) -> Volume:
    image = next((path.parent for path in sorted(patient.rglob("image_*"))), patient)
    voxels, affine = read_series(image)

    def joined(folders: Iterable[Path]) -> NDArray[np.bool_]:
        union = np.zeros(voxels.shape, dtype=bool)
        for folder in folders:
            values, mask_affine = read_series(folder, hu=False)
            if values.shape != voxels.shape or not np.allclose(mask_affine, affine, atol=1e-2):
                raise BadFileError(
                    f"{folder}: expected the grid of {image}, shape {voxels.shape} and affine {affine.tolist()}, "
                    f"got {values.shape} and {mask_affine.tolist()}."
                )
            refuse_other_values(values, (0, 1, 255), folder)
            union |= values > 0
        return union

    folders = [path for path in sorted(masks.rglob("liver*")) if path.is_dir()]
    liver = [folder for folder in folders if folder.name == "liver"]
    if not liver:
        raise BadFileError(f"{masks / 'liver'}: expected a mask of the liver, got none.")
    label = joined(folder for folder in folders if folder.name.startswith("livertumor"))
    return Volume((Channel(voxels),), affine, not_empty(joined(liver) | label, ORGAN, liver[0]), label)


def _unpacked(folder: Path, name: str, temporary: Path) -> Path:
    """Return a folder of a patient; if it is a zip file, unpacked, of the masks only those of the liver."""
    if (folder / name).is_dir():
        return folder / name
    archive = folder / f"{name}.zip"
    if not archive.is_file():
        raise BadFileError(f"{folder / name}: expected a folder or a zip file, got none there.")
    try:
        with zipfile.ZipFile(archive) as file:
            members = [
                member
                for member in file.infolist()
                if not member.filename.startswith("__MACOSX")
                and (name == "PATIENT_DICOM" or "/liver" in f"/{member.filename}")
            ]
            _refuse_hostile(archive, members)
            file.extractall(temporary / name, members)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise BadFileError(f"{archive}: expected a readable zip file, got a damaged one ({error}).") from error
    return temporary / name


def _refuse_hostile(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise for what would fill the disk, lie elsewhere or need a password.

    No more of a member is unpacked than the size that it states.
    """
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED:
        raise BadFileError(f"{archive}: expected at most {MAX_UNPACKED} bytes unpacked, got {unpacked}.")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise BadFileError(f"{archive}: expected files below its own folder, got {member.filename}.")
        if member.flag_bits & 1:
            raise BadFileError(f"{archive}: expected a zip file without a password, got {member.filename} with one.")


def _fail(error: BadFileError) -> NoReturn:
    raise error
