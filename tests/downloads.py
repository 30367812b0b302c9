"""Tiny data sets of brain, pancreas, abdomen and chest, laid out and named as they are downloaded."""

import csv
import json

import nibabel as nib
import numpy as np
from PIL import Image

from ci.dicom_series import write_series

SHAPE = (6, 5, 4)
AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
SEQUENCES = ("t1", "t1ce", "t2", "flair")
MODALITY = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
COLUMNS = [
    *("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly"),
    *("Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
]


def save(voxels, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def leave_macos_file(path):
    """Leave what macOS puts beside a file into an archive."""
    (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7 macOS")


def sequences(seed=0):
    """Return four sequences of a head whose brain is in the middle, one value each, float32."""
    brain = np.zeros(SHAPE, np.float32)
    brain[1:5, 1:4, :3] = np.random.default_rng(seed).integers(100, 200, (4, 3, 3))
    return {sequence: brain + 1000 * i * (brain > 0) for i, sequence in enumerate(SEQUENCES)}


def tumour(core=1, oedema=2, enhancing=4):
    """Return a segmentation with a voxel of each part, in one slice."""
    segmentation = np.zeros(SHAPE, np.uint8)
    segmentation[1:4, 2, 1] = core, oedema, enhancing
    return segmentation


def write_brats(folder, case, endings, extension=".nii.gz", segmentation=None):
    """Write a case in a folder of its name.

    Args:
        folder: of all cases.
        case: its name.
        endings: of the names of t1, t1ce, t2, flair and the segmentation.
        extension: of all names.
        segmentation: without it there is none.
    """
    files = {}
    for ending, (sequence, voxels) in zip(endings, sequences().items(), strict=False):
        files[sequence] = save(voxels.astype(np.int16), folder / case / f"{case}{ending}{extension}")
    if segmentation is not None:
        files["seg"] = save(segmentation, folder / case / f"{case}{endings[4]}{extension}")
    return files


def write_brats_2020(src, number, part="Training", segmentation=None):
    endings = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
    if segmentation is None and part == "Training":
        segmentation = tumour()
    folder = src / f"MICCAI_BraTS2020_{part}Data"
    return write_brats(folder, f"BraTS20_{part}_{number:03}", endings, ".nii", segmentation)


def write_brats_2021(src, number, segmentation=None):
    return write_brats(
        src, f"BraTS2021_{number:05}", ("_t1", "_t1ce", "_t2", "_flair", "_seg"), ".nii.gz", segmentation
    )


def write_brats_2023(src, number, time_point=0, segmentation=None):
    endings = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")
    folder = src / "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData"
    return write_brats(folder, f"BraTS-GLI-{number:05}-{time_point:03}", endings, ".nii.gz", segmentation)


def write_msd_brain(src, numbers=(1,), modality=MODALITY):
    """Write cases of four sequences in a file, in the order of a modality; without one there is no ``dataset.json``."""
    names = {"FLAIR": "flair", "T1w": "t1", "t1gd": "t1ce", "T2w": "t2"}
    order = [names[(modality or MODALITY)[str(i)]] for i in range(len(SEQUENCES))]
    if modality is not None:
        src.mkdir(parents=True, exist_ok=True)
        (src / "dataset.json").write_text(json.dumps({"name": "BRATS", "modality": modality}))
    for number in numbers:
        voxels = sequences(number)
        stacked = np.stack([voxels[sequence] for sequence in order], -1)
        leave_macos_file(save(stacked, src / "imagesTr" / f"BRATS_{number:03}.nii.gz"))
        leave_macos_file(save(tumour(2, 1, 3), src / "labelsTr" / f"BRATS_{number:03}.nii.gz"))
    save(stacked, src / "imagesTs" / "BRATS_485.nii.gz")
    return src


def write_msd_pancreas(src, numbers=(1,)):
    for number in numbers:
        ct = np.random.default_rng(number).integers(-1000, 400, SHAPE).astype(np.int16)
        leave_macos_file(save(ct, src / "imagesTr" / f"pancreas_{number:03}.nii.gz"))
        labels = np.zeros(SHAPE, np.uint8)
        labels[1:5, 1:3, 1:3], labels[2, 2, 1] = 1, 2
        leave_macos_file(save(labels, src / "labelsTr" / f"pancreas_{number:03}.nii.gz"))
    return src


def write_kits(src, number=0, labels=None):
    """Write a case of KiTS: kidneys of 1, a tumour of 2 and a cyst of 3."""
    folder = src / "dataset" / f"case_{number:05}"
    save(np.random.default_rng(number).integers(-1000, 400, SHAPE).astype(np.int16), folder / "imaging.nii.gz")
    if labels is None:
        labels = np.zeros(SHAPE, np.uint8)
        labels[1:5, 1:3, 1:3], labels[2, 2, 1], labels[3, 2, 1] = 1, 2, 3
    save(labels, folder / "segmentation.nii.gz")
    return src


def film(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (12, 10)).astype(np.uint8)


def write_chexpert(src, rows, table="train", name="CheXpert-v1.0-small", pixels=film):
    """Write a table and its films.

    Args:
        src: the folder with ``train.csv``.
        rows: for each film its path below ``train``, and the columns that are not blank.
        table: ``train`` or ``valid``.
        name: that paths begin with.
        pixels: gives the film of each row.
    """
    src.mkdir(parents=True, exist_ok=True)
    with open(src / f"{table}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for i, (path, marks) in enumerate(rows.items()):
            view = {"Frontal/Lateral": "Lateral" if "lateral" in path else "Frontal", "Sex": "Female", "Age": 68}
            writer.writerow({"Path": f"{name}/{table}/{path}", **view, **marks})
            (src / table / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(i)).save(src / table / path)
    return src


def write_kaggle_3m(src, case, num_slices=11, absent=(), size=(12, 10), brain=True):
    """Write a patient of kaggle_3m, and the mask of the brain in the folder ``brains`` beside it.

    Args:
        src: the folder with ``kaggle_3m``.
        case: as ``TCGA_CS_4941_19960909``.
        num_slices: from 1.
        absent: channels that are copies of FLAIR.
        size: rows and columns.
        brain: whether there is a mask.
    """
    folder = src / "kaggle_3m" / case
    folder.mkdir(parents=True)
    random = np.random.default_rng(len(case))
    for number in range(1, num_slices + 1):
        pixels = random.integers(1, 200, (*size, 3)).astype(np.uint8)
        pixels[..., 1] = 10 * number
        for channel in absent:
            pixels[..., channel] = pixels[..., 1]
        Image.fromarray(pixels).save(folder / f"{case}_{number}.tif")
        label = np.zeros(size, np.uint8)
        label[2:5, 3:7] = 255 * (number == 4)
        Image.fromarray(label).save(folder / f"{case}_{number}_mask.tif")
    if brain:
        mask = np.zeros((*size[::-1], num_slices), np.uint8)
        mask[2:-2, 3:-2] = 1
        (src / "brains").mkdir(exist_ok=True)
        save(mask, src / "brains" / f"{case}.nii.gz", affine=np.diag([-0.9375, -0.9375, 5, 1]))
    return src / "kaggle_3m"


def write_nih(src, rows, pixels=film):
    """Write the table of ChestX-ray14 and its films.

    Args:
        src: the folder with ``Data_Entry_2017.csv``.
        rows: for each film, by its name, findings and view.
        pixels: gives the film of each row.
    """
    (src / "images_001" / "images").mkdir(parents=True, exist_ok=True)
    with open(src / "Data_Entry_2017.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "View Position"])
        for i, (name, (findings, view)) in enumerate(rows.items()):
            writer.writerow([name, findings, 0, int(name[:8]), view])
            Image.fromarray(pixels(i)).save(src / "images_001" / "images" / name)
    return src


def write_chaos(src, case, labels=None, voxels=None, affine=AFFINE):
    """Write a case of CHAOS: DICOM slices of T2-SPIR, and PNG images of the same names with the labels.

    Args:
        src: folder of all cases.
        case: its number.
        labels: grey levels, uint8, shape (X, Y, Z); without it there are none.
        voxels: of the image, uint16.
        affine: of both.
    """
    folder = src / "Train_Sets" / "MR" / str(case) / "T2SPIR"
    shape = SHAPE if labels is None else labels.shape
    voxels = np.random.default_rng(case).integers(1, 900, shape).astype(np.uint16) if voxels is None else voxels
    files = write_series(folder / "DICOM_anon", voxels, affine, name="IMG-0004-{:05}.dcm", Modality="MR", hu=False)
    if labels is not None:
        (folder / "Ground").mkdir()
        for k, file in enumerate(files):
            Image.fromarray(labels[:, :, k].T).save(folder / "Ground" / f"{file.stem}.png")
    return folder
