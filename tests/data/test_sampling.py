import ignite.distributed as idist
import numpy as np
import pytest

from common.data.sampling import SiteBatchSampler

LABELS = [0] * 4 + [1] * 6 + [0] * 20 + [1] * 30
TARGETS = [True] * 10 + [False] * 50


def sampler(**options):
    return SiteBatchSampler(LABELS, TARGETS, **{"num_batches": 20, **options})


def test_behind_each_batch_stands_a_target_case_of_each_class():
    batches = list(sampler())
    assert len(batches) == len(sampler()) == 20
    for batch in batches:
        assert len(batch) == 12
        assert [LABELS[index] for index in batch[-2:]] == [0, 1]
        assert all(TARGETS[index] for index in batch[-2:])


def test_without_the_target_there_are_batches_alone():
    assert {len(batch) for batch in sampler(with_target=False, batch_size=7)} == {7}


def test_an_epoch_is_drawn_anew_and_the_same_one_the_same(monkeypatch):
    first, again, later = sampler(), sampler(), sampler()
    later.epoch = 2
    assert list(first) == list(first) == list(again)
    assert list(first) != list(later)
    drawn = list(first)
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    assert list(first) != drawn


def test_all_cases_are_drawn_alike_or_all_cells_are():
    drawn = {}
    for draw in ("random", "cells"):
        cases = np.concatenate(list(sampler(draw=draw, with_target=False, num_batches=200)))
        labels, targets = np.take(LABELS, cases), np.take(TARGETS, cases)
        drawn[draw] = [np.mean((labels == k) & (targets == t)) for t in (1, 0) for k in (0, 1)]
    np.testing.assert_allclose(drawn["random"], [4 / 60, 6 / 60, 20 / 60, 30 / 60], atol=0.03)
    np.testing.assert_allclose(drawn["cells"], [0.25] * 4, atol=0.01)


def test_cells_without_cases_are_passed_over():
    made = SiteBatchSampler([0, 1, 1], [True, True, False], 3, 4, "cells", with_target=False)
    assert all(sorted(batch) == [0, 1, 2] for batch in made)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: SiteBatchSampler([], []), "expected cases to draw from"),
        (lambda: SiteBatchSampler([0, 1], [True, False]), "got none of class 1"),
        (lambda: sampler(draw="all"), "draw must be one of random, cells"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()
