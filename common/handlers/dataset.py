"""Data sets written from the outputs of a run."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import convert_to_numpy
from numpy.typing import NDArray

from ..files import replacing, write_text
from .output import CaseCollector

FORMS = ("msd", "nnunet")


class DatasetWriter(CaseCollector):
    """List the cases of an evaluator in a ``dataset.json``.

    Args:
        output_dir: where it goes.
    """

    def __init__(self, output_dir: str) -> None:
        super().__init__()
        self.output_dir = Path(output_dir)

    @abstractmethod
    def content(self, items: list[dict[str, Any]]) -> Mapping[str, Any]:
        """Return what ``dataset.json`` says."""

    def write(self, items: list[dict[str, Any]]) -> None:
        """Write ``dataset.json``."""
        write_text(self.output_dir / "dataset.json", json.dumps(self.content(items), indent=1) + "\n")


class TrainingPairs(DatasetWriter):
    """List synthetic images and their masks, which other handlers save, as training cases.

    Args:
        output_dir: where ``dataset.json`` goes, and the folders of the cases are.
        image: postfix of the synthetic images.
        label: postfix of the masks.
    """

    def __init__(self, output_dir: str, image: str, label: str) -> None:
        super().__init__(output_dir)
        self.image, self.label = image, label

    def add(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """Return a case of a diseased patient."""
        case = item["case"]
        paths = {key: f"{case}/{case}_{getattr(self, key)}.nii.gz" for key in ("image", "label")}
        return {"case": case, "patient": item["patient"], **paths, "image_label": 1}

    def content(self, items: list[dict[str, Any]]) -> Mapping[str, Any]:
        """Return training cases alone."""
        return {"name": "synthetic lesions", "training": items, "validation": [], "testing": []}


class SyntheticDataset(DatasetWriter):
    """Write synthetic images with their masks as a data set that trainings read.

    The output of the evaluator has ``synthetic``, ``mask`` and ``organ``.

    ``msd`` is the form of the Medical Segmentation Decathlon: ``imagesTr``, ``labelsTr`` with 1 in tumours, and
    ``organsTr``, listed in ``dataset.json`` with the keys that the bundles of this collection read. ``nnunet`` is the
    raw form of nnU-Net 2: ``imagesTr/<case>_0000.nii.gz``, and ``labelsTr`` with 1 in the organ and 2 in tumours.
    ``Ts`` stands for ``Tr`` in a list for testing.

    Args:
        output_dir: of the data set.
        form: one of ``FORMS``.
        organ: its name.
        split: list of ``dataset.json`` that the cases belong to.

    Raises:
        ValueError: for another form.
    """

    def __init__(self, output_dir: str, form: str = "msd", organ: str = "liver", split: str = "training") -> None:
        if form not in FORMS:
            raise ValueError(f"dataset_form must be one of {', '.join(FORMS)}, got {form!r}.")
        super().__init__(output_dir)
        self.form, self.organ, self.split = form, organ, split

    def add(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """Write the files of a case, and return it."""
        case, patient = str(item["case"]), str(item.get("patient", item["case"]))
        voxels = {key: convert_to_numpy(output[key])[0] for key in ("synthetic", "mask", "organ")}
        affine = convert_to_numpy(output["synthetic"].affine)
        tumour, organ = (voxels[key] > 0 for key in ("mask", "organ"))
        msd = self.form == "msd"
        image = np.round(voxels["synthetic"]).clip(-1024, 3071).astype(np.int16)
        label = tumour if msd else np.where(tumour, 2, organ)
        self._save(image, affine, f"images{self.letters}", f"{case}.nii.gz" if msd else f"{case}_0000.nii.gz")
        self._save(label.astype(np.uint8), affine, f"labels{self.letters}", f"{case}.nii.gz")
        paths = {key: f"{key}s{self.letters}/{case}.nii.gz" for key in ("image", "label")}
        if msd:
            self._save(organ.astype(np.uint8), affine, f"organs{self.letters}", f"{case}.nii.gz")
            paths["organ"] = f"organs{self.letters}/{case}.nii.gz"
        return {"case": case, "patient": patient, **paths, "image_label": int(tumour.any())}

    @property
    def letters(self) -> str:
        """What folders of the split end with."""
        return "Ts" if self.split == "testing" else "Tr"

    def _save(self, voxels: NDArray[Any], affine: NDArray[Any], folder: str, name: str) -> None:
        image = nib.Nifti1Image(voxels, affine)
        image.header["descrip"] = "SYNTHETIC tumours"
        with replacing(self.output_dir / folder / name) as temporary:
            nib.save(image, temporary)

    def content(self, items: list[dict[str, Any]]) -> Mapping[str, Any]:
        """Return what the form wants."""
        return self._msd(items) if self.form == "msd" else self._nnunet(len(items))

    def _msd(self, items: list[dict[str, Any]]) -> Mapping[str, Any]:
        splits = {split: items if split == self.split else [] for split in ("training", "validation", "testing")}
        return {
            "name": f"synthetic tumours of the {self.organ}",
            "description": "SYNTHETIC tumours in scans that had none",
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "tumour"},
            **splits,
        }

    def _nnunet(self, count: int) -> Mapping[str, Any]:
        return {
            "name": f"synthetic tumours of the {self.organ}",
            "description": "SYNTHETIC tumours in scans that had none",
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, self.organ: 1, "tumour": 2},
            "numTraining": count if self.letters == "Tr" else 0,
            "file_ending": ".nii.gz",
        }
