"""CT of the pancreas."""

from pathlib import Path

from .scans import Scan, annotated_ct, decathlon

ORGAN = "pancreas"


def find_msd_pancreas(src: Path) -> list[Scan]:
    """Return the training cases of the Medical Segmentation Decathlon's Task07_Pancreas.

    The label is 1 in the pancreas and 2 in cancer.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if two files have the same name.
    """
    return [annotated_ct(case, image, labels, ORGAN) for case, image, labels in decathlon(src)]
