"""Remake the pictures of the cards from the demonstrations: ``python -m ci.pictures [BUNDLE]``.

With ``--strip gdpi`` the README's is drawn too, from that bundle's run: image, healthy version and map of a slice.
"""

import io
import json
import tempfile
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.listing import case_name
from common.files import write_bytes
from common.report.figures import CT, Panel, box_around, panel_grid, png

from . import ROOT, bundle_names, run_bundle

MAX_PIXELS, MAX_BYTES = 900, 150_000
"""Of a picture's longer side, and of its file."""


def pictures(bundle: str = "", runs: str = "", strip: str = "") -> None:
    """Write ``docs/picture.png`` of a bundle: the case of its demonstration with the largest lesions.

    Args:
        bundle: name of the folder in ``bundles/``; all of them without one.
        runs: folder with a run of each bundle, ``<runs>/<bundle>``, that is shown instead of a new one.
        strip: name of one of these, for CT, that writes a healthy version; it is shown in ``docs/strip.png``.

    Raises:
        FileNotFoundError: if a run has drawn no picture of the case.
        subprocess.CalledProcessError: if a run fails.
    """
    for name in [bundle] if bundle else bundle_names():
        demo = ROOT / "bundles" / name / "demo"
        cases = {case_name(item): item for item in json.loads((demo / "dataset.json").read_text())["testing"]}
        with tempfile.TemporaryDirectory() as folder:
            run = Path(runs).resolve() / name if runs else run_demo(name, Path(folder))
            case = max(cases, key=lambda case: searched_lesion(demo / cases[case]["label"], run / case).sum())
            drawn = sorted((run / case).glob("*.png"))
            if not drawn:
                raise FileNotFoundError(f"{run / case}: expected a picture of the case, found none.")
            write(demo.parent / "docs" / "picture.png", drawn[0].read_bytes())
            if name == strip:
                write(ROOT / "docs" / "strip.png", strip_of(demo / cases[case]["image"], run / case))


def run_demo(bundle: str, folder: Path) -> Path:
    """Run a bundle on its demonstration, and return the folder; one whose inference draws no case is evaluated too."""
    run_bundle(bundle, "inference", output_dir=folder)
    if not any(folder.glob("*/*.png")):
        run_bundle(bundle, "inference", "evaluate", output_dir=folder)
    return folder


def searched_lesion(label: Path, folder: Path) -> NDArray[np.bool_]:
    """Return where a label is not 0, within the organ that a run has searched, if its folder of the case has one."""
    organs = [_as_seen(path) > 0 for path in folder.glob("*_organ.nii.gz")]
    return np.logical_and.reduce([_as_seen(label) > 0, *organs])


def strip_of(image: Path, folder: Path) -> bytes:
    """Return the slice of a case whose map has the largest sum: CT, healthy version, map over CT, as PNG.

    Args:
        image: the CT.
        folder: results of the case, which has its name.
    """
    names = ("healthy", "anomaly", "mask", "organ")
    ct, healthy, anomaly, mask, organ = map(
        _as_seen, (image, *(folder / f"{folder.name}_{name}.nii.gz" for name in names))
    )
    shown = (*box_around(organ > 0), int(np.clip(anomaly, 0, None).sum((0, 1)).argmax()))
    low, high = CT.map_window
    title = f"{CT.name} map, {low:g} to {high:g} {CT.unit}"
    found = Panel(title, ct[shown], anomaly[shown], {"mask": mask[shown] > 0})
    return png(panel_grid([[Panel("CT", ct[shown]), Panel(CT.version, healthy[shown]), found]]))


def write(path: Path, picture: bytes) -> None:
    """Write a PNG scaled to ``MAX_PIXELS``, in as many colours as ``MAX_BYTES`` has room for, 32 at the least."""
    scaled = Image.open(io.BytesIO(picture)).convert("RGB")
    scaled.thumbnail((MAX_PIXELS, MAX_PIXELS), Image.Resampling.BOX)  # whose even areas take little room
    for colours in (256, 128, 64, 32):
        buffer, outlines_stay = io.BytesIO(), Image.Quantize.MAXCOVERAGE
        scaled.quantize(colours, outlines_stay, kmeans=3, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    write_bytes(path, buffer.getvalue())
    print(f"{path} {scaled.width} x {scaled.height} pixels, {buffer.tell()} bytes")


def _as_seen(path: Path) -> NDArray[np.float64]:
    """Return a volume, axes to the patient's right, front and head."""
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


if __name__ == "__main__":
    fire.Fire(pictures)
