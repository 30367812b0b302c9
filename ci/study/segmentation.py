"""Segmentations with their uncertainty compared: an ensemble, its single runs, and other sources of uncertainty."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from common.files import write_csv
from common.metrics.intervals import with_interval
from common.metrics.segmentation import (
    THRESHOLD,
    SegmentationRecord,
    examine_segmentation,
    examine_sizes,
    segmentation_statistics,
    summarise_sizes,
)
from common.metrics.statistics import Row, Statistic, difference, mean_of
from common.phantoms.__main__ import write_phantoms
from common.report.figures import Panel, box_around, members_figure, panel_grid, png
from common.report.page import Picture, Section, write_page
from common.transforms.organ import foreground

from .. import ROOT
from .answers import NUM_PATIENTS, SCANNERS, Case, Source, cases_of, display_of, kept_answers
from .tables import on_page

ENSEMBLE = 5
"""Members of the ensembles that are compared, as in the paper's Table 1."""

METRICS = {
    "dice": "Dice, mean of slices",
    "dice_with_a_mask": "Dice, mean of slices with a mask",
    "jaccard": "Jaccard, mean of slices",
    "hd95_mm": "HD95, mm, mean of slices with a mask",
    "empty": "share of slices without a mask",
    "calibration_error": "expected calibration error",
    "errors_auroc": "AUROC of the uncertainty for errors",
    "retention_area": "area under the error retention curve",
    "correlation": "correlation of Dice and mean uncertainty over slices (Spearman)",
}
"""Columns of the table."""

OF_UNCERTAINTY = ("errors_auroc", "retention_area", "correlation")
"""Those that what is drawn once has not."""

CHEAP_DRAWS = 50
"""Members of what needs one call of its network for all of them."""

COMPARED = ("dice", "hd95_mm", "calibration_error", "errors_auroc")
"""Those that have a column for the difference of the first row."""


class Segmenter(NamedTuple):
    """What draws segmentations.

    Attributes:
        source: the inferer, which gives its members.
        members: that are compared; of one alone there is no variance.
    """

    source: Source
    members: int = ENSEMBLE


def segmenters(bundle: str, num_members: int) -> dict[str, Segmenter]:
    """Return what is compared, the bundle's own first."""
    members = {"inferer::with_members": True}
    ours = Source(bundle, "inference", "inferer", {"num_samples": num_members, **members})

    def baseline(part: str, count: int) -> Source:
        return Source(bundle, "baselines", "inferer", {"part": part, "num_samples": count, **members})

    return {
        "diffusion": Segmenter(ours),
        "U-Net with dropout (Bayesian SegNet's place)": Segmenter(baseline("dropout", num_members)),
        "U-Net with its own variance (aleatoric)": Segmenter(baseline("aleatoric", CHEAP_DRAWS), CHEAP_DRAWS),
        "U-Net (SegNet's place)": Segmenter(baseline("unet", 1), 1),
        "DynUNet (nnU-Net's place)": Segmenter(baseline("dynunet", 1), 1),
    }


def segmentation_study(
    bundle: str = "ensemble_segmentation",
    output_dir: str | None = None,
    num_workers: int = 2,
    num_members: int = 10,
    num_patients: int = NUM_PATIENTS,
) -> None:
    """Write ``study_<scanner>.csv``, ``members_<scanner>.csv`` and ``report.html`` to ``<num_members>_members``.

    Args:
        bundle: name of the folder in ``bundles/``.
        output_dir: default ``work/<bundle>/study`` in the repository.
        num_workers: processes that draw phantoms.
        num_members: that are drawn, 5 at least; 100 for the paper's Table 2 and Figure 5.
        num_patients: of each scanner, the first ones.
    """
    if num_members < ENSEMBLE:
        raise ValueError(f"num_members must be >= {ENSEMBLE}, got {num_members}.")
    folder = Path(output_dir or ROOT / "work" / bundle / "study").resolve()
    tables = folder / f"{num_members}_members"
    methods, sections = segmenters(bundle, num_members), []
    for scanner, meaning in SCANNERS.items():
        data = folder / f"scanner_{scanner}"
        if not (data / "dataset.json").is_file():
            sizes: dict[str, Any] = {"shape": (64, 76, 4), "spacing": (3.0, 3.0, 12.0), "healthy_share": 0.0}
            sizes |= {"validation": 2, "testing": NUM_PATIENTS}
            write_phantoms("brain_mr", str(data), scanner=scanner, num_workers=num_workers, **sizes)
        organ = partial(lambda inputs: foreground(inputs)[0])
        cases = list(cases_of(bundle, data, "testing", organ))[:num_patients]
        drawn = {
            name: list(kept_answers(method.source, folder, cases, f"testing_{scanner}", slice(4, None), name))
            for name, method in methods.items()
        }
        found = rows_of(methods, drawn, cases)
        table = compare(found)
        write_csv(tables / f"study_{scanner}.csv", table)
        pairs = zip(drawn["diffusion"], cases, strict=True)
        sizes_table = summarise_sizes([examine_sizes(m, c.organ, c.truth, c.spacing_mm) for m, c in pairs])
        write_csv(tables / f"members_{scanner}.csv", sizes_table)
        sections += [
            Section(f"Scanner {scanner}: {meaning}", [explanation(len(cases))], [on_page(row) for row in table]),
            Section(
                f"Scanner {scanner}: members of the ensemble",
                ["Slices with tumour; of the single runs, mean and standard deviation over the runs."],
                sizes_table,
                [Picture("", png(members_figure(sizes_table)))],
            ),
            Section(
                f"Scanner {scanner}: where it is uncertain",
                ["The patients of highest, median and lowest Dice; lime: tumour; variance of all members."],
                pictures=[Picture("", png(panels(bundle, cases, drawn, found)))],
            ),
        ]
    write_page(tables / "report.html", f"Study of {bundle} on phantoms", sections, "Synthetic images, no patients.")
    print(f"report: {tables / 'report.html'}")


def explanation(num_patients: int) -> str:
    """Return what is to be known of the table."""
    return (
        f"{num_patients} patients, never trained on; 95 % intervals over patients. One run: mean over the members. "
        f"Ensembles have {ENSEMBLE} members, the aleatoric one {CHEAP_DRAWS}, which one call of its network gives. "
        "Differences: the first row minus this one, patients drawn alike."
    )


Runs = list[list[SegmentationRecord]]
"""For each run the records of all cases."""


def rows_of(
    methods: Mapping[str, Segmenter], drawn: Mapping[str, Sequence[NDArray[np.float32]]], cases: Sequence[Case]
) -> dict[str, Runs]:
    """Return the rows of the table: the ensemble, its single runs, and the others."""
    found: dict[str, Runs] = {"ensemble": [], "one run": []}
    for name, method in methods.items():
        if name == "diffusion":
            found["ensemble"] = [records(cases, [m[:ENSEMBLE] for m in drawn[name]])]
            runs = range(ENSEMBLE)
            found["one run"] = [records(cases, [m[run : run + 1] for m in drawn[name]]) for run in runs]
        else:
            found[name] = [records(cases, [m[: method.members] for m in drawn[name]])]
    return found


def records(cases: Sequence[Case], members: Sequence[NDArray[np.float32]]) -> list[SegmentationRecord]:
    """Return the records of all cases, segmented by the mean of the members of each, shape (N, X, Y, Z)."""
    made = []
    for case, drawn in zip(cases, members, strict=True):
        mean, variance = drawn.mean(0), drawn.var(0)
        maps = (mean, variance, (mean > THRESHOLD) & case.organ, case.organ, case.truth)
        made.append(examine_segmentation(case.name, case.name, *maps, case.spacing_mm))
    return made


def compare(found: Mapping[str, Runs]) -> list[Row]:
    """Return the table: a row a method, with intervals, and with the differences of the first to it."""
    patients = [record.patient for record in next(iter(found.values()))[0]]
    statistics = {name: [segmentation_statistics(run) for run in runs] for name, runs in found.items()}

    def number(name: str, metric: str) -> Statistic:
        if metric in OF_UNCERTAINTY and not any(record.row["mean_uncertainty"] for record in found[name][0]):
            return lambda weights: float("nan")
        return mean_of([run[METRICS[metric]] for run in statistics[name]])

    table, first = [], next(iter(found))
    for name in tqdm(found, desc="intervals", leave=False):
        row: Row = {"method": name}
        for metric in METRICS:
            row |= with_interval(metric, number(name, metric), patients)
        for metric in COMPARED:
            ahead = difference(number(first, metric), number(name, metric))
            row |= with_interval(f"{metric}_difference", ahead, patients)
        table.append(row)
    return table


def panels(
    bundle: str, cases: Sequence[Case], drawn: Mapping[str, Sequence[NDArray[np.float32]]], found: Mapping[str, Runs]
) -> Figure:
    """Return three patients with the mean and the variance of what is drawn several times, the paper's Figure 5."""
    order = np.argsort([-record.row["dice"] for record in found["ensemble"][0]])
    display = display_of(bundle)

    def row(index: int) -> Iterator[Panel]:
        case = cases[index]
        z = int(case.truth.sum((0, 1)).argmax())
        here: Any = (*box_around(case.organ, margin=2), z)
        outlines, window = {"lime": case.truth[here]}, display.window_of(case.image)
        yield Panel(case.name, case.image[here], outlines=outlines, window=window)
        for name, members in drawn.items():
            if len(members[index]) > 1:
                short = name.split(" (")[0]
                yield Panel(f"{short}: mean", members[index].mean(0)[here], outlines=outlines, window=(0.0, 1.0))
                variance = members[index].var(0)[here]
                yield Panel("variance", case.image[here], variance, outlines, window, display.map_window)

    chosen = dict.fromkeys(int(order[i]) for i in (0, len(order) // 2, -1))  # fewer patients have fewer rows
    return panel_grid([list(row(index)) for index in chosen])
