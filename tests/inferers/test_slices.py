import importlib
import inspect
import pickle
import pkgutil
from functools import partial

import pytest
import torch
import translated
from inpainted import inpainting, liver_network, repainter, scan
from monai.data import MetaTensor
from torch import nn
from tqdm import tqdm
from translated import TOWARDS_HEALTH, brain, brain_network, translating

import common.inferers
from common.inferers.baselines.attribution import AttributionTranslator
from common.inferers.baselines.controls import EqualizedTranslator, MedianInpainter, MedianTranslator
from common.inferers.baselines.noise import NoiseTranslator
from common.inferers.baselines.reconstruction import Reconstruction
from common.inferers.baselines.segmenter import NetworkSegmenter
from common.inferers.condition import ConditionDifferenceTranslator, ScaledDifference
from common.inferers.ddim import DdimTranslator
from common.inferers.grid import Grid
from common.inferers.inpainting import Inpainter
from common.inferers.segmentation import DiffusionSegmenter, EnsembleInferer, Segmenter
from common.inferers.slices import SlicewiseInferer, per_slice
from common.inferers.translation import Translator
from common.inferers.variants import Variants
from common.networks.parts import NetworkParts
from common.schedulers import NoiseSchedule

GRID = Grid(pixel_mm=1.0, patch_size=(4, 4))
ALL_STEPS = {"schedule": NoiseSchedule(100), "noise_level": 10}


def gone_wrong(network):
    """Let all parts of a container answer NaN."""
    for part in network.children():
        part.register_forward_hook(lambda part, inputs, answer: answer * torch.nan)
    return network


class Doubling(SlicewiseInferer):
    channels = ("doubled",)

    def examine(self, volume, pixel_mm, network):
        return 2 * volume


class ClassIsNoise(translated.GaussianNoise):
    """What the class changes here depends on the noise alone."""

    def forward(self, x_t, timesteps, class_labels):
        return class_labels[:, 1, None, None, None] * x_t.abs()


class MaskAndVariance(nn.Module):
    def forward(self, x, timesteps):
        return x[:, 1:].repeat(1, 2, 1, 1) / 2


def segmenting(segmenter, **options):
    grid = Grid(pixel_mm=2.0, patch_size=(24, 24))
    return EnsembleInferer(grid=grid, segmenter=segmenter, num_samples=1, **options)


def brain_parts(**parts):
    return NetworkParts("classifier", classifier=translated.BrightIsDiseased(), **parts).eval()


class Norm(nn.Module):
    """A classifier with a layer that can be looked at."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Conv2d(2, 2, 1)

    def forward(self, x_t, timesteps):
        return self.norm(x_t).mean((2, 3))


FILM = {"num_channels": 1, "normalize": "none"}
SAMPLING = {
    "ddim": (partial(translating, DdimTranslator, **TOWARDS_HEALTH), brain, brain_network),
    "ddim of the program": (
        partial(translating, DdimTranslator, **TOWARDS_HEALTH, index_mode="authors", heun=True),
        brain,
        brain_network,
    ),
    "noise": (partial(translating, NoiseTranslator, **TOWARDS_HEALTH), brain, brain_network),
    "condition difference": (
        partial(translating, ConditionDifferenceTranslator, **ALL_STEPS, **FILM, score=ScaledDifference()),
        partial(brain, channels=1),
        lambda: brain_parts(diffusion=ClassIsNoise()),
    ),
    "repaint": (partial(inpainting, repainter(), num_samples=3), scan, liver_network),
    "ddpm segmenter": (
        partial(segmenting, DiffusionSegmenter(schedule=NoiseSchedule(100, num_inference_steps=5))),
        partial(brain, channels=1),
        lambda: NetworkParts("diffusion", diffusion=MaskAndVariance()),
    ),
    "ddim segmenter": (
        partial(segmenting, DiffusionSegmenter(schedule=NoiseSchedule(100), sampler="ddim")),
        partial(brain, channels=1),
        lambda: NetworkParts("diffusion", diffusion=MaskAndVariance()),
    ),
}
AT_ONCE = {
    "reconstruction": (partial(translating, Reconstruction, part="copy"), brain, brain_network),
    "median": (partial(translating, MedianTranslator), brain, brain_network),
    "equalised": (partial(translating, EqualizedTranslator, channel=1), brain, brain_network),
    "median in holes": (partial(inpainting, MedianInpainter(), num_samples=3), scan, liver_network),
    "attribution": (
        partial(translating, AttributionTranslator, method="grad_cam"),
        brain,
        lambda: NetworkParts("classifier", classifier=Norm()),
    ),
    "network": (
        partial(segmenting, NetworkSegmenter(part="plain", dropout=True)),
        partial(brain, channels=1),
        lambda: NetworkParts("plain", plain=nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout(0.5))).eval(),
    ),
}


@pytest.fixture
def bars(monkeypatch):
    """Return the bars that are shown, and by how much each was moved on, and when."""
    shown = []

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{**kwargs, "disable": bool(kwargs["disable"])})  # as on a terminal
            self.moves = []
            shown.append(self)

        def update(self, n=1):
            self.moves.append(n)
            super().update(n)

    monkeypatch.setattr("common.progress.tqdm", Bar)
    return shown


def part_of(inferer):
    (part,) = (getattr(inferer, name) for name in ("translator", "inpainter", "segmenter") if hasattr(inferer, name))
    return part


@pytest.mark.parametrize("name", SAMPLING)
def test_a_bar_moves_on_with_each_step_of_a_sampler_and_is_full_at_the_end(bars, name):
    make, image, network = SAMPLING[name]
    inferer = make(progress=True, slice_batch_size=2)  # of three slices or samples
    inferer(image(), network())
    (bar,) = bars
    assert bar.total == bar.n == 2 * part_of(inferer).num_steps
    assert bar.moves == 2 * [*[1] * part_of(inferer).num_steps, 0]


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_bar_moves_on_with_each_batch_of_a_method_without_steps(bars, name):
    make, image, network = AT_ONCE[name]
    make(progress=True, slice_batch_size=2)(image(), network())
    (bar,) = bars
    assert bar.total == 2
    assert bar.moves == [1, 1]


@pytest.mark.parametrize("name", [*SAMPLING, *AT_ONCE])
def test_an_inferer_has_no_state(name):
    make, image, network = {**SAMPLING, **AT_ONCE}[name]
    inferer, network, image = make(progress=False), network(), image()
    before = pickle.dumps((vars(inferer), vars(inferer.grid), vars(part_of(inferer))))
    first = inferer(image, network)
    again = inferer(image, network)
    other = MetaTensor(image.flip(2), affine=image.affine)
    inferer(other, network)
    afterwards = inferer(image, network)
    assert torch.equal(again, first)
    assert torch.equal(afterwards, first)
    assert pickle.dumps((vars(inferer), vars(inferer.grid), vars(part_of(inferer)))) == before


def composed():
    """Return the classes of ``common.inferers`` that configs put together."""
    kinds = (Grid, ScaledDifference, SlicewiseInferer, Translator, Inpainter, Segmenter, Variants)
    names = [module.name for module in pkgutil.walk_packages(common.inferers.__path__, "common.inferers.")]
    members = [member for name in names for member in vars(importlib.import_module(name)).values()]
    found = {member for member in members if inspect.isclass(member) and issubclass(member, kinds)}
    return sorted(found, key=lambda member: member.__name__)


@pytest.mark.parametrize("kind", composed(), ids=lambda kind: kind.__name__)
def test_constructors_take_keywords_alone_and_their_signatures_show_every_one(kind):
    assert {p.kind for p in inspect.signature(kind).parameters.values()} <= {inspect.Parameter.KEYWORD_ONLY}


def test_images_are_examined_one_after_another_without_their_metadata():
    images = MetaTensor(torch.ones(2, 1, 4, 4, 2), affine=torch.eye(4))
    result = Doubling(grid=GRID, threshold=0.0)(images, None)
    assert type(result) is torch.Tensor
    assert torch.equal(result, torch.full((2, 1, 4, 4, 2), 2.0))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_samples": 0}, "num_samples and slice_batch_size must be >= 1, got 0 and 16"),
        ({"slice_batch_size": 0}, "num_samples and slice_batch_size must be >= 1, got 1 and 0"),
        ({"threshold": float("nan")}, "threshold must be a finite number"),
    ],
)
def test_options_that_leave_nothing_to_do_or_to_mask_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        Doubling(**{"grid": GRID, "threshold": 0.0, **options})


def test_an_image_without_an_affine_or_with_nan_is_refused():
    with pytest.raises(ValueError, match="no affine"):
        Doubling(grid=GRID, threshold=0.0)(torch.ones(1, 1, 4, 4), None)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Doubling(grid=GRID, threshold=0.0)(MetaTensor(torch.full((1, 1, 4, 4), torch.inf), affine=torch.eye(4)), None)


@pytest.mark.parametrize("name", [*SAMPLING, "reconstruction", "attribution", "network"])
def test_an_answer_that_is_no_number_is_an_error_not_an_empty_mask(name):
    make, image, network = {**SAMPLING, **AT_ONCE}[name]
    with pytest.raises(ValueError, match="the networks' answer holds NaN or infinite values: look at the weights"):
        make(progress=False)(image(), gone_wrong(network()))


@pytest.mark.parametrize("median_radius", [0, 2])
def test_a_filter_does_not_hide_a_pixel_that_is_no_number(median_radius):
    network = brain_network()
    network.copy.register_forward_hook(lambda part, inputs, answer: answer.index_fill(3, torch.tensor(9), torch.nan))
    with pytest.raises(ValueError, match="answer holds NaN or infinite"):
        translating(Reconstruction, part="copy", median_radius=median_radius)(brain(), network)


def test_a_result_that_is_no_number_is_an_error():
    infinite = MetaTensor(torch.full((1, 1, 4, 4), 3e38), affine=torch.eye(4))
    with pytest.raises(ValueError, match="answer holds NaN or infinite"):
        Doubling(grid=GRID, threshold=0.0)(infinite, None)


def test_an_organ_that_the_network_cannot_tell_is_an_error():
    container = gone_wrong(NetworkParts("organ", organ=nn.Identity()))
    with pytest.raises(ValueError, match="answer holds NaN or infinite"):
        Doubling(grid=GRID, threshold=0.0).segment_organ(torch.zeros(1, 1, 16, 16), container)


def test_the_organ_part_finds_the_largest_part_and_fills_its_holes():
    class BrightIsOrgan(nn.Module):
        def forward(self, x):
            assert x.shape[-2:] == (16, 32)
            return x - 0.5

    image = torch.zeros(2, 1, 16, 20)
    image[0, 0, 2:9, 2:9] = 1
    image[0, 0, 5, 5] = 0
    image[:, 0, 12:14, 12:14] = 1
    container = NetworkParts("organ", organ=BrightIsOrgan())
    found = Doubling(grid=GRID, threshold=0.0).segment_organ(image, container)
    assert found.dtype == torch.bool
    assert found[0].sum() == 49
    assert found[1].sum() == 0


def test_arrays_are_given_slices_along_the_last_axis():
    slices = torch.arange(24.0).view(2, 1, 3, 4)
    result = per_slice(lambda x, offset: x + offset, slices, offset=1)
    assert torch.equal(result, slices + 1)
    assert per_slice(lambda x: x[..., :1], slices).shape == (1, 1, 3, 4)
