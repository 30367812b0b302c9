import torch

from common.transforms.classes import ClassAndSited


def test_a_case_has_its_class_and_the_number_of_its_site():
    transform = ClassAndSited(["Basel", "HCP"])
    made = transform({"image_label": 1, "site": "HCP", "label": "a mask", "image": 5})
    assert torch.equal(made["label"], torch.tensor([1, 1]))
    assert made["image"] == 5
    assert transform({"image_label": 0, "site": "elsewhere"})["label"].tolist() == [0, 1]
    assert transform({"image_label": 0})["label"].tolist() == [0, 1]
