import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from common.inferers.slices import Patch, SliceInferer, in_patches, noise_predictor, patches_around, per_slice
from common.networks.parts import NetworkParts


class Doubling(SliceInferer):
    channels = ("doubled",)

    def examine(self, volume, pixel_mm, network):
        return 2 * volume


def test_images_are_examined_one_after_another_without_their_metadata():
    images = MetaTensor(torch.ones(2, 1, 4, 4, 2), affine=torch.eye(4))
    result = Doubling(pixel_mm=1.0, threshold=0.0)(images, None)
    assert type(result) is torch.Tensor
    assert torch.equal(result, torch.full((2, 1, 4, 4, 2), 2.0))


def test_an_image_without_an_affine_or_with_nan_is_refused():
    with pytest.raises(ValueError, match="no affine"):
        Doubling(pixel_mm=1.0, threshold=0.0)(torch.ones(1, 1, 4, 4), None)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Doubling(pixel_mm=1.0, threshold=0.0)(
            MetaTensor(torch.full((1, 1, 4, 4), torch.inf), affine=torch.eye(4)), None
        )


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
    found = Doubling(pixel_mm=1.0, threshold=0.0).segment_organ(image, container, 0.0)
    assert found.dtype == torch.bool
    assert found[0].sum() == 49
    assert found[1].sum() == 0


def slices_with_squares():
    """Return two slices whose pixels are their own numbers, and an organ in each."""
    image = torch.arange(2.0 * 20 * 20).view(2, 1, 20, 20)
    organ = torch.zeros(2, 1, 20, 20, dtype=torch.bool)
    organ[0, 0, 3:9, 4:10] = True
    organ[1, 0, 1:19, 2:18] = True
    return image, organ


def test_patches_cover_the_organ_and_what_they_say_is_put_together():
    image, organ = slices_with_squares()
    where = list(patches_around(organ, organ, (12, 12), margin=1))
    assert [p.slice_index for p in where] == [0, 1, 1, 1, 1]
    for batch_size in (1, 2, 8):
        answer, covered = in_patches(lambda x, g: torch.cat([x, 2 * x], 1), [(image, 0.0)], where, (12, 12), batch_size)
        assert answer.shape == (2, 2, 20, 20)
        assert (covered | ~organ).all()
        torch.testing.assert_close(answer[:, 1:], torch.where(covered, 2 * image, 0.0))


def test_patches_without_anything_wanted_are_left_out():
    _, organ = slices_with_squares()
    wanted = torch.zeros_like(organ)
    wanted[1, 0, 17, 16] = True
    (patch,) = patches_around(organ, wanted, (12, 12), margin=1)
    assert patch.slice_index == 1
    assert min(patch.corner) > 0


def test_no_patch_gives_zeros():
    image, _ = slices_with_squares()
    answer, covered = in_patches(lambda x, g: x, [(image, 0.0)], [], (12, 12), 4)
    assert not answer.any()
    assert not covered.any()


def test_a_patch_has_its_own_draws_in_any_batch_and_others_in_each_sample():
    image, organ = slices_with_squares()
    where = list(patches_around(organ, organ, (20, 20), margin=1))

    def draw(x, generators):
        return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators])

    def drawn(**options):
        return in_patches(draw, [(image, 0.0)], where, (20, 20), **{"batch_size": 8, **options})[0]

    assert torch.equal(drawn(), drawn(batch_size=1))
    assert not torch.equal(drawn(), drawn(seed=1))
    assert drawn(num_samples=30).std() == pytest.approx(30**-0.5, abs=0.05)
    samples = drawn(num_samples=3, apart=True)
    torch.testing.assert_close(samples.mean(1, keepdim=True), drawn(num_samples=3))
    torch.testing.assert_close(samples[:, :1], drawn())


def test_apart_a_pixel_has_one_patch_to_say_what_it_is():
    """Two patches of 12 overlap in a slice of 20: each tells the half that is nearer to its centre."""
    image, where = torch.zeros(1, 1, 20, 12), [Patch(0, [0, 0]), Patch(0, [8, 0])]

    def number(x, generators):
        return torch.arange(len(generators))[:, None, None, None].expand(-1, 1, 12, 12).float()

    apart = in_patches(number, [(image, 0.0)], where, (12, 12), 8, apart=True)[0][0, 0, :, 0]
    assert apart.tolist() == [0] * 10 + [1] * 10
    assert in_patches(number, [(image, 0.0)], where, (12, 12), 8)[0][0, 0, 8:12, 0].tolist() == [0.5] * 4


def test_a_class_conditional_network_is_told_one_class():
    torch.manual_seed(0)
    unet = DiffusionModelUNet(2, 1, 1, 1, (8,), (False,), norm_num_groups=4, num_head_channels=8, num_class_embeds=2)
    nn.init.normal_(unet.out[-1].conv.weight)
    x_t, timesteps = torch.randn(3, 1, 8, 8), torch.full((3,), 5)
    for label in (0, 1):
        expected = unet(x_t, timesteps, class_labels=torch.full((3,), label))
        torch.testing.assert_close(noise_predictor(unet, label=label)(x_t, timesteps), expected)


def test_arrays_are_given_slices_along_the_last_axis():
    slices = torch.arange(24.0).view(2, 1, 3, 4)
    result = per_slice(lambda x, offset: x + offset, slices, offset=1)
    assert torch.equal(result, slices + 1)
    assert per_slice(lambda x: x[..., :1], slices).shape == (1, 1, 3, 4)
