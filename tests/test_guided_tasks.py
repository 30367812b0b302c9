"""Figures of the command that measures what guidance by a regressor and by a segmenter does to phantoms."""

import numpy as np
import pytest
from evaluated import table

from ci import guided_tasks as command
from common.phantoms.brain_mr import BrainMR


def patient():
    """Return a patient whose tumour fills 6 x 6 pixels of slice 0, brighter in FLAIR from row to row, and less of 1."""
    twin, tumour = np.full((4, 10, 10, 2), 100, np.int16), np.zeros((10, 10, 2), np.uint8)
    tumour[2:8, 2:8, 0] = 1
    tumour[2:7, 2:7, 1] = 1
    image = twin.copy()
    image[3] += (10 * np.arange(-1, 9)[:, None, None] * (tumour > 0)).astype(np.int16)
    return BrainMR(image, twin, tumour, tumour, np.eye(4))


class Shares:
    """A translator that knows patient and twin: its versions have shares of the tumour's contrast."""

    def __init__(self, *shares):
        self.shares = shares

    def __call__(self, image, target=None):
        known = patient()
        return [known.healthy + share * (known.image - known.healthy) for share in self.shares]

    def scale(self, image):
        return np.full((4, 1, 1, 1), 50.0)


def translated(monkeypatch, *shares):
    monkeypatch.setattr(command, "Translator", lambda *names, **settings: Shares(*shares))


def test_a_difference_is_the_sum_of_shares_of_the_channels_ranges():
    image, twin = np.array([3.0, 5.0]), np.array([1.0, 8.0])
    scale = np.array([4.0, 6.0])
    found = command.difference(*(each.reshape(2, 1, 1, 1) for each in (image, twin, scale)))
    assert found.tolist() == [[[2 / 4 + 3 / 6]]]


def test_an_area_counts_pixels_that_differ_from_the_twin_by_half_the_tumours_mean_contrast(monkeypatch):
    translated(monkeypatch, 0, 0.3, 0.6, 1)
    _, (row,), _ = command.regression([patient()], {})  # slice 1 has fewer than MIN_PIXELS
    # Six rows have 10, 20, ..., 60: those above 17.5 count.
    assert [row[f"area at {ratio:g}"] for ratio in command.RATIOS] == [0, 6, 24, 30]
    assert row["ratio"] == 0.36


@pytest.mark.parametrize(("shares", "monotone"), [((0, 0, 0.3, 1), 1), ((0, 0.6, 0.3, 1), 0), ((1, 0.6, 0.3, 0), 0)])
def test_areas_are_monotone_if_none_shrinks_with_the_ratio(monkeypatch, shares, monotone):
    translated(monkeypatch, *shares)
    assert command.regression([patient()], {})[0] == monotone


@pytest.mark.parametrize(("share", "dice"), [(1, 2 * 30 / (30 + 36)), (0.3, 2 * 6 / (6 + 36)), (0, 0)])
def test_dice_compares_what_was_put_there_with_what_was_wanted(monkeypatch, share, dice):
    translated(monkeypatch, share)
    assert command.segmentation([patient()], {})[0] == pytest.approx(dice)


def test_a_run_gives_the_means_of_its_tables(tmp_path):
    monotone, dice = command.guided_tasks(str(tmp_path), patients=1, num_inference_steps=8)
    grown, placed = (table(tmp_path / f"{name}.csv") for name in ("regression", "segmentation"))
    assert len(grown) == len(placed) > 0
    assert monotone == np.mean([row["monotone"] == "True" for row in grown])
    assert dice == pytest.approx(np.mean([float(row["dice"]) for row in placed]))
    assert 0 < dice < 1
    assert (tmp_path / "report.html").stat().st_size > 5000
