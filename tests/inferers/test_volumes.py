import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.inferers.volumes import TumourSegmentationInferer
from common.networks.parts import NetworkParts

WINDOW = (-175.0, 250.0)


class ByBrightness(nn.Module):
    """Calls what is above 0 HU organ, and of that what is below 60 HU tumour; counts what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, image):
        self.seen += len(image)
        hu = (image + 1) * 212.5 - 175
        organ, tumour = hu > 0, (hu > 0) & (hu < 60)
        return torch.cat([torch.where(c, 9.0, -9.0) for c in (~organ, organ & ~tumour, tumour)], 1)


def network():
    return NetworkParts("segmenter", segmenter=ByBrightness())


def inferer(**options):
    sizes = {"voxel_mm": (2.0, 2.0, 2.0), "patch_size": (16, 16, 16), "window": WINDOW, "progress": False}
    return TumourSegmentationInferer(**sizes, **options)


def scan(voxel_mm=2.0, size=(40, 36, 32), with_organ=False):
    image = torch.full((1, 1, *size), -100.0)
    image[..., 8:30, 6:28, 6:26] = 100
    image[..., 14:20, 12:18, 10:16] = 40
    image[..., 35:38, 30:34, 2:6] = 40  # bright, but not of the organ
    organ = torch.zeros_like(image)
    organ[..., 8:30, 6:28, 6:26] = 1
    channels = torch.cat([image, organ], 1) if with_organ else image
    return MetaTensor(channels, affine=torch.diag(torch.tensor([voxel_mm, voxel_mm, voxel_mm, 1.0])))


def parts(result):
    return dict(zip(TumourSegmentationInferer.channels, result[0], strict=True))


def test_organ_and_tumours_are_told_apart():
    found = parts(inferer()(scan(), network()))
    assert found["mask"].sum() == 6**3
    assert found["organ"].sum() == 22 * 22 * 20
    assert found["labels"].unique().tolist() == [0, 1, 2]
    assert torch.equal(found["labels"] == 2, found["mask"] > 0)
    assert found["probability"][found["mask"] > 0].min() > 0.5


def test_tumours_lie_within_the_largest_piece_that_is_organ():
    found = parts(inferer()(scan(), network()))
    assert not found["mask"][35:38, 30:34].any()


def test_where_an_organ_is_given_its_box_alone_is_looked_at():
    whole, boxed = network(), network()
    without, with_mask = parts(inferer()(scan(), whole)), parts(inferer()(scan(with_organ=True), boxed))
    assert torch.equal(without["mask"], with_mask["mask"])
    assert boxed.segmenter.seen < whole.segmenter.seen


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("size", [(40, 36, 32), (16, 9, 17), (24, 32, 31)])
def test_the_bar_knows_at_how_many_places_a_patch_is_looked_at(size, overlap):
    looking, net = inferer(overlap=overlap, slice_batch_size=1), network()
    looking.classes(torch.zeros(1, *size), net)
    assert net.segmenter.seen == looking.num_windows(size)


@pytest.mark.parametrize("voxel_mm", [1.0, 1.5, 4.0])
def test_results_lie_on_the_scans_own_grid(voxel_mm):
    found = parts(inferer()(scan(voxel_mm), network()))
    assert found["mask"].shape == (40, 36, 32)
    tumour = found["mask"][12:22, 10:20, 8:18]
    assert tumour.sum() == pytest.approx(6**3, rel=0.5)
    assert tumour[3:7, 3:7, 3:7].all()


def test_a_scan_thinner_than_a_patch_is_padded_and_cut_back():
    found = parts(inferer()(scan()[..., 10:16], network()))
    assert found["mask"].shape == (40, 36, 6)
    assert found["mask"].any()


def test_a_higher_threshold_gives_a_smaller_mask():
    image = scan(3.0)
    low, high = (parts(inferer(threshold=t)(image, network()))["mask"].sum() for t in (0.1, 0.9))
    assert low > high > 0


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (scan()[..., 0], "expected a volume"),
        (scan(with_organ=True) * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1), "its mask is empty"),
        (scan() * 0 - 500, "the network found none"),
        (scan() * torch.nan, "NaN"),
    ],
)
def test_what_cannot_be_segmented_is_refused(image, reason):
    with pytest.raises(ValueError, match=reason):
        inferer()(image, network())


def test_an_overlap_of_all_is_refused():
    with pytest.raises(ValueError, match=r"overlap must lie in \[0, 1\), got 1"):
        inferer(overlap=1)
