"""Cases as an evaluator gives them to handlers."""

import csv

import numpy as np
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Orientation
from torch import nn

from common.networks.parts import NetworkParts
from common.transforms.channels import SplitChannelsd

CHANNELS = ("anomaly", "healthy", "mask", "organ")
AFFINE = np.diag([2.0, 3.0, 5.0, 1.0])
SHAPE = (14, 12, 4)


def item(case="a", patient=None, lesions=1, score=30.0, with_label=True, axcodes="RAS"):
    """Return a case: an organ of 8 x 6 x 2 voxels in slices 1 and 2, a lesion of 2 x 2 found at the head of it.

    The image's channels are the image itself and what an inferer would say of it.
    """
    image, anomaly, organ, label = torch.full(SHAPE, 60.0), torch.zeros(SHAPE), torch.zeros(SHAPE), torch.zeros(SHAPE)
    organ[3:11, 3:9, 1:3] = 1
    if lesions:
        label[5:7, 4:6, 2] = 1
    anomaly[5:7, 4:6, 2] = score
    anomaly[9, 7, 1] = 10
    channels = torch.stack([image, anomaly, image + anomaly, (anomaly >= 20).float(), organ])
    turn = Orientation(axcodes=axcodes, labels=None)
    images = {"image": channels, "label": label[None]} if with_label else {"image": channels}
    turned = {key: turn(MetaTensor(voxels, affine=torch.from_numpy(AFFINE))) for key, voxels in images.items()}
    return {**turned, "case": case, "patient": patient or case}


class Prepared:
    """An inferer that has its answers from the image, and masks made with 20."""

    def __init__(self, threshold=20.0):
        self.threshold = threshold

    def __call__(self, inputs, network):
        return inputs[:, 1:]

    def mask_threshold(self, network):
        return self.threshold


def run(items, *handlers, epoch=1, channels=CHANNELS, threshold=20.0):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=nn.Identity(),
        inferer=Prepared(threshold),
        postprocessing=SplitChannelsd("pred", channels),
        val_handlers=handlers,
    )
    evaluator.run(epoch)
    return evaluator


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def metrics(detection):
    return {row["metric"]: row["value"] for row in detection.rows}


def container(threshold=float("nan")):
    network = NetworkParts("score", score=nn.Linear(2, 2))
    network.threshold.fill_(threshold)
    return network


def film(case, diseased, score=1.0, with_label=False):
    """Return a film of 6 x 8 pixels, searched everywhere, with a spot of 2 x 2 that the classifier gives half."""
    anomaly, organ = torch.zeros(6, 8), torch.ones(6, 8)
    anomaly[1:3, 1:3] = score
    image, mask = 200 * organ, (anomaly > 0.5).float()
    channels = torch.stack([image, anomaly, image - anomaly, mask, organ, score / 2 * organ])
    label = {"label": MetaTensor(diseased * (anomaly > 0).float()[None])} if with_label else {}
    return {"image": MetaTensor(channels), **label, "case": case, "patient": case, "image_label": int(diseased)}


FILM_CHANNELS = (*CHANNELS, "probability")
POINTS = {"peak": [10.0, 12.0, 10.0], "beside": [13, 8, 10], "below": [18, 21, 5.4]}
"""The map's peak; what is 3 and 4 mm beside it; the highest value of the slice below, nearly."""


def marked(case, **options):
    return {**item(case, **options), "point": POINTS[case]}


class PreparedWithProbability(Prepared):
    """What ``Prepared`` says, and a probability of 0.7 in slice 2 and of 0.2 in all others."""

    def __call__(self, inputs, network):
        probability = torch.full_like(inputs[:, :1], 0.2)
        probability[..., 2] = 0.7
        return torch.cat([inputs[:, 1:], probability], dim=1)


def run_with_probability(items, *handlers):
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=nn.Identity(),
        inferer=PreparedWithProbability(),
        postprocessing=SplitChannelsd("pred", (*CHANNELS, "probability")),
        val_handlers=handlers,
    ).run()


def classified(case, probability, image_label=None, **more):
    """Return a case of which a classifier says how probable each class is, and which has no mask, organ or map."""
    known = {} if image_label is None else {"image_label": image_label}
    return {"image": torch.tensor(probability), "case": case, "patient": case, **known, **more}


class Classifying:
    """An inferer that has its probabilities from the image."""

    def __call__(self, inputs, network):
        return inputs


def run_classifier(items, *handlers):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=nn.Identity(),
        inferer=Classifying(),
        postprocessing=lambda output: {**output, "probability": output["pred"]},
        val_handlers=handlers,
    )
    evaluator.run()
    return evaluator


ORIENTATIONS = ["LPS", "RAI", "PSR", "ILA"]
NAME = "a <b> & c"
