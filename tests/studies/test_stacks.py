import json

import nibabel as nib
import numpy as np
import pytest

from common.data.cases import list_cases
from common.studies.stacks import write_stacks

SITES = {"T": 9, "A": 6, "B": 6}
SHAPE = (30, 40, 16)
OPTIONS = {"lists": ["one/dataset.json", "two/dataset.json"], "sequence": "flair", "target": ["T"]}
OPTIONS |= {"healthy": ["A"], "diseased": ["B"], "left_out": ["B5"]}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """Two lists of stacks of 16 slices: labels in slices 6 and 7, a single labelled voxel in slice 8; B5 has none."""
    src = tmp_path_factory.mktemp("stacks")
    rng = np.random.default_rng(0)
    for name, sites in (("one", ("T", "A")), ("two", ("B",))):
        items = []
        for case in [f"{site}{n}" for site in sites for n in range(SITES[site])]:
            volume = np.zeros(SHAPE, np.float32)
            volume[4:26, 3:35] = rng.integers(50, 150, (22, 32, 16))
            label = np.zeros(SHAPE, np.uint8)
            label[8:16, 8:16, 6:8] = 1
            label[10, 10, 8] = 1
            (src / name).mkdir(exist_ok=True)
            for kind, voxels in (("t1", volume), ("flair", volume), ("label", label)):
                nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 3, 1])), src / name / f"{case}_{kind}.nii.gz")
            images = [f"{case}_t1.nii.gz", f"{case}_flair.nii.gz"]
            items.append({"image": images, "label": f"{case}_label.nii.gz", "patient": case, "site": case[0]})
        (src / name / "dataset.json").write_text(json.dumps({"training": items[1:], "testing": items[:1]}))
    return src


def written(stacks, folder, **options):
    write_stacks(str(stacks), str(folder), **{**OPTIONS, **options})
    return json.loads((folder / "dataset.json").read_text())


def cells(items):
    return {(item["site"], item["image_label"]) for item in items}


def test_sources_teach_one_class_and_are_tried_with_both(stacks, tmp_path):
    content = written(stacks, tmp_path, fold=0)
    assert cells(content["training"]) == {("T", 0), ("T", 1), ("A", 0), ("B", 1)}
    assert cells(content["testing"]) == {(site, k) for site in "TAB" for k in (0, 1)}
    assert cells(content["validation"]) == {("T", 0), ("T", 1)}
    patients = [{item["patient"] for item in content[part]} for part in ("training", "validation", "testing")]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 20
    assert len(patients[1]) == 2
    own = [item for item in content["testing"] if item["patient"] == content["testing"][0]["patient"]]
    assert [item["image_label"] for item in own] == [0, 0, 1, 1, 0, 0, 0]
    assert [round(15 * item["position"]) for item in own] == [4, 5, 6, 7, 9, 10, 11]
    (image, *_) = [np.load(case["image"]) for case in list_cases(str(tmp_path), modality="xray", progress=False)]
    assert image.shape == (96, 96)
    assert image.max() <= 1
    assert (image[:, 0] == 0).all()
    assert image[0].any()


def test_folds_try_each_patient_once_and_even_sources_teach_both_classes(stacks, tmp_path):
    tried = []
    for fold in range(3):
        content = written(stacks, tmp_path / str(fold), fold=fold)
        tried += sorted({item["patient"] for item in content["testing"]})
    assert len(tried) == len(set(tried)) == 20
    even = written(stacks, tmp_path / "even", fold=2, even=True)
    assert cells(even["training"]) == {(site, k) for site in "TAB" for k in (0, 1)}
    counts = [[sum(item["site"] == site for item in each["training"]) for site in "AB"] for each in (content, even)]
    assert counts == [[20, 8], [10 + 8, 4 + 4]]  # of class 1 site A has no more than 8
    assert even["testing"] == content["testing"]


def test_few_slices_of_a_patient_are_spread(stacks, tmp_path):
    items = written(stacks, tmp_path, fold=0, max_slices=3)["testing"]
    own = [item for item in items if item["patient"] == items[0]["patient"]]
    assert [round(15 * item["position"]) for item in own] == [4, 7, 11]


def test_sites_without_patients_and_targets_of_one_class_are_refused(stacks, tmp_path):
    with pytest.raises(ValueError, match=r"expected patients of site C in one/dataset.json, .*, got none"):
        written(stacks, tmp_path, fold=0, healthy=["C"])
    with pytest.raises(ValueError, match="slices of both classes of T for validation"):
        written(stacks, tmp_path, fold=0, num_validation=0)
