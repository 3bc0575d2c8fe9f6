"""Training batches in which all classes occur equally often: a pure function of (seed, epoch, batch number)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Int64

from pointmix.data.sampler import EpochBatches, Key

DRAW = 1 << 32  # added to the epoch of a key each time that a sample is drawn again: its augmentation differs


def balanced_draws(
    targets: Int[np.ndarray, " n"], *, seed: int, epoch: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """n draws in which the numbers of samples of any two classes that occur differ by one at most.

    The samples of a class are drawn equally often, up to one draw; which ones more often is random.

    Args:
        targets: the class of each sample.

    Returns:
        The sample of each draw, and how often it was drawn before; grouped by class, not shuffled.
    """
    rng = np.random.default_rng((seed, epoch))
    classes = rng.permutation(np.unique(targets))  # the first ones get the remainder
    share, rest = divmod(len(targets), len(classes))
    samples, draws = [], []
    for place, label in enumerate(classes):
        members = rng.permutation(np.flatnonzero(targets == label))
        draw, member = np.divmod(np.arange(share + (place < rest)), len(members))
        samples.append(members[member])
        draws.append(draw)
    return np.concatenate(samples), np.concatenate(draws)


class BalancedBatches(EpochBatches):
    """`EpochBatches` over `balanced_draws` in place of the samples.

    Args:
        targets: the class of each sample.
        batch_size, seed, rank, world_size: see `EpochBatches`.
    """

    def __init__(
        self, targets: Int[np.ndarray, " n"], *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(size=len(targets), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        self.targets = targets

    def __iter__(self) -> Iterator[list[Key]]:
        samples, draws = balanced_draws(self.targets, seed=self.seed, epoch=self.epoch)
        for batch in super().__iter__():
            yield [(epoch + int(draws[i]) * DRAW, int(samples[i])) for epoch, i in batch]


def train_batches(
    targets: Int[np.ndarray, " n"], *, balanced: bool, batch_size: int, seed: int, rank: int, world_size: int
) -> EpochBatches:
    """The batches of labeled training samples; arguments as of `BalancedBatches`."""
    options = {"batch_size": batch_size, "seed": seed, "rank": rank, "world_size": world_size}
    return BalancedBatches(targets, **options) if balanced else EpochBatches(size=len(targets), **options)
