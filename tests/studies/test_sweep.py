import csv
from functools import partial

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.checkpoints import save_atomically
from common.inferers.ddim import DdimTranslator
from common.inferers.grid import Grid
from common.inferers.translation import TranslationInferer
from common.inferers.variants import EachByItself, SharedEncoding
from common.networks.parts import NetworkParts
from common.report.figures import Display
from common.samplers.guidance import classifier_guidance
from common.schedulers import NoiseSchedule
from common.studies.sweep import sweep, varied


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


TRANSLATOR = DdimTranslator(
    schedule=NoiseSchedule(100, num_inference_steps=20, spacing="trailing"),
    noise_level=20,
    guidance={"classifier": partial(classifier_guidance, target=0)},
    guidance_scale=1.0,
)
INFERER = TranslationInferer(
    grid=Grid(pixel_mm=1.0, patch_size=(16, 16), num_channels=2, normalize="none"),
    translator=TRANSLATOR,
    threshold=0.1,
    progress=False,
)
LEVELS_AND_SCALES = SharedEncoding(translator=TRANSLATOR, noise_levels=[20, 40], guidance_scales=[0.0, 1.0, 10.0])


def run(network, tmp_path, items, variants=LEVELS_AND_SCALES, **options):
    save_atomically(network.state_dict(), tmp_path / "model.pt")
    display = Display(channel=1, window=None, map_window=(0, 1), unit="of 1")
    sweep(
        items, INFERER, variants, network, str(tmp_path / "model.pt"), str(tmp_path), display, "Synthetic.", **options
    )
    return table(tmp_path / "sweep.csv")


def table(path):
    with open(path, newline="") as file:
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


def test_each_setting_has_a_dice_for_masks_at_shares_of_the_maps_highest_value(network, tmp_path):
    run(network, tmp_path, [item("a")])
    assert not (tmp_path / "thresholds.csv").exists()
    run(network, tmp_path, [item("a"), item("b")], relative_thresholds=[0.25, 0.5])
    rows = table(tmp_path / "thresholds.csv")
    assert [(row["noise_level"], row["guidance_scale"], row["relative_threshold"]) for row in rows[:3]] == [
        ("20", "0.0", "0.25"),
        ("20", "0.0", "0.5"),
        ("20", "1.0", "0.25"),
    ]
    assert len(rows) == 12
    assert {(row["slices"], row["misclassified"]) for row in rows} == {("2", "0")}
    assert float(rows[5]["dice"]) == float(rows[5]["dice_without_misclassified"]) > 0.5
    assert "Thresholds" in (tmp_path / "report.html").read_text()


def test_without_lesions_in_the_organ_there_is_nothing_to_sweep(network, tmp_path):
    outside = item("a")
    outside["image"] = MetaTensor(outside["image"] * (outside["label"] == 0), meta=outside["image"].meta)
    outside["image"] = MetaTensor(torch.cat([outside["image"], 1.0 - outside["label"]]), meta=outside["image"].meta)
    for one in (item("a", lesion=False), outside):
        with pytest.raises(ValueError, match="expected a case with lesions"):
            run(network, tmp_path, [one])


def test_variants_of_other_keys_have_curves_and_strips_of_their_own(network, tmp_path):
    """The settings of the second are called as if they were others."""
    other = EachByItself(translators=3 * [TRANSLATOR], settings=[{"steps": n, "share": 0.5} for n in (1, 5, 9)])
    rows = run(network, tmp_path, [item("a")], variants=[LEVELS_AND_SCALES, other])
    assert len(rows) == 9
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 2 + 3
    assert "Over noise_level, at guidance_scale 1." in page
    assert "Over steps." in page


def test_what_does_not_vary_is_not_shown_twice():
    settings = [(("a", 1), ("b", 2)), (("a", 1), ("b", 3))]
    assert varied(settings) == {"b": [2, 3]}
    assert varied(settings[:1]) == {"b": [2]}
