import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from common.inferers.generation import generate_slices, real_slices
from common.schedulers import NoiseSchedule

WINDOW = (-160.0, 240.0)
SCHEDULE = NoiseSchedule(100, num_inference_steps=5)


class KnowsOneImage(nn.Module):
    """The exact noise predictor of a data set of one image, in [-1, 1]."""

    def __init__(self, image):
        super().__init__()
        self.image = nn.Parameter(image)

    def forward(self, x_t, timesteps):
        alpha_bar = NoiseSchedule(100).alphas_cumprod.to(x_t)[timesteps].view(-1, 1, 1, 1)
        return (x_t - alpha_bar.sqrt() * self.image) / (1 - alpha_bar).sqrt()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DiffusionModelUNet(2, 1, 1, 1, (4, 8), (False, False), norm_num_groups=4, num_head_channels=8)


def test_a_model_of_one_image_generates_that_image_in_hu():
    image = torch.linspace(-1, 1, 48).view(1, 1, 8, 6)
    slices = generate_slices(KnowsOneImage(image), SCHEDULE, (8, 6), WINDOW, count=2)
    torch.testing.assert_close(slices, (40 + 200 * image[0]).expand(2, 8, 6).detach(), atol=0.1, rtol=0)


def test_slices_that_are_no_numbers_are_an_error():
    with pytest.raises(ValueError, match="answer holds NaN or infinite"):
        generate_slices(KnowsOneImage(torch.full((1, 1, 8, 6), torch.nan)), SCHEDULE, (8, 6), WINDOW, count=1)


def test_generated_slices_are_plain_hu_within_the_window(network):
    slices = generate_slices(network, SCHEDULE, (8, 12), WINDOW, count=3)
    assert slices.shape == (3, 8, 12)
    assert slices.dtype == torch.float32
    assert not slices.requires_grad
    assert slices.min() >= -160
    assert slices.max() <= 240


def test_a_seed_repeats_its_slices_and_leaves_other_draws_alone(network):
    before = torch.get_rng_state()
    first, again, other = (generate_slices(network, SCHEDULE, (8, 8), WINDOW, 1, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_slices_of_one_batch_differ(network):
    slices = generate_slices(network, SCHEDULE, (8, 8), WINDOW, count=2)
    assert not torch.equal(slices[0], slices[1])


def test_half_precision_gives_nearly_the_same_slices(network):
    exact, half = (generate_slices(network, SCHEDULE, (8, 8), WINDOW, 1, amp=amp) for amp in (False, True))
    assert half.dtype == torch.float32
    assert (exact - half).abs().mean() < 20


def scan(number=0, spacing=(3.0, 3.0, 5.0), shape=(24, 20, 4), with_organ=True, with_label=True):
    """Return a volume whose slices hold 100 ``number`` + their own index; organ in slices 1 to 3, a lesion in 2."""
    image = 100.0 * number + torch.arange(float(shape[2])).expand(shape)
    organ, label = torch.zeros(shape), torch.zeros(1, *shape)
    organ[4:12, 6:10, 1:4] = 1
    label[:, 5, 7, 2] = 1
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    item = {"image": MetaTensor(torch.stack([image, organ]) if with_organ else image[None], affine=affine)}
    return {**item, "label": label} if with_label else item


def values(slices):
    """Return what a slice of ``scan`` holds, by which it is known."""
    return [float(slice_.max()) for slice_ in slices]


def test_real_slices_are_healthy_and_show_the_organ():
    assert set(values(real_slices([scan()], 3.0, (8, 8), count=4))) == {1, 3}


def test_without_a_label_any_slice_of_the_organ_is_taken():
    assert values(real_slices([scan(with_label=False)], 3.0, (8, 8), count=3)) == [1, 2, 3]


def test_real_slices_come_from_as_many_cases_as_there_are():
    assert values(real_slices([scan(0), scan(1), scan(2)], 3.0, (8, 8), count=3)) == [1, 101, 201]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_there_are_as_many_real_slices_as_asked(count):
    assert real_slices([scan(0), scan(1)], 3.0, (8, 10), count).shape == (count, 8, 10)


def test_the_organ_is_in_the_middle_of_a_real_slice():
    item = scan()
    item["image"][0] = item["image"][1]
    (slice_,) = real_slices([item], 3.0, (12, 8), count=1)
    organ = slice_.nonzero()
    assert (organ.amin(0) + organ.amax(0) + 1).tolist() == pytest.approx([12, 8], abs=2)  # a pixel off at most
    assert len(organ) == 8 * 4


def test_real_slices_are_on_the_networks_grid():
    item = scan(spacing=(1.5, 3.0, 5.0))
    item["image"][0] = item["image"][1]
    (slice_,) = real_slices([item], 3.0, (12, 8), count=1)
    assert float(slice_.clamp(min=0).sum()) == pytest.approx(4 * 4, abs=0.5)


def test_beyond_the_image_is_air():
    (slice_,) = real_slices([scan(number=1)], 3.0, (40, 40), count=1)
    assert (slice_ == -1000).sum() == 40 * 40 - 24 * 20
    assert slice_.max() == 101


def test_without_an_organ_the_middle_of_the_image_is_shown():
    item = scan(with_organ=False, with_label=False)
    item["image"][0, 10:14, 8:12] = 500
    (slice_,) = real_slices([item], 3.0, (6, 6), count=1)
    assert (slice_[2:5, 2:5] == 500).all()


def test_a_slice_image_is_a_volume_of_one():
    item = scan()
    flat = MetaTensor(item["image"][..., 1].as_tensor(), affine=item["image"].affine)
    assert values(real_slices([{"image": flat}], 3.0, (8, 8), count=1)) == [1]


def test_a_case_with_lesions_in_all_slices_is_passed_over():
    diseased = scan(1)
    diseased["label"][:] = 1
    assert set(values(real_slices([scan(0), diseased], 3.0, (8, 8), count=2))) <= {1, 3}


def test_an_organ_smaller_than_a_pixel_of_the_network_is_found():
    item = scan(spacing=(1.0, 1.0, 5.0), with_label=False)
    item["image"][1] = 0
    item["image"][1, 6, 7, 1] = 1
    assert values(real_slices([item], 3.0, (4, 4), count=1)) == pytest.approx([1])


def test_an_empty_organ_mask_is_no_organ():
    item = scan(with_label=False)
    item["image"][1] = 0
    assert real_slices([item], 3.0, (8, 8), count=1).shape == (1, 8, 8)
