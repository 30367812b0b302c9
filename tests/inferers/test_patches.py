import pytest
import torch

from common.inferers.patches import Patch, in_patches, patches_around


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
    assert [p.item for p in where] == [0, 1, 1, 1, 1]
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
    assert patch.item == 1
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


def test_volumes_are_cut_into_patches_like_slices():
    image = torch.arange(20.0 * 18 * 16).view(1, 1, 20, 18, 16)
    organ = torch.zeros(image.shape, dtype=torch.bool)
    organ[..., 2:18, 3:9, 4:12] = True
    where = list(patches_around(organ, organ, (12, 10, 10), margin=1))
    assert len(where) == 2
    assert all(len(patch.corner) == 3 for patch in where)
    answer, covered = in_patches(lambda x, g: 2 * x, [(image, 0.0)], where, (12, 10, 10), 1)
    assert (covered | ~organ).all()
    torch.testing.assert_close(answer, torch.where(covered, 2 * image, 0.0))


def test_a_slice_gives_the_same_as_slice_or_as_volume_of_one():
    image, where = torch.rand(1, 1, 20, 12), [Patch(0, [0, 0]), Patch(0, [8, 0])]

    def number(x, generators):
        return x + torch.arange(len(generators)).view(-1, 1, *[1] * (x.ndim - 2))

    flat = in_patches(number, [(image, 0.0)], where, (12, 12), 8, apart=True)[0]
    deep = [Patch(patch.item, [*patch.corner, 0]) for patch in where]
    assert torch.equal(in_patches(number, [(image[..., None], 0.0)], deep, (12, 12, 1), 8, apart=True)[0][..., 0], flat)


def test_with_seeds_of_their_own_items_are_sampled_as_if_they_were_alone():
    image = torch.zeros(2, 1, 12, 12)

    def noise(x, generators):
        return torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators])

    both = in_patches(noise, [(image, 0.0)], [Patch(0, [0, 0]), Patch(1, [0, 0])], (12, 12), 8, seed=[3, 4])[0]
    alone = in_patches(noise, [(image[1:], 0.0)], [Patch(0, [0, 0])], (12, 12), 8, seed=[4])[0]
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])
