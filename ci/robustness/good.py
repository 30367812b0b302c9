"""Good images, none of which is to be refused, and few to be warned of."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import ensure_tuple
from numpy.typing import NDArray

from common.data.listing import PATHS
from common.data.reading import read_nifti
from common.sequences import known_sequence

from .. import bundle_names, bundle_parser
from ..recipes import recipe_of
from .ct import as_jpeg
from .inputs import save
from .judging import layers_of, listed

MARGIN = 3
"""Voxels that a crop shows around an organ."""


class Found(NamedTuple):
    """What a bundle says of a data set: how many cases it has, those refused, and those warned of, with the words."""

    name: str
    cases: int
    refused: Mapping[str, str]
    warned: Mapping[str, str]


class DataSet(NamedTuple):
    """Cases, as ``dataset.json`` lists them with whole paths, of a modality as recipes call it."""

    name: str
    modality: str
    content: Mapping[str, Any]
    sequences: list[str] | None = None


def look_at_good_images(folder: Path, work: Path) -> Iterator[Found]:
    """Yield what bundles say of real data sets, of what is made of their CT, and of all demonstrations.

    Args:
        folder: of data sets, see ``data_sets_in``.
        work: where copies go.
    """
    for bundle in bundle_names():
        for overlay in ("", *recipe_of(bundle).overlays):
            layers = (bundle, "inference", *filter(None, [overlay]))
            demo = Path(bundle_parser(*layers).get_parsed_content("dataset_dir")) / "dataset.json"
            yield _found("demonstration", layers, all_splits(json.loads(demo.read_text()), demo.parent), work)
    for each in data_sets_in(folder):
        for layers in layers_of(each.modality):
            settings = {"sequences": each.sequences} if each.sequences else {}
            yield _found(each.name, layers, each.content, work, **settings)
        if each.modality == "CT":
            for name, change in CHANGES.items():
                copies = [_copy(item, change, work / f"{each.name} {name}") for item in each.content["testing"]]
                yield _found(f"{each.name} {name}", layers_of("CT")[0], {"testing": copies}, work)


def data_sets_in(folder: Path) -> Iterator[DataSet]:
    """Yield the data sets of folders in a folder: each ``dataset*.json`` is one, and so is each ``ct.nii.gz``.

    A scan of that name may have ``organs.nii.gz`` beside it; its copies are cropped to these.
    """
    for path in sorted(folder.glob("*/dataset*.json")):
        content = json.loads(path.read_text())
        words = list(content["modality"].values())
        sequences = [sequence for sequence in map(known_sequence, words) if sequence]
        name = " ".join([path.parent.name, *sequences])
        yield DataSet(name, "MR" if sequences else words[0], all_splits(content, path.parent), sequences or None)
    for path in sorted(folder.glob("*/ct.nii.gz")):
        yield DataSet(path.parent.name, "CT", {"testing": [{"image": str(path), "case": path.parent.name}]})


def all_splits(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a ``dataset.json`` whose cases are all for testing, with whole paths."""
    items = [dict(item) for split in ("training", "validation", "testing") for item in content[split]]
    for item in items:
        for key in set(PATHS) & set(item):
            paths = [str(folder / path) for path in ensure_tuple(item[key])]
            item[key] = paths if isinstance(item[key], list) else paths[0]
    return {**{key: content[key] for key in ("modality", "labels") if key in content}, "testing": items}


def _found(name: str, layers: tuple[str, ...], content: Mapping[str, Any], work: Path, **settings: Any) -> Found:
    work.mkdir(parents=True, exist_ok=True)
    (work / "dataset.json").write_text(json.dumps(content))
    taken = listed(layers, work, **settings)
    warned = {item["case"]: item["remarks"] for item in taken.items if "remarks" in item}
    return Found(f"{name}, {' '.join(layers)}", len(content["testing"]), taken.reasons, warned)


Change = Callable[[NDArray[Any], NDArray[Any] | None], tuple[Any, tuple[slice, ...]]]
"""Takes HU and where an organ is, and returns other HU and which part of them is to be kept."""


def _copy(item: Mapping[str, Any], change: Change, folder: Path) -> dict[str, Any]:
    """Write a CT anew, changed or a part of it, and return its item; masks are those of the part."""
    path = Path(item["image"])
    voxels, affine = read_nifti(path)
    masks = {key: read_nifti(item[key])[0] for key in ("organ", "label") if key in item}
    beside = path.with_name("organs.nii.gz")
    organ = masks.get("organ", read_nifti(beside)[0] if beside.is_file() else None)
    changed, part = change(voxels, organ)
    shift = np.eye(4)
    shift[:3, 3] = [axis.start or 0 for axis in part]
    copy: dict[str, Any] = {"case": item["case"]}
    for key, array in {"image": changed, **masks}.items():
        copy[key] = str(folder / f"{item['case']}_{key}.nii.gz")
        save(np.asarray(array, dtype=np.int16)[part], Path(copy[key]), affine @ shift)
    return copy


def _around(where: NDArray[Any], margin: int = 0) -> tuple[slice, ...]:
    """Return the box of what is true, with a margin."""
    voxels = np.argwhere(where)
    return tuple(slice(max(a - margin, 0), b + margin + 1) for a, b in zip(voxels.min(0), voxels.max(0), strict=True))


def _inner(hu: NDArray[Any]) -> tuple[slice, ...]:
    """Return the middle half of the body in each slice."""
    x, y, z = _around(hu > -300)
    quarters = [(axis.stop - axis.start) // 4 for axis in (x, y)]
    return *(slice(a.start + q, a.stop - q) for a, q in zip((x, y), quarters, strict=True)), z


WHOLE = (slice(None),) * 3

CHANGES: dict[str, Change] = {
    "cropped to the organ": lambda hu, organ: (hu, WHOLE if organ is None else _around(organ > 0, MARGIN)),
    "without air": lambda hu, organ: (hu, _inner(hu)),
    "from -160 to 240 HU": lambda hu, organ: (np.clip(hu, -160, 240), WHOLE),
    "from -40 to 160 HU": lambda hu, organ: (np.clip(hu, -40, 160), WHOLE),
    "as JPEG leaves it": lambda hu, organ: (as_jpeg(hu), WHOLE),
}
"""What people do to a CT that stays one."""
