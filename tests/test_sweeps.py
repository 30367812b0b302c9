import csv
from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.checkpoints import save_atomically
from common.inferers.translation import DdimTranslationInferer
from common.networks.parts import NetworkParts
from common.report.figures import Display
from common.samplers.guidance import classifier_guide
from common.schedulers import NoiseSchedule
from common.sweeps import sweep_guidance


class Standard(nn.Module):
    """The exact noise predictor for standard normal pixels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x_t, timesteps, class_labels=None):
        alpha_bar = NoiseSchedule(100).alphas_cumprod.to(x_t)[timesteps].view(-1, 1, 1, 1)
        return (1 - alpha_bar).sqrt() * x_t * self.scale


class BrightIsDiseased(nn.Module):
    def forward(self, x_t, timesteps):
        brightness = x_t.flatten(1).amax(1, keepdim=True)
        return torch.cat([-brightness, brightness], 1)


@pytest.fixture
def network():
    return NetworkParts("diffusion", diffusion=Standard(), classifier=BrightIsDiseased())


def item(case, lesion=True):
    image, label = torch.zeros(2, 16, 16, 3), torch.zeros(1, 16, 16, 3)
    image[:, 2:14, 2:14] = 0.5
    if lesion:
        image[:, 6:9, 6:9, 1] = 1.0
        label[:, 6:9, 6:9, 1] = 1
    affine = torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0], dtype=torch.float64))
    return {"case": case, "image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine)}


def inferer():
    return DdimTranslationInferer(
        schedule=NoiseSchedule(100, num_inference_steps=20, spacing="trailing"),
        noise_level=[20, 40],
        guidance={"classifier": partial(classifier_guide, target=0)},
        guidance_scale=[0.0, 1.0, 10.0],
        pixel_mm=1.0,
        patch_size=(16, 16),
        num_channels=2,
        normalize="none",
        threshold=0.1,
        progress=False,
    )


def run(network, tmp_path, items):
    save_atomically(network.state_dict(), tmp_path / "model.pt")
    display = Display(channel=1, window=None, map_window=(0, 1), unit="of 1")
    sweep_guidance(items, inferer(), network, str(tmp_path / "model.pt"), str(tmp_path), display, "Synthetic.")
    with open(tmp_path / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_each_setting_has_a_row_and_guidance_finds_the_lesion(network, tmp_path):
    rows = run(network, tmp_path, [item("a"), item("healthy", lesion=False)])
    assert [(row["noise_level"], row["guidance_scale"]) for row in rows] == [
        (level, scale) for level in ("20", "40") for scale in ("0.0", "1.0", "10.0")
    ]
    assert float(rows[2]["auroc"]) > 0.9
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 3
    assert "One slice of a" in page
    assert "Synthetic." in page


def test_without_lesions_there_is_nothing_to_sweep(network, tmp_path):
    with pytest.raises(ValueError, match="expected a case with lesions"):
        run(network, tmp_path, [item("a", lesion=False)])
