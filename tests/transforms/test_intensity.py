import json

import pytest
import torch
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from common.transforms.intensity import (
    ScaleHUd,
    attenuation_to_hu,
    attenuation_window,
    hu_to_attenuation,
    scale_hu,
    unscale_hu,
)

RECORDED = json.loads((GOLDEN / "noise_schedules.json").read_text())["gdpi_normalisation_4mu_minus_1_mu_per_cm"]


@pytest.mark.parametrize("mu_water", RECORDED)
def test_the_attenuation_window_is_4_mu_minus_1(mu_water):
    recorded = RECORDED[mu_water]["x_at_HU"]
    hu = torch.tensor([float(value) for value in recorded], dtype=torch.float64)
    scaled = scale_hu(hu, attenuation_window(float(mu_water)))
    torch.testing.assert_close(scaled, torch.tensor(list(recorded.values()), dtype=torch.float64))
    torch.testing.assert_close(scaled, 4 * hu_to_attenuation(hu, float(mu_water)) - 1)


def test_the_window_ends_where_the_recording_says():
    assert attenuation_window(0.192)[1] == pytest.approx(RECORDED["0.192"]["HU_at_x1"])


@given(st.floats(-1000, 3000), st.floats(0.15, 0.25))
def test_attenuation_goes_there_and_back(hu, mu_water):
    value = torch.tensor(hu, dtype=torch.float64)
    torch.testing.assert_close(
        attenuation_to_hu(hu_to_attenuation(value, mu_water), mu_water), value, atol=1e-9, rtol=0
    )


@given(st.floats(-160, 240))
def test_hu_inside_the_window_go_there_and_back(hu):
    value = torch.tensor(hu, dtype=torch.float64)
    torch.testing.assert_close(unscale_hu(scale_hu(value, (-160, 240)), (-160, 240)), value, atol=1e-9, rtol=0)


def test_hu_outside_the_window_are_clipped():
    assert scale_hu(torch.tensor([-3024.0, 3071.0]), (-160, 240)).tolist() == [-1, 1]


def test_a_window_that_is_upside_down_is_refused():
    with pytest.raises(ValueError, match="low < high"):
        ScaleHUd("image", (240, -160))
