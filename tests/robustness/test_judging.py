"""A wrong answer is seen."""

import numpy as np
import pytest

from ci.robustness import judging
from ci.robustness.ct import CT
from ci.robustness.inputs import nifti, refused, right, warned
from ci.robustness.judging import ABORTED, WRONG, judge, with_all_sequences

LAYERS = with_all_sequences("CT")


def outcome(folder, each):
    (verdict,) = judge([each], LAYERS, folder)
    return verdict.outcome


@pytest.mark.parametrize(
    "truth",
    [
        CT.changed(np.negative),
        CT.masked(np.zeros_like, "_label"),
        CT.bare(),
        CT.reshaped(lambda voxels: voxels[::-1], CT.affine),
        CT.at(CT.affine * [1, 1, 1, 1.1]),
    ],
    ids=["values", "mask", "no masks", "mirrored", "elsewhere"],
)
def test_an_input_that_is_something_else_in_truth_is_silently_wrong(tmp_path, truth):
    assert outcome(tmp_path, right("odd", nifti(CT, truth))) == WRONG


@pytest.mark.parametrize("expected", [refused, warned])
def test_an_input_that_is_taken_without_a_word_is_silently_wrong(tmp_path, expected):
    assert outcome(tmp_path, expected("odd", "", nifti(CT))) == WRONG


def test_an_input_that_is_not_seen_at_all_is_silently_wrong(tmp_path):
    assert outcome(tmp_path, right("odd", lambda folder: CT)) == ABORTED  # as there is no other case
    verdicts = judge([right("odd", lambda folder: CT), right("good", nifti(CT))], LAYERS, tmp_path / "two")
    assert [verdict.outcome for verdict in verdicts] == [WRONG, "right"]


def test_an_input_that_takes_others_with_it_aborts_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "listed", lambda *_, **__: len(None))
    verdicts = list(judge([right(name, nifti(CT)) for name in "ab"], LAYERS, tmp_path))
    assert [verdict.outcome for verdict in verdicts] == [ABORTED, ABORTED]
    assert not any(verdict.foreseen for verdict in verdicts)


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_a_scan_stored_along_other_axes_is_the_same_in_the_world(codes):
    turned = CT.turned(codes)
    ours, theirs = (judging.in_ras(scan.images[""][..., None], scan.affine) for scan in (turned, CT))
    assert turned.images[""].shape != CT.images[""].shape or codes == "LPS"
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1])
