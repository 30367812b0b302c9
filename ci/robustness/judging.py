"""What becomes of odd inputs in the listing and loading of a bundle."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.utils import convert_to_numpy, ensure_tuple
from numpy.typing import NDArray

from common.data import listing
from common.data.files import CaseDataset, LoadCased
from common.files import printable, root_cause
from common.sequences import SEQUENCES
from common.transforms.channels import image_stem

from .. import bundle_names, bundle_parser
from ..recipes import recipe_of
from .inputs import LISTED, TOGETHER, Input, Scan

KEYS = {"_liver": "organ", "_organ": "organ", "_label": "label"}
"""What masks beside an image are in an item."""

WRONG, ABORTED = "silently wrong", "aborted the run"


class Verdict(NamedTuple):
    """What became of an input: ``refused``, ``right``, ``warned`` or worse, and what was said of it."""

    input: Input
    outcome: str
    said: str

    @property
    def foreseen(self) -> bool:
        """Whether that is what has to become of it."""
        return self.outcome == self.input.outcome and self.input.says in self.said


class Listed(NamedTuple):
    """What a bundle takes of a data set: its cases, a sentence for each that it refuses, and for each file left out."""

    items: Sequence[Mapping[str, Any]]
    reasons: Mapping[str, str]
    left_out: Sequence[str]
    label_values: Mapping[str, str] | None


def layers_of(modality: str) -> list[tuple[str, ...]]:
    """Return bundle and configs of all that examine images of a modality, as their recipes call it.

    Those that are meant for healthy scans, or whose labels have an organ too, come last.
    """
    layers = []
    for bundle in bundle_names():
        for overlay in ("", *recipe_of(bundle).overlays):
            if recipe_of(bundle, overlay).modality == modality:
                layers.append((bundle, "inference", *filter(None, [overlay])))
    return sorted(layers, key=lambda each: any(bundle_parser(*each).get(key) is not None for key in (HEALTHY, "both")))


HEALTHY = "allow_tumours"
"""Key of bundles that are meant for healthy scans, with which they take others."""


def with_all_sequences(modality: str) -> tuple[str, ...]:
    """Return bundle and configs of the first that takes all sequences, where a modality has such."""
    every = (None, list(SEQUENCES))
    return next(layers for layers in layers_of(modality) if bundle_parser(*layers).get("sequences") in every)


def listed(layers: Sequence[str], dataset_dir: Path, **settings: Any) -> Listed:
    """Return what a bundle takes of a data set."""
    settings = {"dataset_dir": str(dataset_dir), "all_cases::progress": False, **settings}
    if bundle_parser(*layers).get(HEALTHY) is not None:
        settings[HEALTHY] = True
    parser = bundle_parser(*layers, **settings)
    with _messages(listing.logger) as messages:
        items = parser.get_parsed_content("cases")
    left_out = [message for message in messages if message.startswith("left out: ")]
    reasons = parser.get_parsed_content("failures").reasons
    values = parser.get_parsed_content("label_values") if "label_values" in parser else None
    return Listed(items, reasons, left_out, values)


def judge(inputs: Sequence[Input], layers: Sequence[str], folder: Path) -> Iterator[Verdict]:
    """Write odd inputs, list them together, load what is taken, and yield what became of each, in their order.

    Args:
        inputs: of one modality.
        layers: bundle and configs.
        folder: see ``write_inputs``.
    """
    written = write_inputs(inputs, folder)
    shared = {name: _try(layers, folder / name) for name in TOGETHER if (folder / name).is_dir()}
    for each, (place, truth) in zip(inputs, written, strict=True):
        result = shared[each.place] if each.place in shared else _try(layers, place, **each.settings)
        yield _verdict(each, place, truth, result)


def write_inputs(inputs: Sequence[Input], folder: Path) -> list[tuple[Path, Scan | None]]:
    """Write odd inputs, each into a folder of its own in that of its ``place``, and return these and the truths."""
    written = []
    items: list[Mapping[str, Any]] = []
    for each in inputs:
        slug = re.sub(r"\W+", "-", each.name.lower())
        place = folder / each.place / slug
        place.mkdir(parents=True)
        written.append((place, each.write(place)))
        items += [_within(slug, item) for item in each.items]
    if items:
        (folder / LISTED / "dataset.json").write_text(json.dumps({"testing": items}))
    return written


def _within(slug: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item of a ``dataset.json`` that lies a folder above, with a name of its own if it has none."""

    def moved(path: Any) -> Any:
        return [f"{slug}/{each}" for each in path] if isinstance(path, list) else f"{slug}/{path}"

    return {"case": slug, **{key: moved(value) if key in listing.PATHS else value for key, value in item.items()}}


def _try(layers: Sequence[str], dataset_dir: Path, **settings: Any) -> Listed | Exception:
    try:
        return listed(layers, dataset_dir, **settings)
    except Exception as error:
        return error


def _verdict(each: Input, place: Path, truth: Scan | None, result: Listed | Exception) -> Verdict:
    if isinstance(result, Exception):
        refused = each.alone and isinstance(root_cause(result), ValueError | OSError)
        return Verdict(each, "refused" if refused else ABORTED, _told([str(root_cause(result))], place))
    mine = re.compile(rf"{re.escape(str(place))}(?![\w-])")
    names = {printable(str(item["case"])) for item in each.items if "case" in item}
    names |= {printable(image_stem(path)) for path in place.iterdir()}
    found = [item for item in result.items if mine.match(ensure_tuple(item["image"])[0])]
    said = [text for case, text in result.reasons.items() if case in names or mine.search(text)]
    said += [text for text in result.left_out if mine.search(text)]
    remarks = [item["remarks"] for item in found if "remarks" in item]
    loaded = CaseDataset(found, LoadCased(label_values=result.label_values))
    wrong = truth is not None and not all(_same(loaded[i], truth) for i in range(len(found)))
    if not found and said:
        outcome = "refused"
    elif not found or wrong or (truth is None and not remarks):
        outcome = WRONG
    elif remarks or said:
        outcome = "warned"
    else:
        outcome = "right" if each.outcome == "right" else WRONG
    return Verdict(each, outcome, _told([*said, *remarks], place))


def _told(sentences: Sequence[str], place: Path) -> str:
    """Return sentences with paths as they are within an input's folder."""
    return " ".join(dict.fromkeys(sentences)).replace(f"{place}/", "").replace(str(place), ".")


def _same(item: Mapping[str, Any], truth: Scan) -> bool:
    """Return whether a case that was loaded has the values of the truth at the same places of the world."""
    images = list(truth.images.values())
    image = np.stack(images, -1) if images[0].ndim < 4 else images[0]
    expected = {"image": image, **{KEYS[name]: mask[..., None] > 0 for name, mask in truth.masks.items()}}
    if {key for key in ("image", "organ", "label") if key in item} != set(expected):
        return False
    for key, voxels in expected.items():
        own = np.moveaxis(convert_to_numpy(item[key]), 0, -1)
        ours = in_ras(own if key == "image" else own > 0, convert_to_numpy(item[key].affine))
        theirs = in_ras(voxels, truth.affine)
        close = 0.02 * np.linalg.norm(truth.affine[:3, :3], axis=0).min()  # in mm, as headers are rounded
        if not np.array_equal(ours[0], theirs[0]) or not np.allclose(ours[1], theirs[1], atol=close):
            return False
    return True


def in_ras(voxels: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return an image (X, Y[, Z], C) with its axes to the right, front and head, and its affine."""
    volume = voxels if voxels.ndim == 4 else voxels[:, :, None]
    image: Any = nib.as_closest_canonical(nib.Nifti1Image(volume.astype(np.float32), affine))
    return np.asarray(image.dataobj), image.affine


@contextmanager
def _messages(logger: logging.Logger) -> Iterator[list[str]]:
    """Collect what a logger says."""
    messages: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collecting()
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
