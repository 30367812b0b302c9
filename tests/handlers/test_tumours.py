import torch
from evaluated import AFFINE, SHAPE, item, run, table
from monai.data import MetaTensor

from common.handlers import tumours
from common.handlers.tumours import TumourScores

CHANNELS = ("probability", "mask", "organ")


def segmented(case="a", found=True, **columns):
    label, organ, mask = (torch.zeros(SHAPE) for _ in range(3))
    organ[1:11, 1:9] = 1
    label[5:8, 4:7, 1:3] = 1
    mask[(slice(5, 8) if found else slice(1, 3)), 4:7, 1:3] = 1
    affine = torch.from_numpy(AFFINE)
    channels = MetaTensor(torch.stack([60 * organ, 0.9 * mask, mask, organ]), affine=affine)
    masks = {key: MetaTensor(mask[None], affine=affine) for key, mask in (("label", label), ("true_organ", organ))}
    return {**item(case), "image": channels, **masks, **columns}


def test_cases_are_scored_and_their_tables_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tumours, "NUM_WORST", 1)
    scores = TumourScores(str(tmp_path), num_resamples=20, columns=("sex", "age"))
    run([segmented("b", False, sex="M", age=70), segmented("a", True, sex="F", age=50)], scores, channels=CHANNELS)
    first, second = table(tmp_path / "per_patient.csv")
    assert (first["case"], float(first["dice"]), first["sex"]) == ("a", 1, "F")
    assert (second["case"], float(second["dice"]), second["false_positives"]) == ("b", 0, "1")
    assert float(first["organ_dice"]) == 1
    assert [row["found"] for row in table(tmp_path / "per_tumour.csv")] == ["1.0", "0.0"]
    groups = table(tmp_path / "by_column.csv")
    assert {row["group"] for row in groups if row["column"] == "sex"} == {"F", "M"}
    assert {row["group"] for row in groups if row["column"] == "age"} == {"50", "70"}
    worst = next(section for section in scores.sections() if section.title == "Worst cases")
    assert [row["case"] for row in worst.rows] == ["b"]


def test_cases_without_a_label_are_passed_over(tmp_path):
    unlabelled = segmented()
    del unlabelled["label"]
    scores = TumourScores(str(tmp_path))
    run([unlabelled], scores, channels=CHANNELS)
    assert not scores.sections()
    assert not list(tmp_path.glob("*.csv"))
