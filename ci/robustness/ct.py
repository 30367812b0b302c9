"""Odd CT in NIfTI: files, geometry, values and masks."""

import gzip
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from .inputs import (
    Scan,
    Writer,
    content,
    content_of,
    damaged,
    nifti,
    packed,
    patched,
    phantom,
    refused,
    right,
    several,
    warned,
)

CT = phantom("abdomen_ct", (56, 52, 4), (6.0, 5.5, 7.0), {"organ": "_liver"})
BARE = CT.bare()
HU, LIVER, AFFINE = CT.images[""], CT.masks["_liver"], CT.affine
UNREADABLE = "expected a readable NIfTI file, got one that is damaged or cut off"
NO_HU = "expected a CT in Hounsfield units"

TURN = Rotation.from_euler("zx", [12, 7], degrees=True).as_matrix()
OBLIQUE = from_matvec(TURN @ AFFINE[:3, :3], AFFINE[:3, 3])
SHEARED = from_matvec(AFFINE[:3, :3] + [[0, 0, 0], [0, 0, 1.8], [0, 0, 0]], AFFINE[:3, 3])
MICRON, METRE = 3, 1
"""Codes of NIfTI's ``xyzt_units``."""


def dim(*sizes: int) -> list[int]:
    """Return the field of a header that holds the number of axes and their sizes."""
    return [len(sizes), *sizes, *[1] * (7 - len(sizes))]


def pixdim(*sizes: float) -> list[float]:
    """Return the field of a header that holds the sizes of voxels."""
    return [1, *sizes, *[1] * (7 - len(sizes))]


def sform(affine: NDArray[np.float64]) -> dict[str, Any]:
    """Return the fields of a header that hold an affine."""
    return dict(zip(("srow_x", "srow_y", "srow_z"), affine, strict=False))


def with_voxel(value: float, dtype: Any = np.float32) -> Scan:
    """Return the CT with another value in one voxel."""
    voxels = HU.astype(dtype)
    voxels[20, 20, 2] = value
    return CT.changed(lambda _: voxels)


def as_type(dtype: str, kind: Any = nib.Nifti1Image) -> Writer:
    """Write the CT alone with another type of numbers, or in another kind of NIfTI."""

    def write(folder: Path) -> Scan:
        (folder / "image.nii").write_bytes(content_of(HU.astype(dtype), AFFINE, kind))
        return BARE

    return write


def with_extension(folder: Path) -> Scan:
    """Write a CT whose header has a comment after it."""
    image = nib.Nifti1Image(HU, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"windows of a scanner"))
    (folder / "image.nii").write_bytes(image.to_bytes())
    return BARE


def with_other_sum(content: bytes) -> bytes:
    """Return a gzip file with a check sum that is wrong."""
    return content[:-8] + b"\1\2\3\4" + content[-4:]


def in_two_parts(content: bytes) -> bytes:
    """Return a gzip file as two, one after the other."""
    plain = gzip.decompress(content)
    return gzip.compress(plain[:9000]) + gzip.compress(plain[9000:])


def scaled(slope: float, intercept: float) -> Writer:
    """Write a CT whose stored values become HU by slope and intercept."""
    stored = np.rint((HU - intercept) / slope).astype(np.int16)
    truth = BARE.changed(lambda _: stored * slope + intercept)
    return patched(BARE.changed(lambda _: stored), truth, scl_slope=slope, scl_inter=intercept)


def beyond(scan: Scan, axis: int, first: int, last: int) -> Scan:
    """Return what a scan has from one voxel up to another along an axis."""
    shift = np.eye(4)
    shift[axis, 3] = first
    part = [slice(None)] * 3
    part[axis] = slice(first, last)
    return scan.reshaped(lambda voxels: voxels[tuple(part)], scan.affine @ shift)


def around_the_liver(margin: int) -> Scan:
    """Return the CT cropped to the liver and some voxels around it."""
    where = np.argwhere(LIVER)
    (x_0, y_0, _), (x_1, y_1, _) = where.min(0) - margin, where.max(0) + 1 + margin
    return beyond(beyond(CT, 0, max(x_0, 0), x_1), 1, max(y_0, 0), y_1)


def as_jpeg(voxels: NDArray[Any]) -> NDArray[np.int16]:
    """Return HU between -160 and 240 as they come back from a JPEG of each slice."""
    grey = np.rint((np.clip(voxels, -160, 240) + 160) / 400 * 255).astype(np.uint8)
    slices = []
    for k in range(grey.shape[2]):
        Image.fromarray(grey[:, :, k]).save(file := BytesIO(), "JPEG")
        slices.append(np.asarray(Image.open(file), dtype=np.float64))
    return np.rint(np.stack(slices, -1) / 255 * 400 - 160).astype(np.int16)


def with_masks_at(affine: NDArray[np.float64], which: str = "_liver") -> Writer:
    """Write the CT, and a mask that lies elsewhere."""
    masks = {which: CT.masks[which]}
    return several(nifti(BARE), nifti(Scan({}, masks, affine), CT._replace(masks=masks)))


def moved(voxels: float, axis: int = 0, affine: NDArray[np.float64] = AFFINE) -> NDArray[np.float64]:
    """Return the affine of what lies some voxels further along an axis."""
    return from_matvec(affine[:3, :3], affine[:3, 3] + voxels * affine[:3, axis])


def label(change: Callable[[NDArray[Any]], Any]) -> Writer:
    """Write the CT with another label."""
    return nifti(CT.masked(change, "_label"))


def organ(change: Callable[[NDArray[Any]], Any]) -> Writer:
    """Write the CT with another mask of the organ."""
    return nifti(CT.masked(change, "_liver"))


PLAIN = nifti(BARE, ending=".nii")
ZIPPED = nifti(BARE)
CAPITALS = nifti(BARE, name="IMAGE", ending=".NII.GZ")

FILES = [
    refused("file cut off", UNREADABLE, damaged(ZIPPED, lambda b: b[:-400])),
    refused("file cut off within its header", UNREADABLE, damaged(ZIPPED, lambda b: b[:90])),
    refused("uncompressed file cut off", UNREADABLE, damaged(PLAIN, lambda b: b[:-400], "image.nii")),
    refused("gzip with a wrong check sum", UNREADABLE, damaged(ZIPPED, with_other_sum)),
    refused(
        "gzip with a damaged byte", UNREADABLE, damaged(ZIPPED, lambda b: b[:999] + bytes([b[999] ^ 64]) + b[1000:])
    ),
    refused("empty file", UNREADABLE, content("image.nii.gz", "")),
    refused("page of a web server in its place", UNREADABLE, content("image.nii", "<html>404: not found</html>" * 99)),
    refused("gzip without the ending", UNREADABLE, content("image.nii", packed(content_of(HU, AFFINE), Path(".gz")))),
    refused("ending of gzip without gzip", UNREADABLE, content("image.nii.gz", content_of(HU, AFFINE))),
    refused("wrong magic", UNREADABLE, patched(BARE, magic=b"xyz")),
    refused("header larger than the file", UNREADABLE, patched(BARE, dim=dim(56, 52, 600))),
    refused("header larger than any scan", "expected at most", patched(BARE, dim=dim(*[32767] * 3))),
    warned("header smaller than the file", "goes on after", patched(BARE, beyond(BARE, 2, 0, 2), dim=dim(56, 52, 2))),
    refused("negative size", UNREADABLE, patched(BARE, dim=dim(56, -52, 4))),
    refused("size of zero", "expected a slice or a volume", patched(BARE, dim=dim(56, 0, 4))),
    refused("no axes at all", "expected", patched(BARE, dim=[0] * 8)),
    refused("unknown type of numbers", UNREADABLE, patched(BARE, datatype=9999)),
    refused("offset beyond the end", UNREADABLE, patched(BARE, vox_offset=1e6)),
    refused("offset within the header", UNREADABLE, patched(BARE, vox_offset=8)),
    refused("one axis", "expected a slice or a volume", nifti(BARE.changed(lambda v: v[:, 0, 0]))),
    refused("two frames", "got 4 axes", nifti(BARE.changed(lambda v: np.stack([v, v], -1)))),
    refused("five axes", "got 5 axes", nifti(BARE.changed(lambda v: np.stack([np.stack([v, v], -1)] * 3, -1)))),
    refused("complex numbers", "got values of type complex64", nifti(BARE.changed(lambda v: v.astype("c8")))),
    refused(
        "colours",
        "expected one number a voxel",
        nifti(BARE.changed(lambda v: np.zeros(v.shape, [(c, "u1") for c in "RGB"]))),
    ),
    refused("NaN in one voxel", "got 1 voxels NaN or infinite", nifti(with_voxel(np.nan).bare())),
    refused("infinite in one voxel", "got 1 voxels NaN or infinite", nifti(with_voxel(-np.inf).bare())),
    refused("more than float32 holds", "infinite in float32", nifti(with_voxel(1e300, np.float64).bare())),
    refused("slope that makes it infinite", "NaN or infinite", patched(BARE, scl_slope=3e38, scl_inter=0)),
    right("trailing axis of 1", nifti(CT.reshaped(lambda v: v[..., None], AFFINE), CT)),
    right("two trailing axes of 1", nifti(CT.reshaped(lambda v: v[..., None, None], AFFINE), CT)),
    right("one slice, two axes", nifti(CT.reshaped(lambda v: v[..., 2], AFFINE))),
    right("one slice, three axes", nifti(beyond(CT, 2, 2, 3))),
    right("8-byte whole numbers", as_type("i8")),
    right("8-byte floats", as_type("f8")),
    right("big-endian", as_type(">i2")),
    right("NIfTI-2", as_type("i2", nib.Nifti2Image)),
    right("slope and intercept", scaled(0.5, -1024)),
    right("slope of 0, which says none", patched(CT, CT, scl_slope=0, scl_inter=-1024)),
    right("slope of NaN, which says none", patched(CT, CT, scl_slope=np.nan, scl_inter=np.nan)),
    right("gzip in two parts", damaged(ZIPPED, in_two_parts, truth=BARE)),
    right("gzip padded with zeros", damaged(ZIPPED, lambda b: b + bytes(512), truth=BARE)),
    right("no unit", patched(CT, CT, xyzt_units=0)),
    right("header with an extension", with_extension),
    right("names in capitals", CAPITALS),
    refused("names in capitals and a wrong check sum", UNREADABLE, damaged(CAPITALS, with_other_sum, "IMAGE.NII.GZ")),
]

GEOMETRY = [
    *(right(f"stored as {codes}", nifti(CT.turned(codes), CT)) for codes in ("LPS", "LAS", "RAI", "PIR", "SAL", "IRP")),
    right("oblique", nifti(CT.at(OBLIQUE))),
    right("oblique, stored as LPS", nifti(CT.at(OBLIQUE).turned("LPS"), CT.at(OBLIQUE))),
    right("sheared, as by a tilted gantry", nifti(CT.at(SHEARED))),
    right("sform rounded, qform exact", patched(CT.at(OBLIQUE), CT.at(OBLIQUE), **sform(np.round(OBLIQUE, 1)))),
    right("sform that has lost the sizes", patched(CT, CT, **sform(np.eye(4)))),
    right("sform alone", patched(CT, CT, qform_code=0)),
    right("qform alone", patched(CT.at(OBLIQUE), CT.at(OBLIQUE), sform_code=0, **sform(np.zeros((4, 4))))),
    right("qform of other sizes without a code", patched(CT, CT, qform_code=0, quatern_b=0.7)),
    warned(
        "sizes of 1 mm beside an sform alone",
        "of which the latter",
        patched(CT, CT, qform_code=0, pixdim=pixdim(1, 1, 1)),
    ),
    warned(
        "sizes of 1 mm beside an sform, in the qform too",
        "of which the latter",
        patched(CT, CT, pixdim=pixdim(1, 1, 1)),
    ),
    warned("sform and qform of two sizes", "of which the latter", patched(CT, pixdim=pixdim(3, 3, 5))),
    warned("sizes of 0 beside an sform", "of which the latter", patched(CT, CT, qform_code=0, pixdim=pixdim(0, 0, 0))),
    warned("neither sform nor qform", "does not say how it lies", patched(BARE, sform_code=0, qform_code=0)),
    warned("sizes in micrometres", "gives sizes in micron", patched(CT, CT, xyzt_units=MICRON)),
    warned("sizes in metres", "gives sizes in meter", patched(CT, CT, xyzt_units=METRE)),
    warned("voxels of 300 mm", "no scanner for people", nifti(CT.at(np.diag([300.0, 300, 300, 1])))),
    warned("voxels of 3 micrometres", "no scanner for people", nifti(CT.at(np.diag([0.003, 0.003, 0.003, 1])))),
    warned("coarse voxels", "coarse beside", nifti(CT.at(np.diag([12.0, 12, 12, 1])))),
    warned("identity as affine", "its affine is the identity", nifti(CT.at(np.eye(4)))),
    refused("affine without a third axis", "that can be inverted", patched(CT, qform_code=0, srow_z=[0, 0, 0, 0])),
    refused("affine with NaN", "that can be inverted", patched(CT, qform_code=0, srow_x=[np.nan] * 4)),
    refused("affine of zeros", "that can be inverted", patched(CT, qform_code=0, **sform(np.zeros((4, 4))))),
    refused(
        "slice that is not axial",
        "expected an axial slice",
        nifti(BARE.reshaped(lambda v: v[..., 2], AFFINE[[2, 0, 1, 3]])),
    ),
    refused("quaternion that is none", UNREADABLE, patched(CT, sform_code=0, quatern_b=0.9, quatern_c=0.9)),
]

VALUES = [
    refused("constant", "got the same value 40 everywhere", nifti(CT.changed(lambda v: 0 * v + 40))),
    refused("stored values without the rescale", NO_HU, nifti(CT.changed(lambda v: v + 1024))),
    refused("stored values and padding", NO_HU, nifti(CT.changed(lambda v: np.where(v < -900, -2000, v + 1024)))),
    refused("stored values, cropped to the liver", NO_HU, nifti(around_the_liver(1).changed(lambda v: v + 1024))),
    warned("intercept applied twice", "unlike soft tissue", nifti(CT.changed(lambda v: v - 1024))),
    refused("negated", NO_HU, nifti(CT.changed(np.negative))),
    refused("a quarter of HU", NO_HU, nifti(CT.changed(lambda v: v / 4))),
    warned("half of HU", "neither air nor where windows end", nifti(CT.changed(lambda v: v / 2))),
    refused("ten times HU", NO_HU, nifti(CT.changed(lambda v: 10 * v.astype(np.int32)))),
    refused("wrapped to 16 bits without sign", NO_HU, nifti(CT.changed(lambda v: v.astype(np.uint16)))),
    warned("wrapped to 8 bits", "others may have been wrapped", nifti(CT.changed(lambda v: v.astype(np.int8)))),
    warned(
        "wrapped to 8 bits without sign", "nothing in it is below 0", nifti(CT.changed(lambda v: v.astype(np.uint8)))
    ),
    refused(
        "window scaled to 8 bits", NO_HU, nifti(CT.changed(lambda v: np.uint8(np.clip((v + 160) / 400, 0, 1) * 255)))
    ),
    refused("scaled to [0, 1]", NO_HU, nifti(CT.changed(lambda v: (v - v.min()) / np.ptp(v)))),
    refused("scaled to [-1, 1]", NO_HU, nifti(CT.changed(lambda v: 2 * (v - v.min()) / np.ptp(v) - 1))),
    refused("scaled to a deviation of 1", NO_HU, nifti(CT.changed(lambda v: (v - v.mean()) / v.std()))),
    refused("attenuation in 1/cm", NO_HU, nifti(CT.changed(lambda v: 0.19 * (1 + v / 1000)))),
    refused(
        "attenuation scaled to 16 bits", NO_HU, nifti(CT.changed(lambda v: np.uint16(10 * (v.astype(int) + 1024))))
    ),
    refused("MR", NO_HU, nifti(phantom("brain_mr", (56, 52, 4), (4.0, 4.0, 7.0)).bare())),
    warned(
        "noise",
        "looks like noise",
        nifti(CT.changed(lambda v: np.random.default_rng(0).permutation(v.ravel()).reshape(v.shape))),
    ),
    warned("fat everywhere", "unlike soft tissue", nifti(CT.changed(lambda v: np.where(v > -500, v / 9 - 200, v)))),
    warned("bone everywhere", "unlike soft tissue", nifti(CT.changed(lambda v: np.where(v > -500, v + 500, v)))),
    warned(
        "cropped to the liver, nothing below 0", "nothing in it is below 0", nifti(around_the_liver(-6).changed(np.abs))
    ),
    right("cropped to the liver", nifti(around_the_liver(2))),
    right("cropped, without air", nifti(beyond(beyond(CT, 0, 14, 42), 1, 14, 38))),
    right("clipped to -160 and 240 HU", nifti(CT.changed(lambda v: np.clip(v, -160, 240)))),
    right(
        "clipped to -40 and 160 HU, air kept",
        nifti(CT.changed(lambda v: np.where(v < -500, -1000, np.clip(v, -40, 160)))),
    ),
    right("as JPEG leaves it", nifti(CT.changed(as_jpeg))),
    right("padded with -2000", nifti(CT.changed(lambda v: np.where(v < -990, -2000, v)))),
    right("padded with -3024", nifti(CT.changed(lambda v: np.where(v < -990, -3024, v)))),
    right("metal of 30000 HU", nifti(with_voxel(30000))),
]

MASKS = [
    refused(
        "liver 1 and tumour 2 in the label, as in LiTS",
        "got also 2; `python -m common.data.prepare`",
        nifti(CT.masked(lambda v: v + LIVER, "_label")),
    ),
    refused("label between 0 and 1", "got also 0.5", label(lambda v: v * 0.5)),
    refused("label with a negative value", "got also -1", label(lambda v: np.where(v > 0, -1.0, 0))),
    refused("label of 1 and 255", "got also 255", label(lambda v: np.where(v < LIVER, 255, v))),
    refused("label with NaN", "NaN or infinite", label(lambda v: np.where(v > 0, np.nan, 0))),
    refused("label with two channels", "got 4 axes", label(lambda v: np.stack([v, v], -1))),
    refused("label that is the image", "expected a mask of the values 0, 1", label(lambda v: HU)),
    refused("label cut off", UNREADABLE, damaged(nifti(CT), lambda b: b[:-40], "image_label.nii.gz")),
    refused("label of fewer slices", "expected the grid of", label(lambda v: v[..., 1:])),
    refused(
        "label stored as LPS beside an image in RAS",
        "expected the affine of",
        several(nifti(BARE), nifti(CT.turned("LPS")._replace(images={}))),
    ),
    refused("label half a voxel off", "got one that moves a corner by 3 mm", with_masks_at(moved(0.5), "_label")),
    refused("organ one voxel off", "got one that moves a corner by 7 mm", with_masks_at(moved(1, 2))),
    refused("organ mirrored", "expected the affine of", with_masks_at(AFFINE @ np.diag([-1.0, 1, 1, 1]))),
    refused(
        "organ with voxels of another size", "expected the affine of", with_masks_at(AFFINE @ np.diag([1.01, 1, 1, 1]))
    ),
    refused("several organs in the mask", "write the organ and its lesions as 1", organ(lambda v: v + 4 * (HU > 200))),
    refused("lesions as 2 in the mask of the organ", "got also 2", organ(lambda v: v + CT.masks["_label"])),
    refused("empty mask of the organ", "got an empty one", organ(lambda v: 0 * v)),
    right("organ that rounding moves by a hundredth of a voxel", with_masks_at(moved(0.01))),
    right("empty label", label(lambda v: 0 * v)),
    right("label of 0 and 255", label(lambda v: 255 * v)),
    right("organ of 0 and 255", organ(lambda v: 255 * v)),
    right("label in floats", label(lambda v: v.astype(np.float64))),
    right("label with a trailing axis of 1", nifti(CT.masked(lambda v: v[..., None], "_label"), CT)),
    right(
        "label stored with a slope of 1/255",
        several(
            nifti(CT),
            patched(CT._replace(images={}, masks={"_label": 255 * CT.masks["_label"]}), CT, scl_slope=1 / 255),
        ),
    ),
    right("no masks", nifti(BARE)),
]

INPUTS = [*FILES, *GEOMETRY, *VALUES, *MASKS]
