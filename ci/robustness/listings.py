"""Odd folders, lists and names of cases."""

import json
import os
from pathlib import Path
from typing import Any

from common.data.listing import RESULTS
from common.data.names import RESERVED

from .ct import BARE, CT
from .dicom import series
from .inputs import Input, Scan, Writer, content, nifti, refused, right, several

SCAN = nifti(CT)
ITEM = {"image": "image.nii.gz", "organ": "image_liver.nii.gz", "label": "image_label.nii.gz"}
NAME = "expected a name for a case's folder, got "


def named(*cases: Any) -> list[dict[str, Any]]:
    """Return items of one image under names."""
    return [{**ITEM, "case": case} for case in cases]


def listed(text: str | bytes) -> Writer:
    """Write the scan and a ``dataset.json``."""
    return several(content("dataset.json", text), SCAN)


def with_items(items: Any, split: str = "testing", **more: Any) -> Writer:
    """Write the scan and a ``dataset.json`` with items."""
    return listed(json.dumps({split: items, **more}))


def with_paths_from_the_root(folder: Path) -> Scan | None:
    """Write the scan and a ``dataset.json`` with whole paths."""
    return with_items([{key: str(folder / path) for key, path in ITEM.items()}])(folder)


def link(name: str, target: str) -> Writer:
    """Make a link."""

    def write(folder: Path) -> None:
        (folder / name).symlink_to(target)

    return write


def pipe(folder: Path) -> None:
    """Make a pipe that is called as an image."""
    os.mkfifo(folder / "image.nii.gz")


def within(name: str, write: Writer = SCAN) -> Writer:
    """Write an input into a folder of its folder."""

    def write_within(folder: Path) -> Scan | None:
        (folder / name).mkdir(parents=True)
        return write(folder / name)

    return write_within


def results(folder: Path) -> None:
    """Write what a run leaves for a case."""
    for result in RESULTS:
        nifti(Scan({f"_{result}": CT.images[""]}, {}, CT.affine), name="old")(folder / "eval" / "old")


NAMES = [
    refused("name that is a path", NAME + "one that is a path", SCAN, items=named("siteA/001")),
    refused("name that is a path of Windows", NAME + "one that is a path", SCAN, items=named("siteA\\001")),
    refused("name that leads elsewhere", NAME + "one that is a path", SCAN, items=named("../../elsewhere")),
    refused("name of two dots", NAME + "one that begins with a dot", SCAN, items=named("..")),
    refused("name that is hidden", NAME + "one that begins with a dot", SCAN, items=named(".hidden")),
    refused("name of a space", NAME + "no name at all", SCAN, items=named(" ")),
    refused("name that ends with a dot", NAME + "one that begins or ends with a space", SCAN, items=named("a.")),
    refused("name that begins with a space", NAME + "one that begins or ends with a space", SCAN, items=named(" a")),
    refused("name of two lines", NAME + "one with characters that break lines", SCAN, items=named("a\nERROR b")),
    refused("name that colours the terminal", NAME + "one with characters", SCAN, items=named("\x1b[31ma")),
    refused("name with a zero byte", NAME + "one with characters", SCAN, items=named("a\0b")),
    refused("name with half a character", NAME + "one with characters", SCAN, items=named("a\ud800")),
    refused("name with a line separator", NAME + "one with characters", SCAN, items=named("a\u2028b")),
    refused("name that Windows keeps", NAME + "one that a run or a system keeps", SCAN, items=named("CON")),
    refused("name of a folder of the run", NAME + "one that a run or a system keeps", SCAN, items=named(RESERVED[0])),
    refused("name of a file of the run", NAME + "one that a run or a system keeps", SCAN, items=named("report.html")),
    refused("name of 300 letters", NAME + "one of more than 200 bytes", SCAN, items=named("n" * 300)),
    refused("name of 70 characters of 3 bytes", NAME + "one of more than 200 bytes", SCAN, items=named("肝" * 70)),
    refused("two cases of one name", "expected a case of a name of its own", SCAN, items=named("twin", "twin")),
    refused("names that differ in capitals", "expected a case of a name of its own", SCAN, items=named("Case", "case")),
    refused("names that differ in composition", "of a name of its own", SCAN, items=named("M\u00e4rz", "Ma\u0308rz")),
    right("name that is a formula", SCAN, items=named("=1+1")),
    right("name with a dollar sign", SCAN, items=named("$@failures")),
    right("name with an at sign", SCAN, items=named("@seed")),
    right("name with tags of HTML", SCAN, items=named("<b>a<b>")),
    right("name with placeholders", SCAN, items=named("%s {0} a")),
    right("name with spaces and umlauts", SCAN, items=named("Bauch, März 1")),
    right("name in Chinese", SCAN, items=named("肝臓")),
    right("name that is a number", SCAN, items=named(7)),
    right("no name", SCAN, items=named("")),
]

ITEMS = [
    refused("image that is not there", "got none there", SCAN, items=[{"image": "none.nii.gz"}]),
    refused("label that is not there", "got none there", SCAN, items=[{**ITEM, "label": "none.nii.gz"}]),
    refused(
        "two images for one channel", "expected a CT of one channel", SCAN, items=[{"image": ["image.nii.gz"] * 2}]
    ),
    refused("point beyond the image", "expected a point in the image", SCAN, items=[{**ITEM, "point": [0, 0, 900]}]),
    refused(
        "point that is no number", "expected a point in the image", SCAN, items=[{**ITEM, "point": [float("nan")] * 3}]
    ),
    refused("class 2", "expected an image_label of 0 or 1", SCAN, items=[{**ITEM, "image_label": 2}]),
    right("image in a list", SCAN, items=[{**ITEM, "image": ["image.nii.gz"]}]),
    right("patient that is a number", SCAN, items=[{**ITEM, "patient": 7}]),
    right("series in an item", series(), items=[{"image": "."}]),
]

FOLDERS = [
    refused("link to nothing", "a link that leads nowhere", link("image.nii.gz", "none.nii.gz")),
    refused("link to itself", "a link that leads nowhere", link("image.nii.gz", "image.nii.gz")),
    refused("link to a folder above", "a link to a folder that is looked through", link("again", ".")),
    refused("pipe", "no file, but a device, a pipe or a socket", pipe),
    refused("MetaImage", "an image of another kind", content("image.mha", "ObjectType = Image")),
    refused("NRRD", "an image of another kind", content("image.nrrd", "NRRD0004")),
    refused("pair of header and image", "an image of another kind", content("image.hdr", bytes(348))),
    refused("DICOM file that is none", "an image of another kind", content("image.dcm", "no DICOM")),
    refused("picture in place of a CT", "an image of another kind", content("image.png", "PNG")),
    refused("two files of one name", "expected a case of a name of its own", several(SCAN, nifti(BARE, ending=".nii"))),
    refused("file whose name has two lines", NAME + "one with characters", nifti(BARE, name="a\nERROR b")),
    refused("file whose name is no UTF-8", NAME + "one with characters", nifti(BARE, name="a\udcff")),
    right("folder whose name is no UTF-8", within("b\udcff", nifti(CT, name="image in it"))),
    right("file whose name has spaces and umlauts", nifti(CT, name="Bauch, März 1")),
    right("link to a file", several(within(".hidden"), link("image.nii.gz", ".hidden/image.nii.gz"), lambda _: BARE)),
    right("folder that is called as an image", within("image.nii.gz")),
    right("folders in folders", within("a/b/c")),
    right("files of one name in two folders", several(within("a"), within("b"))),
    right("hidden files", several(content("._image.nii.gz", "macOS"), content(".image.nii.gz", ""), SCAN)),
    right("results of an earlier run", several(results, SCAN)),
    right("series beside a file", several(series(name="slice_{}"), nifti(BARE))),
]

MSD_LIVER = {"0": "background", "1": "liver", "2": "cancer"}
JSON = "expected JSON with a list 'testing'"

DATA_SETS: list[Input] = [
    right("mark of byte order", listed(b"\xef\xbb\xbf" + json.dumps({"testing": [ITEM]}).encode())),
    right(
        "images as plain texts, as MSD has them",
        several(with_items(["./image.nii.gz"], "test"), lambda _: BARE),
        settings={"split": "test"},
    ),
    right("paths from the root", with_paths_from_the_root),
    right("paths that begin with a dot", with_items([{key: f"./{path}" for key, path in ITEM.items()}])),
    refused("no such split", "got no 'testing'", with_items([ITEM], "training")),
    refused("split without cases", "expected testing cases, got none", with_items([])),
    refused("split that is no list", JSON, with_items({"image": "image.nii.gz"})),
    refused("list in place of a dictionary", JSON, listed("[]")),
    refused("JSON that is cut off", JSON, listed('{"testing": [{"image": "image')),
    refused("JSON in another encoding", JSON, listed('{"testing": "März"}'.encode("latin-1"))),
    refused("JSON nested without end", JSON, listed("[" * 100_000)),
    refused("empty dataset.json", JSON, listed("")),
    refused("item that is a number", JSON, with_items([5])),
    refused(
        "item without an image", "expected items whose image and masks are paths", with_items([{"label": "a.nii"}])
    ),
    refused("image that is a number", "expected items whose image and masks are paths", with_items([{"image": 5}])),
    refused(
        "image that is an empty list", "expected items whose image and masks are paths", with_items([{"image": []}])
    ),
    refused("null for a mask", "expected items whose image and masks are paths", with_items([{**ITEM, "label": None}])),
    refused(
        "labels of MSD Task03",
        "expected labels of 1 lesion, got 1 liver, 2 cancer",
        with_items([ITEM], labels=MSD_LIVER),
    ),
    refused("empty folder", "expected testing cases, got none", lambda _: None),
    refused("folder of notes", "expected testing cases, got none", content("notes.txt", "")),
    refused(
        "organ masks that are demanded and not there",
        "expected an organ mask beside it",
        nifti(BARE),
        settings={"organ_source": "file"},
    ),
]

INPUTS = [*NAMES, *ITEMS, *FOLDERS, *(each._replace(alone=True) for each in DATA_SETS)]
