import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers.baselines.segmenter import NetworkSegmenter
from common.inferers.grid import Grid
from common.inferers.segmentation import DiffusionSegmenter, EnsembleInferer
from common.networks.parts import NetworkParts
from common.schedulers import NoiseSchedule

SCHEDULE = NoiseSchedule(100)
GRID = Grid(patch_size=(24, 24), pixel_mm=2.0, num_channels=2, normalize="none")
STD = 0.2


class MaskOfBrightness(nn.Module):
    """The exact predictor of noise and variance where the mask is normal around the first channel."""

    def forward(self, x, timesteps):
        image, x_t = x[:, :1], x[:, 2:]
        alpha_bar = SCHEDULE.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        before = SCHEDULE.alphas_cumprod_prev[timesteps].view(-1, 1, 1, 1)
        beta, noisy = 1 - alpha_bar / before, alpha_bar * STD**2 + 1 - alpha_bar
        epsilon = (1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * image) / noisy
        posterior = beta * (1 - before) / (1 - alpha_bar)
        variance = posterior + before * (beta / (1 - alpha_bar)) ** 2 * STD**2 * (1 - alpha_bar) / noisy
        share = (variance / posterior).log() / (beta / posterior).log()
        return torch.cat([epsilon, (2 * share - 1).expand_as(epsilon)], 1).to(x)


@pytest.fixture
def network():
    return NetworkParts("diffusion", diffusion=MaskOfBrightness()).eval()


@pytest.fixture
def image():
    volume = torch.zeros(1, 2, 28, 28, 3)
    volume[:, :, 4:24, 4:24] = 0.1 + 0.4 * torch.rand(2, 20, 20, 3, generator=torch.Generator().manual_seed(0))
    return MetaTensor(volume, affine=torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0])))


def diffusion(sampler="ddpm", **options):
    segmenter = DiffusionSegmenter(schedule=SCHEDULE, sampler=sampler)
    return EnsembleInferer(grid=GRID, segmenter=segmenter, progress=False, **options)


def test_mean_and_variance_are_those_of_the_masks(network, image):
    mean, variance, mask, head = diffusion(num_samples=40, threshold=0.3)(image, network)[0]
    inside = head > 0
    assert torch.equal(inside, image[0, 0].as_tensor() > 0)
    error = (mean - image[0, 0].as_tensor())[inside]
    assert error.std() == pytest.approx(STD / 40**0.5, rel=0.1)
    assert variance[inside].mean() == pytest.approx(STD**2 * 39 / 40, rel=0.1)
    assert torch.equal(mask > 0, (mean > 0.3) & inside)
    assert not mean[~inside].any()
    assert not variance[~inside].any()


def test_ddim_draws_the_first_noise_alone(network, image):
    """Its masks have the same mean and spread, nearly all between 0 and 1, and no step adds noise."""
    halves = MetaTensor(0.5 * (image > 0).as_tensor(), affine=image.affine)
    mean, variance, _, head = diffusion(sampler="ddim", num_samples=40)(halves, network)[0]
    inside = head > 0
    error = (mean - 0.5)[inside]
    assert error.std() == pytest.approx(STD / 40**0.5, rel=0.15)
    assert variance[inside].mean() == pytest.approx(STD**2 * 39 / 40, rel=0.15)


def test_a_segmentation_of_no_region_is_refused():
    with pytest.raises(ValueError, match="num_regions must be >= 1, got 0"):
        diffusion(num_regions=0)


class BrightFarBeyondMasks(nn.Module):
    """The exact noise predictor where values are about 9, as a network's may be that errs by little of the noise."""

    def forward(self, x, timesteps):
        alpha_bar = SCHEDULE.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        epsilon = (x[:, 2:] - alpha_bar.sqrt() * 9) / (1 - alpha_bar).sqrt()
        return torch.cat([epsilon, epsilon], 1).to(x)


def test_masks_of_ddim_lie_between_0_and_1(image):
    network = NetworkParts("diffusion", diffusion=BrightFarBeyondMasks()).eval()
    mean, _, _, head = diffusion(sampler="ddim", num_samples=2)(image, network)[0]
    assert torch.equal(mean, head)


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match="sampler must be one of ddpm, ddim, got 'euler'"):
        diffusion(sampler="euler")


def test_members_do_not_depend_on_how_they_are_batched(network, image):
    together, one_by_one = (diffusion(num_samples=3, slice_batch_size=n)(image, network) for n in (16, 1))
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-6)
    assert not torch.equal(together, diffusion(num_samples=3, seed=1)(image, network))


def test_masks_may_be_averaged_instead_of_samples(network, image):
    mean, variance, *_ = diffusion(num_samples=4, average="masks")(image, network)[0]
    assert set((4 * mean).flatten().tolist()) <= {0, 1, 2, 3, 4}
    torch.testing.assert_close(variance, mean * (1 - mean))
    with pytest.raises(ValueError, match="average must be one of samples, masks, got 'staple'"):
        diffusion(average="staple")


def test_members_may_be_kept(network, image):
    found = diffusion(num_samples=3, with_members=True)(image, network)[0]
    members = found[4:]
    torch.testing.assert_close(members.mean(0), found[0])
    torch.testing.assert_close(members.var(0, correction=0), found[1])
    torch.testing.assert_close(members[:1], diffusion(num_samples=1)(image, network)[0, :1])


def test_one_draw_has_no_variance(network, image):
    assert diffusion(num_samples=1)(image, network)[0, 1].max() < 1e-6


def test_regions_within_one_another_are_counted_in_the_mask(image):
    class Regions(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0] - 0.2, x[:, 0] - 0.3, x[:, 0] - 0.4], 1) * 1000

    segmenter = NetworkSegmenter(part="plain")
    inferer = EnsembleInferer(grid=GRID, segmenter=segmenter, num_regions=3, num_samples=1, progress=False)
    found = inferer(image, NetworkParts("plain", plain=Regions()))[0]
    bright = image[0, 0].as_tensor()
    torch.testing.assert_close(found[-2], sum((bright > x).float() for x in (0.2, 0.3, 0.4)))
    assert len(found) == 3 + 3 + 2
