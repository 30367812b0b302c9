"""Turn a downloaded data set into a folder that all bundles read.

    python -m common.data.prepare lits --src DIR --dst DIR [--split patient|slice] [--fractions 0.7,0.1,0.2] [--seed 0]

The folder gets ``images`` (links where nothing is to be converted; of MR one for each of t1, t1ce, t2 and flair),
``organs`` (in CT: the organ with its lesions, 0 and 1), ``labels`` (the lesions, 0 and 1; their parts in MR, 0 to 3)
and, last, ``dataset.json``. The same command gives the same bytes.
"""

import gzip
import inspect
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fire
import nibabel as nib
import numpy as np
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from tqdm.contrib.logging import logging_redirect_tqdm

from ..files import BadFileError, Failures, replacing, write_bytes, write_text
from ..progress import bar
from ..transforms.slices import axial_axis
from .names import check_name, twins_of
from .reading import is_film, unusual_header
from .sites import PARTS, in_drawn_order
from .sources import SOURCES, Source
from .sources.scans import Channel, Scan, Volume

SLICES = {"training": "healthy", "testing": "lesion"}
"""Which slices of a case a part is for when slices are split, not patients."""

LINKS: dict[str, Callable[..., Any]] = {"symlink": os.symlink, "hardlink": os.link, "copy": shutil.copyfile}

logger = logging.getLogger(__name__)


class SliceCounts(NamedTuple):
    """Axial slices of a case; a film counts as one.

    Attributes:
        organ: that show enough of the organ; all of them where it is not drawn.
        healthy: of these, known to be without a lesion, or taken for that where nobody says anything.
        lesion: known to have a lesion.
    """

    organ: int
    healthy: int
    lesion: int

    def in_words(self, source: Source) -> str:
        """Return the counts as the log has them."""
        if not source.slices:
            return f"{self.organ} images, {self.healthy} healthy and {self.lesion} diseased"
        slices = f"{self.organ} slices of the {source.organ}, {self.healthy} of them healthy"
        return f"{slices}, and {self.lesion} with lesions"


def prepare(
    source: str,
    src: str,
    dst: str,
    split: str = "patient",
    fractions: Sequence[float] | None = None,
    seed: int = 0,
    min_organ_pixels: int = 500,
    link: str = "symlink",
    exclude_ircad: bool = False,
    finding: str = "Pleural Effusion",
    views: str = "all",
    structure: str = "kidneys",
    sequences: Sequence[str] = ("t1", "t1ce", "flair"),
    brain_masks: str | None = None,
    with_skull: bool = False,
    fold: int = 0,
    both_labels: bool = False,
) -> None:
    """Check, convert, count and split the cases of a data set, and write its ``dataset.json``.

    Every file is read. Bad ones are named with the reason and left out, the others are prepared all the same. Whole
    volumes are kept, as training itself chooses among their slices; those without a healthy slice are left out of it.

    With ``split`` slice, LiTS is divided as by Shi et al. 2024 (GDPI), section III A: 11,035 healthy slices for
    training and 716 with tumours for testing, from the same 130 scans. Patients are then in both parts, and results are
    better than they would be for new patients.

    Args:
        source: ``lits``, ``msd_liver``, ``ircad``, ``nifti``, ``dicom``, ``brats``, ``msd_brain``, ``msd_pancreas``,
            ``kaggle_3m``, ``kits``, ``chaos``, ``chexpert`` or ``nih``; see ``common.data.sources`` for their files.
        src: the folder that was downloaded.
        dst: the folder to fill; neither may lie in the other.
        split: ``patient`` puts each patient in one part. ``slice`` puts all in ``training``, with ``slices`` "healthy",
            and those with lesions in ``testing``, with ``slices`` "lesion"; a fraction is in ``validation`` as well,
            without ``slices``. It is not for ``chexpert`` and ``nih``, whose films have no slices.
        fractions: of the patients for training, validation and testing, 0.7, 0.1 and 0.2; for ``ircad`` all are for
            testing. A part of 0 stays empty, any other gets a patient at least. Patients with bad files count too, so
            that mending them moves no one else.
        seed: of the split.
        min_organ_pixels: smallest area of the organ, in pixels of the image itself, that makes a slice of the organ.
            Shi et al. state none.
        link: ``symlink``, ``hardlink`` or ``copy`` images that need no conversion.
        exclude_ircad: of ``lits``, leave out volumes 28 to 47, which are the scans of ``ircad``.
        finding: of ``chexpert`` and ``nih``, the disease; "No Finding" is healthy.
        views: of the same, the frontal films that are taken: ``all``, ``PA`` or ``AP``.
        structure: of ``chaos``, what is looked for: ``kidneys``, ``liver`` or ``spleen``.
        sequences: of ``kaggle_3m``, those that are written; patients without one of them are left out.
        brain_masks: of ``kaggle_3m``, a folder of masks of the brain, ``<case>.nii.gz``.
        with_skull: of ``kaggle_3m``, write images as they are, with the skull, to make such masks of.
        fold: which patients are for testing: with a fraction of 0.25 for testing, folds 0 to 3 are those of a cross
            validation.
        both_labels: of CT, the labels are 1 in the organ and 2 in its lesions, as ``difftumor_segmentation`` reads
            them, and cases without a healthy slice stay in training.

    Raises:
        FileNotFoundError: if there are no such files in ``src``.
        ImportError: if DICOM is to be read without the extra for it.
        SystemExit: with status 1, naming the cases that failed.
        ValueError: if an argument is not as it should be, or two cases have one name.
    """
    folder, target = Path(str(src)), Path(str(dst))
    options: dict[str, Any] = {
        "exclude_ircad": exclude_ircad,
        "finding": finding,
        "views": views,
        "structure": structure,
        "sequences": ensure_tuple(sequences),
        "brain_masks": brain_masks,
        "with_skull": with_skull,
    }
    _refuse_arguments(source, folder, target, split, link, options)
    data_set = SOURCES[source]
    if both_labels and "organ" not in data_set.masks:
        raise ValueError(f"both_labels is for data sets with masks of an organ and its lesions, got source {source}.")
    scans = data_set.find(folder, **{name: options[name] for name in data_set.options})
    if fractions is None:
        fractions = data_set.fractions
    part_of = split_patients((scan.patient for scan in scans), fractions, seed, fold)

    failures, twins = Failures(), twins_of((scan.case, scan.patient) for scan in scans)
    items, counts = [], {}
    with logging_redirect_tqdm():
        for scan in bar(scans, desc=f"preparing {data_set.name}"):
            with failures.recording(scan.case, "preparing it"):
                check_name(scan.case)
                if scan.case in twins:
                    patients = ", ".join(twins[scan.case])
                    raise BadFileError(
                        f"{scan.case}: expected a case of a name of its own, got that of several, of the patients "
                        f"{patients}; rename them, or the folders they lie in."
                    )
                volume = scan.read()
                item = _write_case(scan, volume, data_set.masks, target, link, both_labels)
                counts[scan.case] = _counted(scan.case, volume, min_organ_pixels, data_set)
                items.append(item)

    modalities = options["sequences"] if "sequences" in data_set.options else data_set.modality
    used = [part for part, fraction in zip(PARTS, fractions, strict=True) if fraction]
    parts = _parts(items, counts, part_of, used, split, data_set, all_cases=both_labels)
    description = f"{data_set.description.format(organ=data_set.organ, **options)} Source: {source}."
    if split == "slice" and parts["training"] and parts["testing"]:
        leak = "Patients are in both training and testing: results are better than they would be for new patients."
        logger.warning(leak)
        description += f" {leak}"
    content = {
        "name": data_set.name,
        "description": description,
        "modality": {str(i): modality for i, modality in enumerate(modalities)},
        "seed": seed,
        "split": split,
        "fractions": list(fractions),
        "fold": fold,
        **parts,
    }
    if both_labels:
        description += " Labels: 1 the organ, 2 its lesions."
        content |= {"description": description, "labels": {"0": "background", "1": data_set.organ, "2": "tumour"}}
    if items:
        write_text(target / "dataset.json", json.dumps(content, indent=2))
    failures.exit_if_any()


def split_patients(patients: Iterable[str], fractions: Sequence[float], seed: int, fold: int = 0) -> dict[str, str]:
    """Return the part that each patient is in.

    The order is that of a hash, so it is the same everywhere, and a patient more or less moves few others.

    Args:
        patients: their names, any number of times.
        fractions: of training, validation and testing; they sum to 1.
        seed: gives another order.
        fold: which patients are for testing; folds share none, and the last of 1 / fraction of them completes them.

    Raises:
        ValueError: if these are no three fractions, there are fewer patients than parts, or no such fold.
    """
    numbers = [f for f in np.ravel(fractions).tolist() if isinstance(f, int | float) and f >= 0]
    if len(numbers) != len(PARTS) or abs(sum(numbers) - 1) > 1e-6:
        raise ValueError(
            f"fractions must be three numbers, for {', '.join(PARTS)}, that sum to 1, as 0.7,0.1,0.2, got {fractions}."
        )
    order = in_drawn_order(set(patients), seed)
    num_folds = int(1 / fractions[2] + 1e-6) if fractions[2] else 1
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold must be one of 0 to {num_folds - 1}, as {fractions[2]:g} are for testing, got {fold}.")
    tested, after = (round(len(order) * fractions[2] * count) for count in (fold, fold + 1))
    order = order[-tested:] + order[:-tested]
    targets = [len(order) * fractions[0], len(order) * fractions[1], after - tested]
    sizes = [max(1, round(size)) if fraction else 0 for size, fraction in zip(targets, fractions, strict=True)]
    sizes[int(np.argmax(fractions))] += len(order) - sum(sizes)
    if any(size < 1 for size, fraction in zip(sizes, fractions, strict=True) if fraction):
        raise ValueError(
            f"expected a patient at least for each part of the fractions {fractions}, got {len(order)}: "
            "put all in one part, as with --fractions 0,0,1."
        )
    return dict(zip(order, np.repeat(PARTS, sizes).tolist(), strict=True))


def count_slices(volume: Volume, min_organ_pixels: int) -> SliceCounts:
    """Count the axial slices of a volume, whichever of its axes they lie along."""
    shape = volume.channels[0].voxels.shape
    axis = axial_axis(volume.affine, len(shape))

    def pixels(mask: NDArray) -> NDArray[np.int64]:
        return np.moveaxis(np.atleast_3d(mask), 2 if axis is None else axis, -1).sum((0, 1))

    everywhere = pixels(np.ones(shape, dtype=bool)) > 0
    organ = everywhere if volume.organ is None else pixels(volume.organ) >= min_organ_pixels
    lesion = ~everywhere if volume.label is None else pixels(volume.label > 0) > 0
    # Where a case is diseased and nobody has drawn in which slices, none can be taken for healthy.
    healthy = ~everywhere if volume.label is None and volume.diseased else organ & ~lesion
    return SliceCounts(int(organ.sum()), int(healthy.sum()), int(lesion.sum()))


def _parts(
    items: list[dict[str, Any]],
    counts: dict[str, SliceCounts],
    part_of: dict[str, str],
    used: Sequence[str],
    split: str,
    source: Source,
    all_cases: bool,
) -> dict[str, list[dict[str, Any]]]:
    """Return the items of each part, without those that have no slice for it, unless all cases are wanted."""
    parts: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for item in items:
        case, own = item["case"], part_of[item["patient"]]
        for part in [own] if split == "patient" else [part for part in used if part in (*SLICES, own)]:
            if part == "training" and source.slices and not counts[case].healthy and not all_cases:
                logger.warning(f"{case} is left out of training: it has no healthy slice of the {source.organ}.")
            elif part == "testing" and split == "slice" and not counts[case].lesion:
                logger.warning(f"{case} is left out of testing: it has no slice with lesions.")
            else:
                parts[part].append(item | ({"slices": SLICES[part]} if split == "slice" and part in SLICES else {}))
    for part, chosen in {"all": items, **parts}.items():
        totals = SliceCounts(*np.sum([(0, 0, 0), *(counts[item["case"]] for item in chosen)], axis=0).tolist())
        logger.info(f"{part}, {len(chosen)} of {len(items)} cases: {totals.in_words(source)}.")
    undrawn = [item["case"] for item in parts["training"] if "image_label" not in item]
    if undrawn:
        logger.warning(f"taken as healthy in training, as no mask shows their lesions: {', '.join(undrawn)}.")
    return parts


def _counted(case: str, volume: Volume, min_organ_pixels: int, source: Source) -> SliceCounts:
    """Return the slices of a case, and log them and what is unusual in it."""
    for channel in volume.channels:
        header = [] if channel.file is None or is_film(channel.file) else unusual_header(channel.file)
        for remark in [*header, *source.unusual(channel.voxels, volume.affine)]:
            logger.warning(f"{case}{channel.ending}: {remark}.")
    if not source.slices:  # films come in tens of thousands, so that only their sum is worth a line
        return SliceCounts(1, int(not volume.diseased), int(bool(volume.diseased)))
    counts = count_slices(volume, min_organ_pixels)
    masks = {f"the {source.organ}": volume.organ, "lesions": volume.label}
    unknown = [name for name, mask in masks.items() if mask is None]
    note = f" (no mask of {' or of '.join(unknown)})" if unknown else ""
    logger.info(f"{case}: {counts.in_words(source)}{note}.")
    return counts


def _write_case(
    scan: Scan, volume: Volume, masks: Sequence[str], dst: Path, link: str, both_labels: bool
) -> dict[str, Any]:
    """Write or link the files of a case and return its item."""
    images = [_write_image(channel, scan.case, volume.affine, dst, link) for channel in volume.channels]
    item: dict[str, Any] = {"case": scan.case, "patient": scan.patient}
    item["image"] = images if len(images) > 1 else images[0]
    label: Any = volume.label
    if both_labels and volume.organ is not None and label is not None:
        label = volume.organ.astype(np.uint8) + label
    for key, mask in (("organ", volume.organ), ("label", label)):
        if key in masks and mask is not None:
            item[key] = f"{key}s/{scan.case}.nii.gz"
            _write_nifti(mask.astype(np.uint8), volume.affine, dst / item[key])
    if volume.image_label is not None:
        item["image_label"] = volume.image_label
    if scan.site:
        item["site"] = scan.site
    return item


def _write_image(channel: Channel, case: str, affine: NDArray[np.float64], dst: Path, link: str) -> str:
    """Write or link one image of a case and return its place in ``dst``."""
    suffix = ".nii.gz" if channel.file is None or channel.file.suffix == ".gz" else channel.file.suffix
    place = f"images/{case}{channel.ending}{suffix}"
    if channel.file is None:
        _write_nifti(_compact(channel.voxels), affine, dst / place)
    else:
        _link(channel.file, dst / place, link)
    return place


def _compact(voxels: NDArray[np.float32]) -> NDArray:
    """Return whole numbers as int16, anything else as it is."""
    whole = np.clip(np.rint(voxels), -(2**15), 2**15 - 1)
    return whole.astype(np.int16) if np.array_equal(whole, voxels) else voxels


def _write_nifti(voxels: NDArray, affine: NDArray[np.float64], path: Path) -> None:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _link(source: Path, target: Path, link: str) -> None:
    with replacing(target) as temporary:
        try:
            LINKS[link](source.resolve(), temporary)
        except (OSError, NotImplementedError) as error:
            if link == "copy":
                raise
            logger.warning(f"{target} is copied, as no {link} is possible: {error}.")
            shutil.copyfile(source, temporary)


def _refuse_arguments(source: str, src: Path, dst: Path, split: str, link: str, options: Mapping[str, Any]) -> None:
    for name, value, known in (
        ("source", source, SOURCES),
        ("split", split, ("patient", "slice")),
        ("link", link, LINKS),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    if split == "slice" and not SOURCES[source].slices:
        raise ValueError(f"split slice is for volumes, got source {source}, whose cases are single films.")
    for name, value in options.items():
        owners = [key for key, data_set in SOURCES.items() if name in data_set.options]
        if source not in owners and value != inspect.signature(prepare).parameters[name].default:
            raise ValueError(f"{name} is for {', '.join(owners)}, got source {source}.")
    if not src.is_dir():
        raise FileNotFoundError(f"{src}: expected a folder, got none there.")
    folders = src.resolve(), dst.resolve()
    if any(a.is_relative_to(b) for a, b in (folders, folders[::-1])):
        raise ValueError(f"src and dst must be folders that do not contain each other, got {src} and {dst}.")


def _refuse_unknown_options(arguments: Sequence[str]) -> None:
    """Refuse a misspelt option; fire itself does so only after the work is done without it."""
    known = {*inspect.signature(prepare).parameters, "help", ""}
    for argument in arguments:
        name = argument[2:].partition("=")[0].replace("-", "_")
        if argument.startswith("--") and name not in known:
            raise ValueError(f"expected options {', '.join(sorted(known - {'help', ''}))}, got {argument}.")


def main() -> None:
    """Run ``prepare`` from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _refuse_unknown_options(sys.argv[1:])
        fire.Fire(prepare, name="python -m common.data.prepare")
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
