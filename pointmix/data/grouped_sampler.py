"""Batches of samples of similar size, a pure function of (seed, epoch, batch number) as in `pointmix.data.sampler`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64

from pointmix.data.sampler import EpochBatches, Key


class Group(NamedTuple):
    """Samples that may form a batch, with those that the groups before it in its chain left over.

    Args:
        positions: of the samples in the split.
        batch_size: samples per batch and process.
    """

    positions: Int64[np.ndarray, " n"]
    batch_size: int


class GroupedBatches(EpochBatches):
    """Shuffled training batches, each of the samples of one group.

    What does not fill a global batch of a group goes to the next group of its chain, and from the last one to batches
    of whatever is left over. So every epoch has the same number of batches, and only a last incomplete global batch is
    dropped, whose samples differ from epoch to epoch.

    Args:
        chains: the groups, each sample in one of them.
        rest: samples per batch and process of what all chains leave over.
        seed, rank, world_size: see `EpochBatches`.

    Raises:
        ValueError: if there is no batch.
    """

    fixed = ("samples", "seed", "global_batch", "groups")  # the groups are cut into global batches

    def __init__(
        self, chains: Sequence[Sequence[Group]], *, rest: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.chains, self.rest = chains, rest
        groups = [group for chain in chains for group in chain]
        super().__init__(
            size=sum(len(group.positions) for group in groups),
            batch_size=max([rest, *(group.batch_size for group in groups)]),
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    def __len__(self) -> int:
        batches = rest = 0
        for chain in self.chains:
            left = 0
            for group in chain:
                whole, left = divmod(left + len(group.positions), group.batch_size * self.world_size)
                batches += whole
            rest += left
        return batches + rest // (self.rest * self.world_size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, start, self.start = self.epoch, self.start, 0
        generator = self.generator(epoch)
        batches: list[torch.Tensor] = []  # global ones
        rest = []

        def cut(positions: torch.Tensor, batch_size: int) -> torch.Tensor:
            """Add the whole batches of these positions, and return what is left over."""
            whole = len(positions) // (batch_size * self.world_size) * batch_size * self.world_size
            batches.extend(positions[:whole].view(-1, self.world_size, batch_size))
            return positions[whole:]

        for chain in self.chains:
            left = torch.empty(0, dtype=torch.int64)
            for group in chain:
                shuffled = torch.from_numpy(group.positions)[torch.randperm(len(group.positions), generator=generator)]
                left = cut(torch.cat([left, shuffled]), group.batch_size)
            rest.append(left)
        cut(torch.cat(rest), self.rest)
        for number in torch.randperm(len(batches), generator=generator)[start:].tolist():
            yield [(epoch, position) for position in batches[number][self.rank].tolist()]

    def state_dict(self) -> dict[str, int]:
        check = 0
        for chain in self.chains:
            for group in chain:
                size = group.batch_size * self.world_size
                check = zlib.crc32(group.positions.tobytes(), zlib.crc32(str(size).encode(), check))
        return {**super().state_dict(), "groups": check}
