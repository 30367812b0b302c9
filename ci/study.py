"""Compare a bundle's method with its baselines and controls on phantoms: ``python -m ci.study gdpi``.

A name that no bundle has is that of a plan which several have: ``python -m ci.study ellipses`` puts what they train on
the same data into one table.

Patients and rows are fixed in the bundle's recipe; the budgets of the trained methods are those of ``ci.train_demo``.
What methods answer is kept in the output folder, so that a study can be continued.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fire
from monai.utils import ensure_tuple

from common.studies.cases import SCANNERS
from common.studies.detection import detection_study
from common.studies.folds import write_folds, write_healthy, write_shares
from common.studies.origins import origins_study
from common.studies.painted import write_painted
from common.studies.patients import patients_study
from common.studies.segmentation import segmentation_study
from common.studies.stacks import write_stacks
from common.studies.training import training_study

from . import ROOT, bundle_names, bundle_parser, run_bundle, run_module
from .recipes import recipe_of

KINDS: dict[str, Callable[..., None]] = {
    "detection": detection_study,
    "segmentation": segmentation_study,
    "origins": origins_study,
}
"""Studies of one bundle, but for trainings."""

REAL: dict[str, Callable[..., None]] = {
    "painted_films": write_painted,
    "stacks": write_stacks,
    "folds": write_folds,
    "shares": write_shares,
    "healthy": write_healthy,
}
"""Data sets that are made of real ones, by the name that plans have for them."""


def study(
    bundle: str,
    output_dir: str | None = None,
    num_workers: int = 2,
    plan: str = "study",
    real_dir: str | None = None,
    bundles: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Write the tables as CSV, and ``report.html``.

    Args:
        bundle: name of the folder in ``bundles/``, or of a plan of trainings of several bundles.
        output_dir: default ``work/<bundle>/<plan>`` in the repository, ``work/<plan>`` of several bundles.
        plan: which of the recipe's; ``study`` is the main one, others are in ``studies`` by their names.
        num_workers: processes that draw phantoms.
        real_dir: folder of the real data that a plan's data sets are made of.
        bundles: of a plan that several have, those whose rows are wanted; all by default.
        options: of ``detection_study``, ``segmentation_study``, ``training_study``, ``origins_study``: ``--tune True``
            of a study of anomaly maps compares settings on validation patients, ``--num_members 100`` is for the study
            of segmentations; ``--num_rows 3``, or ``--rows 0,4`` of trainings, with ``--num_patients 2``,
            ``--num_seeds 1``, or ``--num_repeats 1``, makes them short.
    """
    several = plans_named(bundle, bundles)
    own = bundle if several else f"{bundle}/{plan}"
    folder = Path(output_dir or ROOT / "work" / own).resolve()
    plans = several or {bundle: recipe_of(bundle).plan(plan)}
    (kind,) = {fields.pop("kind") for fields in plans.values()}
    first, fields = next(iter(plans.items()))
    if any(each.get("data") != fields.get("data") for each in plans.values()):
        raise ValueError(f"expected the plans {bundle} of {', '.join(plans)} to share their data, but these differ.")
    data = fields["data"] if "data" in fields else patients_of(fields.pop("patients"))
    if fields.get("folds"):
        data = {f"{name} {n}": {**data[name], "fold": n} for name in data for n in range(fields["folds"])}
    if options.get("tune") and not any(each.get("tuning") for each in plans.values()):
        raise ValueError(f"expected a plan whose settings can be tuned, that of {own} has no 'tuning'.")
    draw = partial(write_phantoms, phantom=recipe_of(first).phantom, num_workers=num_workers)
    for name, patients in data.items():
        if (folder / name / "dataset.json").is_file():
            continue
        given = dict(patients)
        if "beside" in given:
            draw(folder / name / "phantoms", **given["beside"])
            given["beside"] = "phantoms"
        if "real" in given:
            write_real(given.pop("real"), real_dir, folder / name, **given)
        else:
            draw(folder / name, **given)
    if kind == "training":
        training_study(plans, run_bundle, folder, **options)
    elif kind == "patients":
        patients_study(plans, bundle_parser, run_bundle, folder, **options)
    else:
        KINDS[kind](bundle, partial(bundle_parser, bundle), fields, folder, **options)


def plans_named(name: str, bundles: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the plans of a name, by the bundles that have one; none of the name of a bundle.

    Raises:
        ValueError: if one of ``bundles`` has none.
    """
    if name in bundle_names():
        return {}
    found = {bundle: recipe_of(bundle) for bundle in bundle_names()}
    plans = {bundle: recipe.plan(name) for bundle, recipe in found.items() if name in recipe.studies}
    wanted = ensure_tuple(plans if bundles is None else bundles)
    if unknown := [bundle for bundle in wanted if bundle not in plans]:
        raise ValueError(f"expected bundles with a plan {name}, {', '.join(plans)}, got {', '.join(unknown)}.")
    return {bundle: plans[bundle] for bundle in wanted}


def write_phantoms(dst: Path, phantom: str, **options: Any) -> None:
    """Write a data set of phantoms."""
    run_module("common.phantoms", phantom, dst=dst, **options)


def write_real(kind: str, real_dir: str | None, dst: Path, **options: Any) -> None:
    """Write a data set that is made of a real one.

    Args:
        kind: one of ``REAL``.
        real_dir: folder of the real one.
        dst: folder of the new one.
        options: of the function that writes it.

    Raises:
        ValueError: if no real data set is given.
    """
    if real_dir is None:
        raise ValueError(f"this plan is about real data: expected --real_dir, the folder of what {kind} is made of.")
    REAL[kind](real_dir, str(dst), **options)


def patients_of(patients: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of the data set of each scanner, by its name."""
    return {f"scanner_{scanner}": {"scanner": scanner, **patients} for scanner in SCANNERS}


if __name__ == "__main__":
    fire.Fire(study)
