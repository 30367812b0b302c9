"""Compare a bundle's method with its baselines and controls on phantoms: ``python -m ci.study gdpi``.

Patients, seeds and rows are fixed here; the budgets of the trained methods are those of ``ci.train_demo``.
``--tune True`` compares settings on validation patients instead. Healthy versions are kept in the output folder, so
that a study can be continued.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fire
import numpy as np
import torch
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from tqdm import tqdm

from common.checkpoints import load_parts
from common.handlers import write_csv
from common.metrics.intervals import patient_bootstrap
from common.metrics.pixels import Curve, PooledCounts
from common.metrics.tables import CaseRecord, Row, examine_case, summarise
from common.phantoms.__main__ import abdomen_ct
from common.report.figures import Panel, box_around, curves_figure, panel_grid, png
from common.report.page import Picture, Section, write_page
from common.transforms.anomaly import anomaly_map

from . import ROOT, bundle_parser

SCANNERS = {"a": "the scanner of the training", "b": "another scanner, nothing tuned on it"}
NUM_PATIENTS, NUM_VALIDATION, NUM_SEEDS, NUM_BOOTSTRAPS = 20, 12, 3, 1000
ROUND_TO_HU = 1
"""Decimals of the scores that are counted, so that few differ."""


class Method(NamedTuple):
    """What makes a healthy version of a volume, and the rows of the table that it gives.

    Attributes:
        rows: radii of the final filter (see ``smooth``), pixels, by the name of the row.
        config: of the bundle, that has the inferer.
        settings: keys of the config that differ from its defaults.
        inferer: id in the config.
        drawn: whether seeds make a difference.
    """

    rows: Mapping[str, Sequence[int]]
    config: str = "inference"
    settings: Mapping[str, Any] = {}
    inferer: str = "inferer"
    drawn: bool = False


PAPER: dict[str, Any] = {"num_samples": 1, "hole_threshold_hu": 20, "fill_range": None}
PAPER |= {"prefilter_radius": 0, "dilation": 0, "min_component": 0, "rim_erosion": 0}
"""Hole and draw of Shi et al. 2024. Its 250 steps with r = 10 are left out, as they take a CPU days."""

MEDIAN = {
    "inferer": {
        "_target_": "common.inferers.anomaly.MedianAnomalyInferer",
        "window": "@hu_window",
        "pixel_mm": "@pixel_mm",
        "hole": "@hole",
    }
}
FILTERS: list[Sequence[int]] = [[0], [1], [2], [3], [1, 1]]


def gdpi_methods(default_radius: Sequence[int]) -> list[Method]:
    """Return the rows of the paper's Tables I to IV, and the controls; the first row is the bundle's default.

    Args:
        default_radius: the bundle's ``median_radius``.
    """
    return [
        Method({"GDPI": default_radius, "GDPI-WD (no filter)": [0]}, drawn=True),
        Method({"GDPI, paper's hole": [2], "GDPI-WD, paper's hole": [0]}, settings=PAPER, drawn=True),
        Method(
            {"GDPI-WR (whole liver)": default_radius, "GDPI-WRD (whole liver, no filter)": [0]},
            settings={"adaptive_mask": False},
            drawn=True,
        ),
        *(
            Method(
                {name.upper(): [2], f"{name.upper()}, filter {default_radius}": default_radius},
                "baselines",
                {},
                f"{name}::inferer",
            )
            for name in ("ae", "vae", "dae")
        ),
        Method({f"control: median in the hole, filter {r}": r for r in FILTERS}, settings=MEDIAN),
        Method({f"control: median in the paper's hole, filter {r}": r for r in FILTERS}, settings=MEDIAN | PAPER),
        Method(
            {f"control: median in the whole liver, filter {r}": r for r in FILTERS},
            settings=MEDIAN | {"adaptive_mask": False},
        ),
    ]


def gdpi_tuning() -> list[Method]:
    """Return the settings that are tried on validation patients, each with the control that has the same hole."""
    methods = []
    for prefilter, threshold, dilation in (([1], 20, 1), ([1, 1], 15, 1), ([2], 15, 3), ([2], 10, 2)):
        hole = {"prefilter_radius": prefilter, "hole_threshold_hu": threshold, "dilation": dilation}
        named = f"hole {prefilter}, {threshold} HU, {dilation}"
        methods.append(Method({f"{named}: median, filter {r}": r for r in FILTERS}, settings=MEDIAN | hole))
        for steps, draws, limit in ((15, 1, 15), (15, 3, 15), (15, 3, 30), (25, 3, 15), (10, 5, 15)):
            drawing = {"num_inference_steps": steps, "num_samples": draws, "fill_range": [-limit, limit]}
            rows = {f"{named}: {steps} steps, {draws} draws, {limit} HU, filter {r}": r for r in FILTERS}
            methods.append(Method(rows, settings=hole | drawing, drawn=True))
    return methods


METHODS: dict[str, Callable[[Sequence[int]], list[Method]]] = {"gdpi": gdpi_methods}
TUNING: dict[str, Callable[[], list[Method]]] = {"gdpi": gdpi_tuning}


class Case(NamedTuple):
    """A patient on the config's grid: arrays of shape (X, Y, Z), and both channels as the inferer takes them."""

    name: str
    inputs: torch.Tensor
    image: NDArray[np.float32]
    organ: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    spacing_mm: list[float]


Records = dict[str, list[list[CaseRecord]]]
"""By row: for each seed the records of all cases."""


def study(bundle: str, output_dir: str | None = None, tune: bool = False, num_workers: int = 2) -> None:
    """Write the tables as CSV, and ``report.html``.

    Args:
        bundle: name of the folder in ``bundles/``.
        output_dir: default ``work/<bundle>/study`` in the repository.
        tune: compare settings on validation patients instead, without intervals.
        num_workers: processes that draw phantoms.
    """
    folder = Path(output_dir or ROOT / "work" / bundle / "study").resolve()
    for scanner in SCANNERS:
        data = folder / f"scanner_{scanner}"
        if not (data / "dataset.json").is_file():
            abdomen_ct(
                str(data), validation=NUM_VALIDATION, testing=NUM_PATIENTS, scanner=scanner, num_workers=num_workers
            )
    validation = list(read_cases(bundle, folder / "scanner_a", "validation"))
    if tune:
        found = examine(bundle, folder, TUNING[bundle](), validation, "validation", 1)
        rows = sorted((_plain_row(name, records) for name, records in found.items()), key=lambda row: -row["ap"])
        write_csv(folder / "tuning.csv", rows)
        for row in rows:
            print("  ".join(f"{value:.3f}" if isinstance(value, float) else f"{value:60s}" for value in row.values()))
        return

    methods = METHODS[bundle](
        list(ensure_tuple(bundle_parser(bundle, "inference").get_parsed_content("median_radius")))
    )
    fitted = {
        row: float(np.mean([_pooled(r).curve().best_dice()[1] for r in records]))
        for row, records in examine(bundle, folder, methods, validation, "validation", 1).items()
    }
    sections = []
    for scanner, meaning in SCANNERS.items():
        cases = list(read_cases(bundle, folder / f"scanner_{scanner}", "testing"))
        found = examine(bundle, folder, methods, cases, f"testing_{scanner}", NUM_SEEDS, fitted)
        rows = compare(found, fitted)
        write_csv(folder / f"study_{scanner}.csv", rows)
        default = next(iter(found))
        sizes = summarise(found[default][0], fitted[default], NUM_BOOTSTRAPS)
        write_csv(folder / f"by_lesion_{scanner}.csv", sizes)
        curves = {row: _pooled(records[0]).curve() for row, records in found.items() if _in_figures(row)}
        sections += [
            Section(
                f"Scanner {scanner}: {meaning}", [EXPLANATION], rows, [Picture("Seed 0.", png(curves_figure(curves)))]
            ),
            Section(f"Scanner {scanner}: {default} by size of the lesion, seed 0", rows=sizes),
            Section(
                f"Scanner {scanner}: maps of all methods",
                ["The patients of highest, median and lowest AP by the default settings; lime: lesions."],
                pictures=[
                    Picture("", png(panels(bundle, folder, methods, cases, f"testing_{scanner}", found[default][0])))
                ],
            ),
        ]
    write_page(folder / "report.html", f"Study of {bundle} on phantoms", sections, "Synthetic images, no patients.")
    print(f"report: {folder / 'report.html'}")


EXPLANATION = (
    f"{NUM_PATIENTS} patients, never trained on; all pixels of the liver pooled; mean of {NUM_SEEDS} seeds where a "
    "method draws; 95 % intervals over patients. A difference is that of the first row minus this one, patients "
    "drawn alike. Thresholds of 'dice' were fitted on validation patients of scanner a."
)


def read_cases(bundle: str, dataset_dir: Path, split: str) -> Iterator[Case]:
    """Yield the cases of a data set as the bundle's own preprocessing gives them."""
    parser = bundle_parser(bundle, "inference", dataset_dir=str(dataset_dir), split=split, organ_source="file")
    for item in parser.get_parsed_content("dataset"):
        inputs, truth = item["image"], item["label"]
        arrays = (inputs[0].numpy(), inputs[1].numpy() > 0, truth[0].numpy() > 0)
        yield Case(str(item["case"]), inputs[None], *arrays, [float(s) for s in inputs.pixdim])


def examine(
    bundle: str,
    folder: Path,
    methods: Sequence[Method],
    cases: Sequence[Case],
    split: str,
    num_seeds: int,
    thresholds: Mapping[str, float] | None = None,
) -> Records:
    """Return the records of all rows; healthy versions that lie in the folder are not made again."""
    found: Records = {}
    for index, method in enumerate(methods):
        for seed in range(num_seeds if method.drawn else 1):
            versions = healthy_versions(bundle, folder, method, cases, split, seed)
            rows: dict[str, list[CaseRecord]] = {row: [] for row in method.rows}
            for case, healthy in zip(cases, versions, strict=True):
                for row, radius in method.rows.items():
                    scores = np.round(anomaly_map(case.image, healthy, case.organ, radius), ROUND_TO_HU)
                    mask = (scores >= (thresholds or {}).get(row, np.inf)) & case.organ
                    rows[row].append(
                        examine_case(case.name, case.name, scores, mask, case.organ, case.truth, case.spacing_mm)
                    )
            for row, records in rows.items():
                found.setdefault(row, []).append(records)
                ap = _pooled(records).curve().average_precision()
                print(f"{split} {index + 1}/{len(methods)} seed {seed} {row}: AP {ap:.3f}", flush=True)
    return found


def healthy_versions(
    bundle: str, folder: Path, method: Method, cases: Sequence[Case], split: str, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the healthy version of each case, HU."""
    settings = {**method.settings, **({"seed": seed} if method.drawn else {})}
    parser = bundle_parser(bundle, method.config, **settings)
    weights = Path(parser.get_parsed_content("model_path"))
    config = ROOT / "bundles" / bundle / "configs" / f"{method.config}.json"
    made_from = config.read_bytes() + weights.read_bytes() + json.dumps(settings).encode()
    kept = folder / "healthy" / split / f"{method.inferer.split('::')[0]}_{hashlib.sha256(made_from).hexdigest()[:12]}"
    network = None
    for case in tqdm(cases, desc=next(iter(method.rows)), leave=False):
        path = kept / f"{case.name}.npz"
        if not path.is_file():
            if network is None:
                inferer, network = parser.get_parsed_content(method.inferer), parser.get_parsed_content("network")
                inferer.progress = False
                load_parts(network, str(weights))
                network.eval()
            path.parent.mkdir(parents=True, exist_ok=True)
            healthy = inferer(case.inputs.to(parser.get_parsed_content("device")), network)[0, 1]
            np.savez_compressed(path, healthy=healthy.cpu().numpy())
        yield np.load(path)["healthy"]


def compare(found: Records, thresholds: Mapping[str, float]) -> list[Row]:
    """Return the table: a row a method, with intervals, and with the difference of the first to it."""
    patients = [record.patient for record in next(iter(found.values()))[0]]
    default = next(iter(found))
    pooled = {row: [_pooled(records) for records in seeds] for row, seeds in found.items()}

    def metrics(row: str) -> dict[str, Callable[[NDArray[np.float64]], float]]:
        def mean_of_seeds(metric: Callable[[Curve], float]) -> Callable[[NDArray[np.float64]], float]:
            return lambda weights: float(np.mean([metric(p.curve(weights)) for p in pooled[row]]))

        return {
            "auc": mean_of_seeds(Curve.auroc),
            "ap": mean_of_seeds(Curve.average_precision),
            "dice": mean_of_seeds(lambda curve: curve.dice_at(thresholds[row])),
            "dice_best_threshold_of_this_test": mean_of_seeds(lambda curve: curve.best_dice()[0]),
        }

    table = []
    for row in tqdm(found, desc="intervals", leave=False):
        numbers: Row = {"method": row}
        for name, metric in metrics(row).items():
            numbers[name] = metric(np.ones(len(patients)))
            numbers[f"{name}_low"], numbers[f"{name}_high"] = patient_bootstrap(patients, metric, NUM_BOOTSTRAPS)
        for name in ("ap", "dice"):
            ours, theirs = metrics(default)[name], metrics(row)[name]
            difference = partial(_difference, ours, theirs)
            numbers[f"{name}_difference"] = difference(np.ones(len(patients)))
            low, high = patient_bootstrap(patients, difference, NUM_BOOTSTRAPS)
            numbers[f"{name}_difference_low"], numbers[f"{name}_difference_high"] = low, high
        numbers["threshold"] = thresholds[row]
        numbers["normal_slice_mean"] = _normal_slice_mean(found[row])
        table.append(numbers)
    return table


def _difference(ours: Callable[..., float], theirs: Callable[..., float], weights: NDArray[np.float64]) -> float:
    return ours(weights) - theirs(weights)


def panels(
    bundle: str,
    folder: Path,
    methods: Sequence[Method],
    cases: Sequence[Case],
    split: str,
    records: Sequence[CaseRecord],
) -> Any:
    """Return the figure of three patients by all methods, as the paper's Figures 6 to 11."""
    order = np.argsort([-record.row["ap"] for record in records], kind="stable")
    chosen = [int(order[0]), int(order[len(order) // 2]), int(order[-1])]
    rows = []
    for index in chosen:
        case = cases[index]
        z = int(case.truth.sum((0, 1)).argmax())
        here: Any = (*box_around(case.organ, margin=4), z)
        outlines = {"lime": case.truth[here]}
        row = [Panel(case.name, case.image[here], outlines={"cyan": case.organ[here], **outlines})]
        for method in methods:
            healthy = next(healthy_versions(bundle, folder, method, [case], split, 0))
            for name, radius in method.rows.items():
                if _in_figures(name):
                    scores = anomaly_map(case.image, healthy, case.organ, radius)
                    row.append(Panel(name, case.image[here], scores[here], outlines))
        rows.append(row)
    return panel_grid(rows)


def _in_figures(row: str) -> bool:
    return not row.startswith("control") or row.endswith("filter [1]")


def _plain_row(name: str, records: Sequence[Sequence[CaseRecord]]) -> Row:
    curves = [_pooled(r).curve() for r in records]
    return {
        "settings": name,
        "ap": float(np.mean([c.average_precision() for c in curves])),
        "auc": float(np.mean([c.auroc() for c in curves])),
        "dice_best_threshold": float(np.mean([c.best_dice()[0] for c in curves])),
    }


def _normal_slice_mean(seeds: Sequence[Sequence[CaseRecord]]) -> float:
    """Return the mean score in the liver of slices without lesions, HU: the paper's Table IV."""
    slices = [s for records in seeds for record in records for s in record.slice_rows if s["lesion_pixels"] == 0]
    return float(np.average([s["mean_score"] for s in slices], weights=[s["organ_pixels"] for s in slices]))


def _pooled(records: Sequence[CaseRecord]) -> PooledCounts:
    return PooledCounts([record.counts for record in records])


if __name__ == "__main__":
    fire.Fire(study)
