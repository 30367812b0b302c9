import numpy as np
import pytest
import torch
from conftest import GOLDEN, TinyUNet

from common.samplers.condition_difference import condition_difference
from common.samplers.guidance import classifier_guidance
from common.schedulers import NoiseSchedule

RECORDED = np.load(GOLDEN / "condition_difference.npz")
AUTHORS = {"index_mode": "authors", "clip_mode": "authors", "divide": False}


class ConditionalUNet(TinyUNet):
    """The recorded network of one channel; conditions are shares of its classes."""

    def __init__(self, dtype=torch.float64):
        super().__init__(dtype)
        recorded = {name: torch.tensor(RECORDED[name], dtype=dtype) for name in RECORDED.files}
        self.w = {name[5:]: value for name, value in recorded.items() if name.startswith("unet_")}
        self.classifier = {name[4:]: value for name, value in recorded.items() if name.startswith("cls_")}
        self.image, self.noise = recorded["x0"], recorded["noise"]

    def __call__(self, x_t, timesteps, shares):
        embedding = self._embed(timesteps, x_t) @ self.w["U"].T + shares @ self.w["E"]
        hidden = torch.conv2d(x_t, self.w["W1"], self.w["b1"], padding=1) + embedding[:, :, None, None]
        return torch.conv2d(hidden.tanh(), self.w["W2"], self.w["b2"], padding=1)


def guide(tiny, scale):
    return (lambda targets: classifier_guidance(tiny.classify, targets, scale)) if scale else None


@pytest.mark.parametrize("scale", [0, 10])
@pytest.mark.parametrize(("precision", "tolerance"), [(64, 1e-9), (32, 1e-5)])
def test_authors_mode_equals_the_released_program(monkeypatch, precision, tolerance, scale):
    tiny = ConditionalUNet(torch.float64 if precision == 64 else torch.float32)
    name = f"T1000_Q400_s{scale}_f{precision}_diff"
    monkeypatch.setattr("common.samplers.condition_difference.randn_like", lambda *_: tiny.noise)
    found = condition_difference(
        tiny, tiny.image, NoiseSchedule(1000), 400, 10, 0.95, guide=guide(tiny, scale), **AUTHORS
    )
    np.testing.assert_allclose(found, RECORDED[name], rtol=tolerance, atol=tolerance * 0.1 if precision == 64 else 1e-5)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("scale", [0, 10])
def test_one_call_for_both_chains_equals_two(dtype, atol, scale):
    tiny, batches = ConditionalUNet(dtype), []

    def apart(x_t, timesteps, shares):
        batches.append(len(x_t))
        halves = zip(x_t.chunk(2), timesteps.chunk(2), shares.chunk(2), strict=True)
        return torch.cat([tiny(*half) for half in halves])

    together, separately = (
        condition_difference(
            model,
            tiny.image,
            NoiseSchedule(1000),
            400,
            10,
            guide=guide(tiny, scale),
            generator=torch.Generator().manual_seed(0),
        )
        for model in (tiny, apart)
    )
    assert batches == [2 * len(tiny.image)] * 10
    torch.testing.assert_close(together, separately, rtol=0, atol=atol)


def test_equal_conditions_give_no_difference_and_the_division_undoes_tau():
    tiny, schedule = ConditionalUNet(), NoiseSchedule(1000)
    tiny.w["E"] = torch.zeros_like(tiny.w["E"])
    assert (condition_difference(tiny, tiny.image, schedule, 400, 5) == 0).all()
    tiny = ConditionalUNet()
    maps = [
        condition_difference(tiny, tiny.image, schedule, 400, 1, tau, generator=torch.Generator().manual_seed(0))
        for tau in (0.99, 0.999)
    ]
    torch.testing.assert_close(maps[0], maps[1], rtol=0.02, atol=1e-4)


def test_the_network_is_told_consecutive_timesteps():
    seen = []

    def model(x_t, timesteps, shares):
        seen.append(timesteps[0].item())
        return torch.zeros_like(x_t)

    condition_difference(model, torch.rand(1, 1, 4, 4), NoiseSchedule(1000), 400, 4)
    assert seen == [399, 398, 397, 396]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_level": 1001}, r"noise_level must lie in \[1, 1000\], got 1001"),
        ({"noise_level": 1000, "index_mode": "authors"}, r"noise_level must lie in \[1, 999\]"),
        ({"num_steps": 401}, r"number of steps must lie in \[1, 400\]"),
        ({"tau": 1.0}, r"tau must lie in \[0, 1\)"),
        ({"classes": (0, 2)}, r"classes must lie in \[0, 1\], got \(0, 2\)"),
        ({"index_mode": "thesis"}, "index_mode must be one of"),
        ({"schedule": NoiseSchedule(1000, num_inference_steps=50)}, "expected a schedule of all 1000 timesteps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    defaults = {"schedule": NoiseSchedule(1000), "noise_level": 400, "num_steps": 10}
    with pytest.raises(ValueError, match=message):
        condition_difference(ConditionalUNet(), torch.rand(1, 1, 8, 8), **{**defaults, **options})
