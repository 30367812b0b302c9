from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from translated import SCHEDULE, TOWARDS_HEALTH, brain, brain_network, ddim, maps

from common.inferers.ddim import DdimTranslator
from common.inferers.translation import Batch
from common.samplers.ddim import steps_below
from common.samplers.guidance import classifier_guidance, segmentation_guidance
from common.schedulers import NoiseSchedule


@pytest.fixture
def network():
    return brain_network()


def test_without_guidance_an_image_comes_back_in_its_own_intensities(network):
    image = brain()
    few, all_steps = (maps(ddim(schedule=s)(image, network)) for s in (SCHEDULE, NoiseSchedule(100)))
    assert few["anomaly"].shape == (1, 32, 32, 3)
    assert all_steps["anomaly"].max() < 0.3 * few["anomaly"].max() < 0.15
    torch.testing.assert_close(all_steps["translated"], image[0].as_tensor(), atol=10, rtol=0)


def test_guidance_leads_towards_the_class(network):
    image = brain(scale=1.0)
    image[image > 0] += 1
    darker = maps(ddim(guidance_scale=20.0, normalize=[0.0, 2.0])(image, network))["translated"]
    brighter = {"classifier": partial(classifier_guidance, target=1)}
    other = maps(ddim(guidance_scale=20.0, normalize=[0.0, 2.0], guidance=brighter)(image, network))["translated"]
    head = image[0].as_tensor() > 0
    assert darker[head].mean() < image[0].as_tensor()[head].mean() < other[head].mean()


def test_the_classes_of_both_ways_are_told(network):
    network.diffusion.classes = []
    ddim(encode_class=1, decode_class=0)(brain(num_slices=1), network)
    assert network.diffusion.classes == [1] * 10 + [0] * 10
    network.diffusion.classes = []
    ddim(encode_class=None, decode_class=None)(brain(num_slices=1), network)
    assert set(network.diffusion.classes) == {None}


def test_noise_levels_outside_the_schedule_are_refused(network):
    with pytest.raises(ValueError, match=r"noise_level must lie in \[1, 100\]"):
        ddim(noise_level=101)(brain(), network)


@pytest.mark.parametrize(("steps", "index_mode", "below"), [(1, "paper", 0), (1, "paired", 0), (2, "authors", 1)])
def test_a_noise_level_below_which_no_step_is_made_is_refused(steps, index_mode, below):
    schedule = NoiseSchedule(100, num_inference_steps=steps, spacing="trailing")
    reason = rf"got none: of {steps} steps \(num_inference_steps\) {below} lie below noise_level 50 .*{index_mode}"
    with pytest.raises(ValueError, match=reason):
        DdimTranslator(**{**TOWARDS_HEALTH, "schedule": schedule, "index_mode": index_mode})


def test_a_target_guides_the_segmenter(network):
    image = brain(num_slices=1, scale=1.0)
    wanted = torch.zeros(1, 1, 32, 32, 1)
    wanted[..., 12:16, 12:16, :] = 1
    given = MetaTensor(torch.cat([image.as_tensor(), wanted], 1), affine=image.affine)
    guidance = {"segmenter": partial(segmentation_guidance, reduction="sum")}
    inferer = ddim(guidance=guidance, guidance_scale=0.5, with_target=True, normalize="none", classifier=None)
    result = maps(inferer(given, network))
    change = (result["translated"] - image[0].as_tensor())[0]
    inside, head = wanted[0, 0] > 0, result["organ"][0] > 0
    assert change[inside].mean() > 0.05
    assert change[head & ~inside].mean() < -0.05
    assert (result["probability"] == 0).all()


@pytest.mark.parametrize(("index_mode", "fewer"), [("paper", 0), ("paired", 0), ("authors", 1)])
def test_its_steps_are_those_of_both_ways_also_where_the_programs_are_fewer(network, index_mode, fewer):
    inferer, seen = ddim(index_mode=index_mode), []

    def progress(steps):
        seen.extend(steps)
        return iter(steps)

    batch = Batch(torch.rand(1, 2, 24, 24), torch.ones(1, 1, 24, 24, dtype=torch.bool))
    inferer.translator(batch, network, [torch.Generator()], progress)
    assert inferer.translator.num_steps == len(seen) == 2 * (steps_below(50, SCHEDULE) - fewer)
    assert network.diffusion.calls == len(seen)
