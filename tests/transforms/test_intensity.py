import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from common.transforms.intensity import (
    CorrectBiasd,
    ScaleHUd,
    ScaleToUnitd,
    attenuation_window,
    intensity_range,
    scale_hu,
    scale_range,
    unscale_hu,
)

RECORDED = json.loads((GOLDEN / "noise_schedules.json").read_text())["normalisation_4mu_minus_1_mu_per_cm"]


@pytest.mark.parametrize("mu_water", RECORDED)
def test_the_attenuation_window_is_4_mu_minus_1(mu_water):
    recorded = RECORDED[mu_water]["x_at_HU"]
    hu = torch.tensor([float(value) for value in recorded], dtype=torch.float64)
    scaled = scale_hu(hu, attenuation_window(float(mu_water)))
    torch.testing.assert_close(scaled, torch.tensor(list(recorded.values()), dtype=torch.float64))
    torch.testing.assert_close(scaled, 4 * float(mu_water) * (1 + hu / 1000) - 1)


def test_the_window_ends_where_the_recording_says():
    assert attenuation_window(0.192)[1] == pytest.approx(RECORDED["0.192"]["HU_at_x1"])


@given(st.floats(-160, 240))
def test_hu_inside_the_window_go_there_and_back(hu):
    value = torch.tensor(hu, dtype=torch.float64)
    torch.testing.assert_close(unscale_hu(scale_hu(value, (-160, 240)), (-160, 240)), value, atol=1e-9, rtol=0)


def test_hu_outside_the_window_are_clipped():
    assert scale_hu(torch.tensor([-3024.0, 3071.0]), (-160, 240)).tolist() == [-1, 1]


def test_a_window_that_is_upside_down_is_refused():
    with pytest.raises(ValueError, match="low < high"):
        ScaleHUd("image", (240, -160))


def test_a_volume_is_scaled_by_a_percentile_of_what_is_not_background():
    image = torch.zeros(2, 10, 10, 4)
    image[0, :5, :, :2] = torch.arange(1.0, 101).view(5, 10, 2)
    image[1, 0, 0, 0] = 7
    low, high = intensity_range(image, "volume", 99)
    assert low.shape == high.shape == (2, 1, 1, 1)
    assert low.eq(0).all()
    assert high.flatten().tolist() == [pytest.approx(np.percentile(np.arange(1, 101), 99)), 7]
    scaled = scale_range(image, low, high)
    assert scaled.max() == 1
    assert scaled[0, 0, 0, 0] == pytest.approx(1 / high[0].item())


def test_scaled_images_stay_and_a_window_is_taken_as_it_is():
    image = torch.tensor([[[-200.0, 0.25, 40.0]]])
    assert ScaleToUnitd("image", "none")({"image": image})["image"].flatten().tolist() == [0, 0.25, 1]
    windowed = ScaleToUnitd("image", (-160, 240))({"image": image})["image"]
    torch.testing.assert_close(windowed.flatten(), torch.tensor([0.0, 0.400625, 0.5]))


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1024, 3071), (0.2, 0.7)])
def test_a_film_is_scaled_from_its_lowest_value_to_its_highest(low, high):
    film = torch.linspace(low, high, 12).view(1, 3, 4)
    scaled = ScaleToUnitd("image", "range")({"image": film})["image"]
    torch.testing.assert_close(scaled, torch.linspace(0, 1, 12).view(1, 3, 4))


def test_each_channel_has_a_range_of_its_own_and_a_constant_one_becomes_0():
    image = torch.tensor([[[2.0, 6.0]], [[5.0, 5.0]]])
    assert scale_range(image, *intensity_range(image, "range")).tolist() == [[[0, 1]], [[0, 0]]]


def test_an_empty_channel_is_not_divided_by_0():
    image = torch.zeros(1, 3, 3)
    assert torch.equal(scale_range(image, *intensity_range(image)), image)


def test_another_word_for_normalize_is_refused():
    with pytest.raises(ValueError, match=r"normalize must be 'volume', 'brain', .* or two intensities, got 'slice'"):
        intensity_range(torch.ones(1, 2, 2), "slice")


def test_of_a_brain_what_is_darkest_is_0_too():
    image = torch.cat([torch.zeros(50), torch.arange(1.0, 101)]).view(1, 10, 15)
    low, high = intensity_range(image, "brain", 98.0)
    assert (float(low), float(high)) == pytest.approx((2.98, 98.02))
    scaled = scale_range(image, low, high)
    assert (float(scaled.min()), float(scaled.max())) == (0, 1)
    flat, _ = intensity_range(torch.ones(1, 4, 4), "brain", 98.0)
    assert float(flat) == 0


def test_the_gain_of_a_coil_is_evened_out():
    pytest.importorskip("SimpleITK")
    axes = np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij")
    brain = (sum(axis**2 for axis in axes) < 0.8) * (1 + (axes[1] > 0))
    seen = brain * np.exp(0.4 * axes[0]) * 100
    image = MetaTensor(torch.as_tensor(seen[None], dtype=torch.float32), affine=torch.eye(4))
    even = CorrectBiasd("image")({"image": image})["image"]
    assert even.shape == image.shape

    def unevenness(volume):
        return np.std(volume[brain == 1]) / np.mean(volume[brain == 1])

    assert unevenness(even[0].numpy()) < 0.4 * unevenness(seen)
    assert not even[0].numpy()[brain == 0].any()
