"""Batches in which classes and sites have their shares."""

from collections.abc import Iterator, Sequence

import ignite.distributed as idist
import numpy as np
from torch.utils.data import Sampler

DRAWS = ("random", "cells")


class SiteBatchSampler(Sampler[list[int]]):
    """Draw batches of cases of several sites, and behind each batch one case of the target of each class.

    Nothing is carried from one epoch to the next: what is drawn depends on the seed, the epoch and the process alone.

    Source: Wolleb et al. 2022, "Learn to Ignore", algorithm 1, whose batches are ten images of all sites and one of the
    target of each class.

    Attributes:
        epoch: of the training, set by ``SeedEachEpoch``.

    Args:
        labels: class of each case.
        targets: whether each is of the target.
        batch_size: cases of all sites in a batch.
        num_batches: in an epoch.
        draw: ``random`` cases, or of all ``cells`` (class, and target or not) in turn, which is called class-aware.
        with_target: put a target case of each class, in their order, behind each batch.
        seed: of the draws.

    Raises:
        ValueError: if ``draw`` is unknown, there is no case, or a class that the target does not have.
    """

    def __init__(
        self,
        labels: Sequence[int],
        targets: Sequence[bool],
        batch_size: int = 10,
        num_batches: int = 85,
        draw: str = "random",
        with_target: bool = True,
        seed: int = 0,
    ) -> None:
        if draw not in DRAWS:
            raise ValueError(f"draw must be one of {', '.join(DRAWS)}, got {draw!r}.")
        if not len(labels):
            raise ValueError("expected cases to draw from, got none.")
        self.labels, self.targets = np.asarray(labels), np.asarray(targets, dtype=bool)
        self.batch_size, self.num_batches, self.draw, self.with_target = batch_size, num_batches, draw, with_target
        self.seed, self.epoch = seed, 1
        self.classes = sorted(set(self.labels.tolist()))
        missing = [k for k in self.classes if not (self.targets & (self.labels == k)).any()]
        if with_target and missing:
            raise ValueError(f"expected cases of each class in the target, got none of class {missing[0]}.")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the epoch."""
        random = np.random.default_rng([self.seed, self.epoch, idist.get_rank()])
        cells = [np.flatnonzero(own) for own in self._cells() if own.any()]
        for number in range(self.num_batches):
            if self.draw == "random":
                batch = random.choice(len(self.labels), self.batch_size).tolist()
            else:
                turns = (number * self.batch_size + np.arange(self.batch_size)) % len(cells)
                batch = [int(random.choice(cells[turn])) for turn in turns]
            ends = self.classes if self.with_target else []
            yield batch + [int(random.choice(np.flatnonzero(self.targets & (self.labels == k)))) for k in ends]

    def _cells(self) -> Iterator[np.ndarray]:
        for own in (self.targets, ~self.targets):
            for k in self.classes:
                yield own & (self.labels == k)
