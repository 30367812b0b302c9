"""A bundle so small that it is studied in seconds: bright lesions in round heads, and inferers without diffusion."""

from copy import deepcopy

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

HEAD = {"_target_": "common.studies.cases.head", "_mode_": "callable"}
GRID = {"_target_": "common.inferers.grid.Grid", "pixel_mm": 1.0, "patch_size": [16, 16], "normalize": "none"}


def patients(dataset_dir, split, first=0):
    """Return four items, whatever the folder, or the last of them: patient i has a lesion of i x i pixels in slice 1.

    There are three slices; in slice 0 there is no head.
    """
    items = []
    for number in range(first, 4):
        image, label = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3)
        image[:, 2:14, 2:14, 1:] = 0.4 + 0.1 * torch.rand(12, 12, 2, generator=torch.Generator().manual_seed(number))
        image[:, 4 : 4 + number, 4 : 4 + number, 1] = 1
        label[:, 4 : 4 + number, 4 : 4 + number, 1] = 1
        affine = torch.diag(torch.tensor([1.0, 1, 4, 1], dtype=torch.float64))
        images = {"image": MetaTensor(image, affine), "label": MetaTensor(label, affine)}
        items.append({"case": f"{split} {number}", **images})
    return items


def bright_or_dropped():
    """Return a segmenter of what is bright that forgets pixels while its dropout is on."""
    network = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Conv2d(1, 1, 1))
    torch.nn.init.constant_(network[1].weight, 20)
    torch.nn.init.constant_(network[1].bias, -15)
    return network


def inferer(name, **options):
    return {"_target_": f"common.inferers.{name}", "grid": GRID, "threshold": 0.5, "seed": "@seed", **options}


def control(name, **options):
    translator = {"_target_": f"common.inferers.baselines.controls.{name}", **options}
    options = {"translator": translator, "classifier": None, "median_radius": "@median_radius"}
    return inferer("translation.TranslationInferer", **options)


SEGMENTER = {"_target_": "common.inferers.baselines.segmenter.NetworkSegmenter", "part": "segmenter", "dropout": True}
ENSEMBLE = inferer("segmentation.EnsembleInferer", segmenter=SEGMENTER, num_samples="@num_samples")


def small_bundle(folder):
    """Write weights and return the configs of the bundle, as a study takes them."""
    shared = {
        "device": "$torch.device('cpu')",
        "imports": ["$import torch"],
        "model_path": str(folder / "model.pt"),
        "seed": 0,
        "median_radius": 1,
        "num_samples": 5,
        "network_def": {"_target_": "common.networks.parts.NetworkParts", "main": "segmenter"}
        | {"segmenter": {"_target_": "studied.bright_or_dropped"}},
        "network": "@network_def",
    }
    inference = {
        "dataset_dir": "",
        "split": "testing",
        "dataset": {"_target_": "studied.patients", "dataset_dir": "@dataset_dir", "split": "@split"},
        "inferer": control("EqualizedTranslator", channel=0),
        "ensemble": ENSEMBLE,
        "display": {"_target_": "common.report.figures.Display", "window": None, "map_window": [0, 1], "unit": "of 1"},
    }
    baselines = {"inferer": control("MedianTranslator")}
    configs = {"inference": shared | inference, "baselines": shared | baselines}

    def parser(name, **settings):
        made = ConfigParser(deepcopy(configs[name]))
        made.update(settings)
        return made

    torch.save(parser("inference").get_parsed_content("network").state_dict(), folder / "model.pt")
    return parser
