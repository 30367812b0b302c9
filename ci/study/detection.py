"""Anomaly maps compared: a bundle's method, its baselines and controls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from tqdm import tqdm

from common.files import write_csv
from common.metrics.detection import CaseRecord, average_otsu, examine_case, slice_mean, summarise
from common.metrics.intervals import with_interval
from common.metrics.pixels import Curve, PooledCounts
from common.metrics.statistics import Row, Statistic, difference, mean_of
from common.phantoms.__main__ import write_phantoms
from common.report.figures import Panel, box_around, curves_figure, panel_grid, png
from common.report.page import Picture, Section, write_page
from common.transforms.anomaly import anomaly_map, smooth_in
from common.transforms.organ import foreground, right_part

from .. import ROOT, bundle_parser
from .answers import NUM_PATIENTS, SCANNERS, Case, Source, cases_of, display_of, kept_answers
from .tables import NUM_BOOTSTRAPS, on_page

FLAIR = 3
"""Its channel."""

NUM_VALIDATION, NUM_SEEDS = 12, 3
ABLATIONS = ("one draw", "six views")
"""Words in the names of rows that tables alone have."""


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
                f"inferers::{name}",
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
        "the released program's indices and clipping": (AUTHORS, False),  # its one draw is a step's noise
        "saliency of the classifier": (_inferer("comparisons.AttributionInferer", options), False),
        "Grad-CAM of the classifier": (_inferer("comparisons.AttributionInferer", options, method="grad_cam"), False),
        **{f"control: {name}": (keys, False) for name, keys in controls.items()},
    }
    return [
        *(Method({row: default_radius}, settings=keys, drawn=drawn) for row, (keys, drawn) in settings.items()),
        Method({"VAE": default_radius}, "baselines", {}, "inferer"),
    ]


def noise_encoding_tuning(noise_levels: Sequence[int], guidance_scales: Sequence[float]) -> list[Method]:
    """Return the noise levels and guidance scales that are tried on validation patients."""
    return [
        Method({f"L {level}, s {scale}, filter {r}": r for r in ([0], [1])}, settings=settings)
        for level in noise_levels
        for scale in guidance_scales
        for settings in ({"noise_level": level, "guidance_scale": scale},)
    ]


FLAIR_KEYS = BRAIN_KEYS | _keys("organ")
CG_DIFF = _inferer(
    "translation.DdimTranslationInferer",
    FLAIR_KEYS | _keys("seed"),
    schedule={
        "_target_": "common.schedulers.NoiseSchedule",
        "num_train_timesteps": "@num_train_timesteps",
        "num_inference_steps": 250,
        "spacing": "trailing",
    },
    guidance={
        "classifier": {"_target_": "common.samplers.guidance.classifier_guidance", "_mode_": "callable", "target": 0}
    },
    noise_level=400,
    guidance_scale=100.0,
    encode_class=0,
    decode_class=0,
)
"""The bundle ``wolleb_anomaly``'s sampler on CDM's network: Q = 400, s = 100, every fourth timestep."""

ONE_DRAW: dict[str, Any] = {"num_samples": 1}
PAPER_CDM = ONE_DRAW | {"noise_level": 400, "tau": 0.95, "map_mode": "signed", "map_range": "slice"}
CAMS = {"Grad-CAM": "grad_cam", "Grad-CAM++": "grad_cam_pp", "Score-CAM": "score_cam", "Layer-CAM": "layer_cam"}
CAM_LAYERS = ("norm", "blocks.4", "blocks.2", "blocks.0")
"""On grids of 8, 16, 32 and 64 pixels; the first, the last one before the classifier's pooling, is the default."""

TUNED_CAMS = (
    ("Grad-CAM", "blocks.0"),
    ("Grad-CAM++", "blocks.0"),
    ("Score-CAM", "blocks.0"),
    ("Score-CAM", "blocks.4"),
    ("Layer-CAM", "blocks.0"),
)
"""Each with the layers of its highest AP and of its highest Dice on validation patients."""


def cam_settings(cam: str, **options: Any) -> dict[str, Any]:
    """Return the setting that puts a class activation map in the place of CDM's."""
    return _inferer("comparisons.AttributionInferer", FLAIR_KEYS, method=CAMS[cam], **options)


def cdm_methods(default_radius: Sequence[int]) -> list[Method]:
    """Return the rows of Table 1 of Hu et al. 2023, and the controls; the first is the bundle's default.

    Ablations of the map and of the indices have one draw of the noise, and one seed.
    """
    settings: dict[str, tuple[dict[str, Any], bool]] = {
        "CG-CDM, s = 1": ({}, True),
        "CDM": ({"guidance_scale": 0.0}, True),
        "CG-CDM, s = 10": ({"guidance_scale": 10.0}, False),
        "CG-CDM, one draw of the noise": (ONE_DRAW, True),
        "CDM, one draw of the noise": (ONE_DRAW | {"guidance_scale": 0.0}, True),
        "CG-CDM, one draw, maps scaled in slices": (ONE_DRAW | {"map_range": "slice"}, False),
        "CG-CDM, one draw, maps signed": (ONE_DRAW | {"map_mode": "signed"}, False),
        "CDM, the paper's settings": ({**PAPER_CDM, "guidance_scale": 0.0}, True),
        "CG-CDM, the paper's settings": ({**PAPER_CDM, "guidance_scale": 10.0}, True),
        "CG-CDM, one draw, the released program's indices and clipping": (ONE_DRAW | AUTHORS, False),
        **{
            f"{cam}{', six views' if smooth else ''}": (cam_settings(cam, smooth=smooth), False)
            for cam in CAMS
            for smooth in (False, True)
        },
        **{f"{cam}, layer {layer}": (cam_settings(cam, layer=layer), False) for cam, layer in TUNED_CAMS},
        "CG-Diff, every fourth timestep": (CG_DIFF, False),
        "control: FLAIR, histogram equalised": (_inferer("comparisons.EqualizedInferer", FLAIR_KEYS, channel=0), False),
        "control: distance to the median of the head": (
            _inferer("comparisons.MedianTranslationInferer", FLAIR_KEYS),
            False,
        ),
    }
    return [
        *(Method({row: default_radius}, settings=keys, drawn=drawn) for row, (keys, drawn) in settings.items()),
        Method({"supervised U-Net, which sees masks": default_radius}, "baselines"),
    ]


def cdm_tuning() -> list[Method]:
    """Return the settings that are tried on validation patients: one key after the other, and each CAM's layer."""
    tried: list[dict[str, Any]] = [
        *({"noise_level": q, "tau": tau} for q in (25, 50, 70, 100, 200, 400) for tau in (0.0, 0.95)),
        *({"num_difference_steps": r} for r in (1, 5, 20, 40)),
        *({"tau": tau} for tau in (0.5, 0.9)),
        *({"guidance_scale": s} for s in (0.0, 0.5, 2.0, 5.0, 10.0, 50.0)),
        *({"num_samples": n} for n in (1, 2, 8)),
        *({"map_mode": mode, "guidance_scale": s} for mode in ("signed", "absolute") for s in (0.0, 1.0)),
        {"map_range": "slice"},
    ]
    named = {", ".join(f"{key} {value}" for key, value in keys.items()): keys for keys in tried}
    named |= {f"{cam}, layer {layer}": cam_settings(cam, layer=layer) for cam in CAMS for layer in CAM_LAYERS}
    filters = ([0], [1], [2], [3])
    return [Method({f"{name}, filter {r}": r for r in filters}, settings=keys) for name, keys in named.items()]


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
        lesion_slices_only: as in the paper, slices without lesions do not count.
        decimals: of the scores that are counted, so that few differ.
        pairs: rows that are also compared with another one than the first, and that one.
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
    lesion_slices_only: bool = False
    decimals: int = 1
    pairs: Mapping[str, str] = {}


anomaly_study = partial(
    Study,
    answer=0,
    score=lambda case, anomaly, radius: smooth_in(case.organ, anomaly, radius),
    answer_settings={"median_radius": 0},
    decimals=3,
)
"""The map is what is kept, before its filter."""

brain_study = partial(
    anomaly_study,
    write=partial(write_phantoms, "brain_mr", shape=(64, 76, 4), spacing=(3.0, 3.0, 12.0)),
    organ=lambda inputs: foreground(inputs)[0],
    otsu=True,
)

STUDIES = {
    "gdpi": Study(
        write=partial(write_phantoms, "abdomen_ct"),
        methods=gdpi_methods,
        tuning=gdpi_tuning,
        answer=1,
        score=lambda case, healthy, radius: anomaly_map(case.image, healthy, case.organ, radius),
        organ=lambda inputs: inputs[1] > 0,
        case_settings={"organ_source": "file"},
        pairs={f"control: median in the hole, filter {r}": f"GDPI, filter {r}" for r in FILTERS},
    ),
    "wolleb_anomaly": brain_study(
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
    ),
    "cdm": brain_study(
        methods=cdm_methods,
        tuning=cdm_tuning,
        lesion_slices_only=True,
        pairs=dict.fromkeys([*CAMS, *(f"{cam}, layer {layer}" for cam, layer in TUNED_CAMS)], "CDM"),
    ),
    "pancreas_anomaly": anomaly_study(
        write=partial(write_phantoms, "pancreas_ct", shape=(120, 96, 5), spacing=(2.0, 2.0, 10.0)),
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


def detection_study(bundle: str, output_dir: str | None = None, tune: bool = False, num_workers: int = 2) -> None:
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
        rows = [_plain_row(name, records, plan.otsu) for name, records in found.items()]
        rows.sort(key=lambda row: -row["ap"])
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
        pairs = [
            {"against": other, **compare({other: found[other], name: found[name]}, fitted)[1]}
            for name, other in plan.pairs.items()
        ]
        if pairs:
            write_csv(folder / f"pairs_{scanner}.csv", pairs)
        default = next(iter(found))
        sizes = summarise(found[default][0], fitted[default], NUM_BOOTSTRAPS)
        write_csv(folder / f"by_lesion_{scanner}.csv", sizes)
        curves = {row: _pooled(records[0]).curve() for row, records in found.items() if _in_figures(row)}
        sections += [
            Section(
                f"Scanner {scanner}: {meaning}",
                [EXPLANATION + " Slices without lesions do not count." * plan.lesion_slices_only],
                [on_page(row) for row in rows],
                [Picture("Seed 0.", png(curves_figure(curves)))],
            ),
            Section(
                f"Scanner {scanner}: pairs; differences are those of the row under 'against' minus this one",
                rows=[on_page(row) for row in pairs],
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


def read_cases(bundle: str, dataset_dir: Path, split: str) -> Iterator[Case]:
    """Yield the cases of a data set as the bundle's own preprocessing gives them."""
    plan = STUDIES[bundle]
    for case in cases_of(bundle, dataset_dir, split, plan.organ, **plan.case_settings):
        if case.truth.any() or not plan.lesion_slices_only:
            yield case


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
    options: dict[str, Any] = {"otsu": plan.otsu, "lesion_slices_only": plan.lesion_slices_only}
    options["overlaps"] = plan.lesion_slices_only
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
                    rows[row].append(examine_case(case.name, case.name, *images, case.spacing_mm, **options))
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
    source = Source(bundle, method.config, method.inferer, settings)
    yield from kept_answers(source, folder, cases, split, plan.answer, next(iter(method.rows)))


def _fitted(records: Sequence[CaseRecord], otsu: bool) -> float:
    return average_otsu(records) if otsu else _pooled(records).curve().best_dice()[1]


def compare(found: Records, thresholds: Mapping[str, float]) -> list[Row]:
    """Return the table: a row a method, with intervals, and with the difference of the first to it."""
    patients = [record.patient for record in next(iter(found.values()))[0]]
    pooled = {row: [_pooled(records) for records in seeds] for row, seeds in found.items()}

    def metrics(row: str) -> dict[str, Statistic]:
        def over_seeds(metric: Callable[[Curve], float]) -> Statistic:
            return mean_of([partial(_of_curve, p, metric) for p in pooled[row]])

        return {
            "auc": over_seeds(Curve.auroc),
            "ap": over_seeds(Curve.average_precision),
            "dice": over_seeds(lambda curve: curve.dice_at(thresholds[row])),
            "dice_best_threshold_of_this_test": over_seeds(lambda curve: curve.best_dice()[0]),
            **slice_metrics(found[row]),
        }

    table, default = [], metrics(next(iter(found)))
    for row in tqdm(found, desc="intervals", leave=False):
        numbers: Row = {"method": row}
        own = metrics(row)
        for name, metric in own.items():
            numbers |= with_interval(name, metric, patients)
        for name in ("ap", "dice", *slice_metrics(found[row])):
            numbers |= with_interval(f"{name}_difference", difference(default[name], own[name]), patients)
        numbers["threshold"] = thresholds[row]
        normal = [s for seed in found[row] for r in seed for s in r.slice_rows if s["lesion_pixels"] == 0]
        if normal:
            areas = [s["organ_pixels"] for s in normal]
            numbers["normal_slice_mean"] = float(np.average([s["mean_score"] for s in normal], weights=areas))
            numbers["normal_slice_mask_cm2"] = float(np.mean([s["mask_cm2"] for s in normal]))
        table.append(numbers)
    return table


def slice_metrics(seeds: Sequence[Sequence[CaseRecord]]) -> dict[str, Statistic]:
    """Return what the papers' tables have of slices with lesions; nothing where records have no overlaps."""
    if "hd95_mm" not in seeds[0][0].slice_rows[0]:
        return {}
    keys = {"dice": "dice", "iou": "jaccard", "hd95_mm": "hd95_mm", "dice_own_otsu": "dice_otsu"}
    return {
        f"slice_{name}": mean_of([slice_mean(records, key, diseased=True) for records in seeds])
        for name, key in keys.items()
    }


def _of_curve(pooled: PooledCounts, metric: Callable[[Curve], float], weights: NDArray[np.float64]) -> float:
    return metric(pooled.curve(weights))


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
    """Return whether pictures have a row of the table; all of them could not be told apart."""
    return row.endswith("filter [1]") if "filter [" in row else not any(name in row for name in ABLATIONS)


def _plain_row(name: str, records: Sequence[Sequence[CaseRecord]], otsu: bool) -> Row:
    curves = [_pooled(r).curve() for r in records]
    thresholds = [_fitted(r, otsu) for r in records]
    return {
        "settings": name,
        "ap": float(np.mean([c.average_precision() for c in curves])),
        "auc": float(np.mean([c.auroc() for c in curves])),
        "dice": float(np.mean([c.dice_at(t) for c, t in zip(curves, thresholds, strict=True)])),
        "dice_best_threshold": float(np.mean([c.best_dice()[0] for c in curves])),
    }


def _pooled(records: Sequence[CaseRecord]) -> PooledCounts:
    return PooledCounts([record.counts for record in records])
