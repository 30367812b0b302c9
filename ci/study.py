"""Compare a bundle's method with its baselines and controls on phantoms: ``python -m ci.study gdpi``.

Patients and rows are fixed in the bundle's recipe; the budgets of the trained methods are those of ``ci.train_demo``.
What methods answer is kept in the output folder, so that a study can be continued.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fire

from common.studies.cases import SCANNERS
from common.studies.detection import detection_study
from common.studies.segmentation import segmentation_study

from . import ROOT, bundle_parser, run_module
from .recipes import recipe_of

KINDS: dict[str, Callable[..., None]] = {"detection": detection_study, "segmentation": segmentation_study}


def study(bundle: str, output_dir: str | None = None, num_workers: int = 2, **options: Any) -> None:
    """Write the tables as CSV, and ``report.html``.

    Args:
        bundle: name of the folder in ``bundles/``.
        output_dir: default ``work/<bundle>/study`` in the repository.
        num_workers: processes that draw phantoms.
        options: of ``detection_study`` or ``segmentation_study``: ``--tune True`` of a study of anomaly maps compares
            settings on validation patients instead, ``--num_members 100`` is for the study of segmentations;
            ``--num_patients 2 --num_rows 3`` makes any of them short.
    """
    recipe, folder = recipe_of(bundle), Path(output_dir or ROOT / "work" / bundle / "study").resolve()
    plan = dict(recipe.study)
    kind, patients = plan.pop("kind"), plan.pop("patients")
    for scanner in SCANNERS:
        data = folder / f"scanner_{scanner}"
        if not (data / "dataset.json").is_file():
            run_module(
                "common.phantoms", recipe.phantom, dst=data, scanner=scanner, num_workers=num_workers, **patients
            )
    KINDS[kind](bundle, partial(bundle_parser, bundle), plan, folder, **options)


if __name__ == "__main__":
    fire.Fire(study)
