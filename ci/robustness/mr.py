"""Odd MR of the brain: sequences, their names and their order."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import from_matvec
from numpy.typing import NDArray

from common.sequences import SEQUENCES

from ..dicom_series import write_series
from .ct import TURN, UNREADABLE, moved
from .inputs import Scan, Writer, content, damaged, nifti, phantom, refused, right, several, warned

MR = phantom("brain_mr", (44, 52, 4), (4.5, 4.0, 6.0))
AFFINE = MR.affine
OBLIQUE = from_matvec(TURN @ AFFINE[:3, :3], AFFINE[:3, 3])
MSD = ("flair", "t1", "t1ce", "t2")
MSD_WORDS = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
"""The order of MSD Task01_BrainTumour, and what its ``dataset.json`` calls them."""

NAMES = [f"image_{sequence}.nii.gz" for sequence in SEQUENCES]
NUMBERS = [f"image_{i}.nii.gz" for i in range(len(SEQUENCES))]


def under(*words: str, name: str = "image", sequences: Sequence[str] = SEQUENCES) -> Writer:
    """Write sequences in files of other names."""
    images = {word: MR.images[f"_{sequence}"] for word, sequence in zip(words, sequences, strict=True)}
    return nifti(MR._replace(images=images), MR, name=name)


def only(*sequences: str) -> Scan:
    """Return the scan with some of its sequences."""
    return MR._replace(images={f"_{sequence}": MR.images[f"_{sequence}"] for sequence in sequences})


def in_one(*sequences: str, axis: int = 3) -> Scan:
    """Return the scan with its sequences, or some of them, along an axis of one image."""
    images = [MR.images[f"_{sequence}"] for sequence in sequences or SEQUENCES]
    return MR._replace(images={"": np.stack([image.reshape((*image.shape, 1, 1)[:axis]) for image in images], axis)})


def with_flair(change: Callable[[NDArray[Any]], Any]) -> Writer:
    """Write the scan with another FLAIR."""
    return nifti(MR.changed(change, "_flair"))


def beside(scan: Scan) -> Writer:
    """Write the scan, and over some of its files those of another one."""
    return several(nifti(MR), nifti(scan))


def data_set(write: Writer, image: str | list[str], **more: Any) -> Writer:
    """Write an input, and a ``dataset.json`` that says more of it."""

    def write_both(folder: Path) -> Scan | None:
        truth = write(folder)
        item = {"image": image, "label": "image_label.nii.gz", "case": "case"}
        (folder / "dataset.json").write_text(json.dumps({"testing": [item], **more}))
        return truth

    return write_both


def series(folder: Path) -> None:
    """Write a sequence as DICOM."""
    write_series(folder, MR.images["_t1"], AFFINE, Modality="MR")


def item(images: Any) -> list[Mapping[str, Any]]:
    """Return the item of a ``dataset.json``."""
    return [{"image": images, "label": "image_label.nii.gz"}]


TAGGED = [{"image": NAMES, "label": "image_label.nii.gz", "slice_labels": "tags.csv"}]


def tagged(text: str) -> Writer:
    """Write the scan and tags of its slices."""
    return several(content("tags.csv", text), nifti(MR))


def in_folders(scan: Scan) -> Writer:
    """Write each sequence into a folder of its own, all in files of one name."""

    def write(folder: Path) -> None:
        for sequence in SEQUENCES:
            nifti(Scan({"": scan.images[f"_{sequence}"]}, {}, AFFINE))(folder / sequence)
        nifti(scan._replace(images={}))(folder)

    return write


def numbered(order: Sequence[str]) -> Writer:
    """Write sequences in files that are called by numbers, in an order."""
    return under(*(f"_{i}" for i in range(len(order))), sequences=order)


INPUTS = [
    right("a file for each sequence", nifti(MR)),
    right("words of BraTS 2023", under("-t1n", "-t1c", "-t2w", "-t2f")),
    right("words of a hospital", under(" T1 pre", " T1 post", " T2", " T2 FLAIR", name="Müller, Anna")),
    right("BIDS", under("_acq-3d_T1w", "_ce-gad_T1w", "_T2w", "_FLAIR", name="sub-01_ses-1")),
    right(
        "files that are called by their sequence alone",
        several(under("T1", "T1Gd", "T2", "FLAIR", name=""), lambda _: MR.bare()),
    ),
    right("label that is called seg", nifti(MR._replace(masks={"_seg": MR.masks["_label"]}), MR)),
    right("trailing axis of 1", nifti(MR.reshaped(lambda v: v[..., None], AFFINE), MR)),
    right("oblique", nifti(MR.at(OBLIQUE))),
    right("stored as PIR", nifti(MR.turned("PIR"), MR)),
    right("floats as small as 1e-6", nifti(MR.changed(lambda v: np.float32(v) * 1e-6))),
    right(
        "slightly negative values, as of resampling", nifti(MR.changed(lambda v: np.where(v == v.max(), -0.005 * v, v)))
    ),
    warned("sequences in one file of a folder", "its volumes are taken for t1, t1ce, t2, flair", nifti(in_one())),
    warned(
        "sequences along a fifth axis", "its volumes are taken for t1, t1ce, t2, flair", nifti(in_one(axis=4), in_one())
    ),
    refused(
        "one sequence missing", "expected t1, t1ce, t2, flair in 4 files or one", nifti(only("t1", "t1ce", "flair"))
    ),
    refused(
        "one sequence twice",
        "expected one file of t1, got also",
        under("_t1", "_t1ce", "_t2", "_flair", "_T1w", sequences=[*SEQUENCES, "t1"]),
    ),
    refused("image of no sequence", "expected t1, t1ce, t2, flair in 4 files or one", under("_adc", sequences=["t1"])),
    refused("label alone", "got none of them beside it", under("_seg", sequences=["t1"])),
    refused(
        "two frames in each sequence",
        "expected one volume, got 4 axes",
        nifti(MR.changed(lambda v: np.stack([v, v], -1))),
    ),
    refused("three sequences in one file", "got 3 volumes", nifti(in_one("t1", "t1ce", "flair"))),
    refused(
        "one sequence of other slices", "expected the grid of", beside(only("flair").changed(lambda v: v[..., 1:]))
    ),
    refused(
        "one sequence half a voxel off", "expected the affine of", beside(only("flair").at(moved(0.5, affine=AFFINE)))
    ),
    refused("one sequence stored as LPS", "expected the affine of", beside(only("flair").turned("LPS"))),
    refused("one sequence constant", "the same value 0 everywhere", with_flair(lambda v: 0 * v)),
    refused("one sequence with NaN", "NaN or infinite", with_flair(lambda v: np.where(v == v.max(), np.nan, v))),
    refused("one sequence cut off", UNREADABLE, damaged(nifti(MR), lambda b: b[:-99], "image_t2.nii.gz")),
    refused("MR in DICOM", "DICOM, which is read of CT alone", series),
    refused("label with 4, as in BraTS 2020", "got also 4", nifti(MR.masked(lambda v: np.where(v == 3, 4, v)))),
    refused("label of another grid", "expected the grid of", nifti(MR.masked(lambda v: v[1:]))),
    warned("skull not removed", "does not look skull-stripped", nifti(MR.changed(lambda v: v + 50))),
    warned(
        "scaled to a deviation of 1", "it has negative values", nifti(MR.changed(lambda v: (v - v.mean()) / v.std()))
    ),
    warned(
        "one sequence normalised",
        "it has negative values, down to -1",
        with_flair(lambda v: np.where(v > 0, (v - 300) / 300, -1)),
    ),
    warned("coarse voxels", "coarse beside the 3 x 3 x 5 mm", nifti(MR.at(np.diag([9.0, 9, 9, 1])))),
    warned(
        "noise in place of a sequence",
        "looks like noise",
        with_flair(lambda v: np.random.default_rng(0).integers(0, 2, v.shape) * 400),
    ),
    right("files in any order, told by their names", nifti(MR), items=item(NAMES[::-1])),
    warned(
        "files that nothing names",
        "its files are taken for t1, t1ce, t2, flair",
        numbered(SEQUENCES),
        items=item(NUMBERS),
    ),
    refused("T1 in the place of T1ce", "image_t1.nii.gz", nifti(MR), items=item([NAMES[0], NAMES[0], *NAMES[2:]])),
    refused(
        "one name that is out of place",
        "image_flair.nii.gz",
        several(numbered(SEQUENCES), nifti(only("flair"))),
        items=item([NAMES[3], *NUMBERS[1:]]),
    ),
    warned(
        "one sequence copied over another",
        "image_t1.nii.gz and image_t2.nii.gz hold the same voxels",
        nifti(MR._replace(images={**MR.images, "_t2": MR.images["_t1"]})),
    ),
    refused(
        "sequences in folders of their own, one of them constant",
        "flair/image.nii.gz: expected an image, got the same value 0 everywhere",
        in_folders(MR.changed(np.zeros_like, "_flair")),
        items=item([f"{sequence}/image.nii.gz" for sequence in SEQUENCES]),
    ),
    right("tags of slices, with a mark of byte order", tagged("\ufeffslice,label\n0,1\n3,0\n"), items=TAGGED),
    right("tags of no slice", tagged("slice,label\n"), items=TAGGED),
    refused("tags that are not there", "got a file that cannot be read", nifti(MR), items=TAGGED),
    refused("tags in an empty file", "got the columns []", tagged(""), items=TAGGED),
    refused("tags between semicolons", "got the columns ['slice;label']", tagged("slice;label\n0;1\n"), items=TAGGED),
    refused(
        "tag of a slice beyond the last",
        "expected slices of 4, got number 4",
        tagged("slice,label\n4,1\n"),
        items=TAGGED,
    ),
    refused("two tags of a slice", "got two lines of slice 2", tagged("slice,label\n2,0\n2,1\n"), items=TAGGED),
    refused("tag that is no class", "'label': '2'", tagged("slice,label\n0,2\n"), items=TAGGED),
    refused("three files for four sequences", "in 4 files or one", nifti(MR), items=item(NAMES[:3])),
    refused(
        "T1 for a bundle that takes FLAIR",
        "expected flair in this order, got image_t1.nii.gz",
        data_set(nifti(only("t1")), "image_t1.nii.gz"),
        alone=True,
        settings={"sequences": ["flair"]},
    ),
    right(
        "all four for a bundle that takes FLAIR",
        several(nifti(MR), lambda _: only("flair")),
        alone=True,
        settings={"sequences": ["flair"]},
    ),
    right(
        "one file in the order of MSD",
        data_set(nifti(in_one(*MSD), MR), "image.nii.gz", modality=MSD_WORDS),
        alone=True,
    ),
    right("files in the order of MSD", data_set(numbered(MSD), NUMBERS, modality=MSD_WORDS), alone=True),
    refused(
        "one file of fewer volumes than MSD names",
        "got 3 volumes",
        data_set(nifti(in_one("flair", "t1", "t2")), "image.nii.gz", modality=MSD_WORDS),
        alone=True,
    ),
    refused(
        "names that contradict the modality",
        "in this order, got",
        data_set(nifti(MR), NAMES, modality=MSD_WORDS),
        alone=True,
    ),
    refused(
        "modality without a sequence",
        "expected a modality that names",
        data_set(nifti(MR), NAMES[:2], modality={"0": "T1w", "1": "T2w"}),
        alone=True,
    ),
]
