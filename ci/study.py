"""Compare a bundle's method with its baselines and controls on phantoms: ``python -m ci.study gdpi``.

Patients, seeds and rows are fixed here; the budgets of the trained methods are those of ``ci.train_demo``.
``--tune True`` compares settings on validation patients instead. What methods answer is kept in the output folder, so
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
from common.metrics.tables import CaseRecord, Row, average_otsu, examine_case, summarise
from common.phantoms.__main__ import abdomen_ct, brain_mr, pancreas_ct
from common.report.figures import CT, Display, Panel, box_around, curves_figure, panel_grid, png
from common.report.page import Picture, Section, write_page
from common.transforms.anomaly import anomaly_map, smooth_in
from common.transforms.organ import foreground, right_part

from . import ROOT, bundle_parser

FLAIR = 3
"""Its channel."""

SCANNERS = {"a": "the scanner of the training", "b": "another scanner, nothing tuned on it"}
NUM_PATIENTS, NUM_VALIDATION, NUM_SEEDS, NUM_BOOTSTRAPS = 20, 12, 3, 1000


class Case(NamedTuple):
    """A patient on the config's grid: arrays of shape (X, Y, Z), and the channels as the inferer takes them."""

    name: str
    inputs: torch.Tensor
    image: NDArray[np.float32]
    organ: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    spacing_mm: list[float]


class Method(NamedTuple):
    """What answers for a volume, and the rows of the table that it gives.

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
        Method(
            {"GDPI": default_radius, "GDPI-WD (no filter)": [0], **{f"GDPI, filter {r}": r for r in FILTERS}},
            drawn=True,
        ),
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


def _keys(*names: str) -> dict[str, str]:
    """Return options of an inferer that are keys of the config of the same names."""
    return {name: f"@{name}" for name in names}


GRID_KEYS = _keys("pixel_mm", "patch_size", "median_radius", "threshold", "slice_batch_size")
BRAIN_KEYS = GRID_KEYS | _keys("num_channels", "normalize", "percentile", "slice_range")
HEAD_KEYS: dict[str, Any] = GRID_KEYS | {"normalize": "@hu_window", "only_organ": True, "right_share": "@head_share"}
"""Options that all inferers of a bundle are made with."""

AUTHORS = {"index_mode": "authors", "clip_mode": "authors"}
DIFFUSION_KEYS = _keys("schedule", "noise_level", "guidance", "guidance_scale", "encode_class", "decode_class", "seed")


def _inferer(name: str, options: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the setting that puts another inferer in the place of the bundle's own."""
    return {"inferer": {"_target_": f"common.inferers.{name}", **options, **more}}


def noise_encoding_methods(
    default_radius: Sequence[int],
    paper: tuple[int, float],
    options: Mapping[str, Any],
    controls: Mapping[str, dict[str, Any]],
) -> list[Method]:
    """Return the rows that noise encoding is compared in; the first is the bundle's default.

    Args:
        default_radius: the bundle's ``median_radius``.
        paper: its noise level and guidance scale.
        options: that all inferers are made with.
        controls: settings without a network, by the name of the row.
    """
    noise = _inferer("translation.NoiseTranslationInferer", {**options, **DIFFUSION_KEYS})
    settings: dict[str, tuple[dict[str, Any], bool]] = {
        "noise encoding and guidance": ({}, False),
        "the paper's noise level and scale": ({"noise_level": paper[0], "guidance_scale": paper[1]}, False),
        "s = 0, conditioning alone": ({"guidance_scale": 0.0}, False),
        "DDPM, random noise in place of the encoding": (noise, True),
        "the released program's indices and clipping": (AUTHORS, False),  # its one draw is a single step's noise
        "saliency of the classifier": (_inferer("comparisons.AttributionInferer", options), False),
        "Grad-CAM of the classifier": (_inferer("comparisons.AttributionInferer", options, layer="norm"), False),
        **{f"control: {name}": (keys, False) for name, keys in controls.items()},
    }
    return [
        *(Method({row: default_radius}, settings=keys, drawn=drawn) for row, (keys, drawn) in settings.items()),
        Method({"VAE": default_radius}, "baselines", {}, "vae::inferer"),
    ]


def noise_encoding_tuning(noise_levels: Sequence[int], guidance_scales: Sequence[float]) -> list[Method]:
    """Return the noise levels and guidance scales that are tried on validation patients."""
    return [
        Method({f"L {level}, s {scale}, filter {r}": r for r in ([0], [1])}, settings=settings)
        for level in noise_levels
        for scale in guidance_scales
        for settings in ({"noise_level": level, "guidance_scale": scale},)
    ]


def _pancreas_head(inputs: torch.Tensor) -> torch.Tensor:
    share = bundle_parser("pancreas_anomaly", "inference").get_parsed_content("head_share")
    return right_part(inputs[1] > 0, share, axis=0)


Records = dict[str, list[list[CaseRecord]]]
"""By row: for each seed the records of all cases."""


class Study(NamedTuple):
    """What is compared on which phantoms.

    Attributes:
        write: of ``common.phantoms``, what writes them.
        methods: rows of the table, given the bundle's ``median_radius``.
        tuning: what ``--tune True`` compares.
        answer: channel of the inferer's result that is kept.
        score: (case, answer, radius) -> map.
        organ: (inputs) -> where scores count, bool, (X, Y, Z).
        case_settings: keys of the config that cases are read with.
        answer_settings: keys of all configs that methods answer with.
        otsu: thresholds are means of Otsu's on validation patients, not those of the largest Dice.
        decimals: of the scores that are counted, so that few differ.
        pairs: rows that are also compared with one another, each method with its control.
    """

    write: Callable[..., None]
    methods: Callable[[Sequence[int]], list[Method]]
    tuning: Callable[[], list[Method]]
    answer: int
    score: Callable[[Case, NDArray[np.float32], Sequence[int]], NDArray[np.float32]]
    organ: Callable[[torch.Tensor], torch.Tensor]
    case_settings: Mapping[str, Any] = {}
    answer_settings: Mapping[str, Any] = {}
    otsu: bool = False
    decimals: int = 1
    pairs: Mapping[str, str] = {}


noise_encoding_study = partial(
    Study,
    answer=0,
    score=lambda case, anomaly, radius: smooth_in(case.organ, anomaly, radius),
    answer_settings={"median_radius": 0},
    decimals=3,
)
"""The map is what is kept, before its filter."""

STUDIES = {
    "gdpi": Study(
        write=abdomen_ct,
        methods=gdpi_methods,
        tuning=gdpi_tuning,
        answer=1,
        score=lambda case, healthy, radius: anomaly_map(case.image, healthy, case.organ, radius),
        organ=lambda inputs: inputs[1] > 0,
        case_settings={"organ_source": "file"},
        pairs={f"GDPI, filter {r}": f"control: median in the hole, filter {r}" for r in FILTERS},
    ),
    "wolleb_anomaly": noise_encoding_study(
        write=partial(brain_mr, shape=(64, 76, 4), spacing=(3.0, 3.0, 12.0)),
        methods=partial(
            noise_encoding_methods,
            paper=(500, 100.0),
            options=BRAIN_KEYS,
            controls={
                "distance to the median of the head": _inferer("comparisons.MedianTranslationInferer", BRAIN_KEYS),
                "FLAIR, histogram equalised": _inferer("comparisons.EqualizedInferer", BRAIN_KEYS, channel=FLAIR),
            },
        ),
        tuning=partial(noise_encoding_tuning, (300, 500, 700), (0.0, 30.0, 100.0, 300.0)),
        organ=lambda inputs: foreground(inputs)[0],
        otsu=True,
    ),
    "pancreas_anomaly": noise_encoding_study(
        write=partial(pancreas_ct, shape=(120, 96, 5), spacing=(2.0, 2.0, 10.0)),
        methods=partial(
            noise_encoding_methods,
            paper=(300, 5.0),
            options=HEAD_KEYS,
            controls={
                "distance to the median of the organ": _inferer("comparisons.MedianTranslationInferer", HEAD_KEYS)
            },
        ),
        tuning=partial(noise_encoding_tuning, (200, 300), (0.0, 5.0, 10.0, 20.0, 50.0, 100.0)),
        organ=_pancreas_head,
        case_settings={"organ_source": "file"},
    ),
}


def study(bundle: str, output_dir: str | None = None, tune: bool = False, num_workers: int = 2) -> None:
    """Write the tables as CSV, and ``report.html``.

    Args:
        bundle: name of the folder in ``bundles/``.
        output_dir: default ``work/<bundle>/study`` in the repository.
        tune: compare settings on validation patients instead, without intervals.
        num_workers: processes that draw phantoms.
    """
    plan = STUDIES[bundle]
    folder = Path(output_dir or ROOT / "work" / bundle / "study").resolve()
    for scanner in SCANNERS:
        data = folder / f"scanner_{scanner}"
        if not (data / "dataset.json").is_file():
            counts = {"validation": NUM_VALIDATION, "testing": NUM_PATIENTS}
            plan.write(str(data), scanner=scanner, num_workers=num_workers, **counts)
    validation = list(read_cases(bundle, folder / "scanner_a", "validation"))
    if tune:
        found = examine(bundle, folder, plan.tuning(), validation, "validation", 1)
        rows = sorted((_plain_row(name, records) for name, records in found.items()), key=lambda row: -row["ap"])
        write_csv(folder / "tuning.csv", rows)
        for row in rows:
            print("  ".join(f"{value:.3f}" if isinstance(value, float) else f"{value:60s}" for value in row.values()))
        return

    default_radius = bundle_parser(bundle, "inference").get_parsed_content("median_radius")
    methods = plan.methods(list(ensure_tuple(default_radius)))
    fitted = {
        row: float(np.mean([_fitted(r, plan.otsu) for r in records]))
        for row, records in examine(bundle, folder, methods, validation, "validation", 1).items()
    }
    sections = []
    for scanner, meaning in SCANNERS.items():
        cases = list(read_cases(bundle, folder / f"scanner_{scanner}", "testing"))
        found = examine(bundle, folder, methods, cases, f"testing_{scanner}", NUM_SEEDS, fitted)
        rows = compare(found, fitted)
        write_csv(folder / f"study_{scanner}.csv", rows)
        same_filter = [
            row
            for name, other in plan.pairs.items()
            for row in compare({name: found[name], other: found[other]}, fitted)[1:]
        ]
        if same_filter:
            write_csv(folder / f"pairs_{scanner}.csv", same_filter)
        default = next(iter(found))
        sizes = summarise(found[default][0], fitted[default], NUM_BOOTSTRAPS)
        write_csv(folder / f"by_lesion_{scanner}.csv", sizes)
        curves = {row: _pooled(records[0]).curve() for row, records in found.items() if _in_figures(row)}
        sections += [
            Section(
                f"Scanner {scanner}: {meaning}",
                [EXPLANATION],
                [_with_intervals(row) for row in rows],
                [Picture("Seed 0.", png(curves_figure(curves)))],
            ),
            Section(
                f"Scanner {scanner}: controls against the method with the same filter",
                rows=[_with_intervals(row) for row in same_filter],
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
    f"{NUM_PATIENTS} patients, never trained on; all pixels of the organ pooled; mean of {NUM_SEEDS} seeds where a "
    "method draws; 95 % intervals over patients. A difference is that of the first row minus this one, patients "
    "drawn alike. Thresholds of 'dice' were fitted on validation patients of scanner a."
)


def display_of(bundle: str) -> Display:
    """Return how a bundle's own report shows images and maps."""
    parser = bundle_parser(bundle, "inference")
    return parser.get_parsed_content("display") if "display" in parser else CT


def read_cases(bundle: str, dataset_dir: Path, split: str) -> Iterator[Case]:
    """Yield the cases of a data set as the bundle's own preprocessing gives them."""
    plan = STUDIES[bundle]
    settings = {"dataset_dir": str(dataset_dir), "split": split, **plan.case_settings}
    channel = display_of(bundle).channel
    for item in bundle_parser(bundle, "inference", **settings).get_parsed_content("dataset"):
        inputs, truth = item["image"], item["label"]
        image, organ = inputs[channel].numpy(), plan.organ(inputs).numpy()
        lesions = (truth[0].numpy() > 0) & organ
        yield Case(str(item["case"]), inputs[None], image, organ, lesions, [float(s) for s in inputs.pixdim])


def examine(
    bundle: str,
    folder: Path,
    methods: Sequence[Method],
    cases: Sequence[Case],
    split: str,
    num_seeds: int,
    thresholds: Mapping[str, float] | None = None,
) -> Records:
    """Return the records of all rows; answers that lie in the folder are not made again."""
    plan = STUDIES[bundle]
    found: Records = {}
    for index, method in enumerate(methods):
        for seed in range(num_seeds if method.drawn else 1):
            given = answers(bundle, folder, method, cases, split, seed)
            rows: dict[str, list[CaseRecord]] = {row: [] for row in method.rows}
            for case, answer in zip(cases, given, strict=True):
                for row, radius in method.rows.items():
                    scores = np.round(plan.score(case, answer, radius), plan.decimals)
                    mask = (scores >= (thresholds or {}).get(row, np.inf)) & case.organ
                    images = (scores, mask, case.organ, case.truth)
                    rows[row].append(examine_case(case.name, case.name, *images, case.spacing_mm, otsu=plan.otsu))
            for row, records in rows.items():
                found.setdefault(row, []).append(records)
                ap = _pooled(records).curve().average_precision()
                print(f"{split} {index + 1}/{len(methods)} seed {seed} {row}: AP {ap:.3f}", flush=True)
    return found


def answers(
    bundle: str, folder: Path, method: Method, cases: Sequence[Case], split: str, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Yield what a method answers for each case: the channel that the study keeps."""
    plan = STUDIES[bundle]
    settings = {**plan.answer_settings, **method.settings, **({"seed": seed} if method.drawn else {})}
    parser = bundle_parser(bundle, method.config, **settings)
    weights = Path(parser.get_parsed_content("model_path"))
    config = ROOT / "bundles" / bundle / "configs" / f"{method.config}.json"
    made_from = config.read_bytes() + weights.read_bytes() + json.dumps(settings).encode()
    kept = folder / "answers" / split / f"{method.inferer.split('::')[0]}_{hashlib.sha256(made_from).hexdigest()[:12]}"
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
            answer = inferer(case.inputs.to(parser.get_parsed_content("device")), network)[0, plan.answer]
            np.savez_compressed(path, answer=answer.cpu().numpy())
        yield np.load(path)["answer"]


def _fitted(records: Sequence[CaseRecord], otsu: bool) -> float:
    return average_otsu(records) if otsu else _pooled(records).curve().best_dice()[1]


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
        normal = [s for seed in found[row] for r in seed for s in r.slice_rows if s["lesion_pixels"] == 0]
        areas = [s["organ_pixels"] for s in normal]
        numbers["normal_slice_mean"] = float(np.average([s["mean_score"] for s in normal], weights=areas))
        numbers["normal_slice_mask_cm2"] = float(np.mean([s["mask_cm2"] for s in normal]))
        table.append(numbers)
    return table


def _with_intervals(row: Row) -> Row:
    """Return a row of the table as the page shows it, each interval beside its number."""
    shown: Row = {}
    for name, value in row.items():
        if f"{name}_low" in row:
            shown[name.replace("_", " ")] = f"{value:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
        elif not name.endswith(("_low", "_high")):
            shown[name.replace("_", " ")] = value
    return shown


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
    with_lesions = [i for i, case in enumerate(cases) if case.truth.any()]
    order = sorted(with_lesions, key=lambda i: -records[i].row["ap"])
    chosen = [order[0], order[len(order) // 2], order[-1]]
    plan, display, rows = STUDIES[bundle], display_of(bundle), []
    for index in chosen:
        case = cases[index]
        window = display.window_of(case.image)
        z = int(case.truth.sum((0, 1)).argmax())
        here: Any = (*box_around(case.organ, margin=4), z)
        outlines = {"lime": case.truth[here]}
        row = [Panel(case.name, case.image[here], outlines={"cyan": case.organ[here], **outlines}, window=window)]
        for method in methods:
            answer = next(answers(bundle, folder, method, [case], split, 0))
            for name, radius in method.rows.items():
                if _in_figures(name):
                    scores = plan.score(case, answer, radius)
                    row.append(Panel(name, case.image[here], scores[here], outlines, window, display.map_window))
        rows.append(row)
    return panel_grid(rows)


def _in_figures(row: str) -> bool:
    return "filter [" not in row or row.endswith("filter [1]")


def _plain_row(name: str, records: Sequence[Sequence[CaseRecord]]) -> Row:
    curves = [_pooled(r).curve() for r in records]
    return {
        "settings": name,
        "ap": float(np.mean([c.average_precision() for c in curves])),
        "auc": float(np.mean([c.auroc() for c in curves])),
        "dice_best_threshold": float(np.mean([c.best_dice()[0] for c in curves])),
    }


def _pooled(records: Sequence[CaseRecord]) -> PooledCounts:
    return PooledCounts([record.counts for record in records])


if __name__ == "__main__":
    fire.Fire(study)
