"""Compare a bundle's method with its baselines and controls on phantoms: ``python -m ci.study gdpi``.

Patients, seeds and rows are fixed in the modules beside this one; the budgets of the trained methods are those of
``ci.train_demo``. What methods answer is kept in the output folder, so that a study can be continued.
"""

from typing import Any

import fire

from .detection import STUDIES, detection_study
from .segmentation import segmentation_study


def study(bundle: str, output_dir: str | None = None, num_workers: int = 2, **options: Any) -> None:
    """Write the tables as CSV, and ``report.html``.

    Args:
        bundle: name of the folder in ``bundles/``.
        output_dir: default ``work/<bundle>/study`` in the repository.
        num_workers: processes that draw phantoms.
        options: ``--tune True`` of a study of anomaly maps compares settings on validation patients instead;
            ``--num_members 100`` and ``--num_patients 2`` are for the study of segmentations.
    """
    run = detection_study if bundle in STUDIES else segmentation_study
    run(bundle, output_dir=output_dir, num_workers=num_workers, **options)


if __name__ == "__main__":
    fire.Fire(study)
