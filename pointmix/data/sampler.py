"""The samples of each batch: a pure function of (seed, epoch, batch number), for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

Key = tuple[int, int]  # (epoch, position in the split): identifies a sample


class EpochBatches:
    """Shuffled training batches. Every process draws the same permutation and takes its slice of each global batch.

    Args:
        size: samples in the split.
        batch_size: samples per batch and process; a last incomplete global batch is dropped.
        seed: of the order, not negative.
        rank, world_size: this process and how many there are.

    Raises:
        ValueError: if the split is smaller than a global batch.
    """

    fixed: tuple[str, ...] = ("samples", "seed")  # parts of the state that must be those of this run

    def __init__(self, *, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0  # start: batches to skip in the next iteration
        if not len(self):
            raise ValueError(
                f"{size} training samples do not fill one batch of {batch_size} x {world_size} processes; "
                "use a smaller batch size"
            )

    def __len__(self) -> int:
        return self.size // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, start, self.start = self.epoch, self.start, 0
        order = torch.randperm(self.size, generator=self.generator(epoch))  # (size,)
        order = order[: len(self) * self.batch_size * self.world_size]
        order = order.view(len(self), self.world_size, self.batch_size)[start:, self.rank]  # (batches left, batch_size)
        for batch in order:
            yield [(epoch, position) for position in batch.tolist()]

    def generator(self, epoch: int) -> torch.Generator:
        """Random numbers of the order in an epoch."""
        return torch.Generator().manual_seed(int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0]))

    def state_dict(self) -> dict[str, int]:
        """What determines the order, and where the next iteration starts."""
        whole = {"samples": self.size, "global_batch": self.batch_size * self.world_size, "seed": self.seed}
        return {**whole, "epoch": self.epoch, "batch": self.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next iteration at the position of `state`; raises what `place` raises."""
        self.epoch, self.start = self.place(state)

    def place(self, state: dict[str, int]) -> tuple[int, int]:
        """The epoch and the batch of a state. The state may have another global batch size; the samples are the same.

        Raises:
            ValueError: if the state belongs to other data or another seed, or lies within a global batch.
        """
        ours = self.state_dict()
        for key in ours:
            if key not in state:
                raise ValueError(f"state of the training data has no {key!r}; it has {sorted(state)}")
            if type(state[key]) is not int or state[key] < 0:
                raise ValueError(f"state of the training data has {key} {state[key]!r}, expected a whole number")
            if key in self.fixed and state[key] != ours[key]:
                raise ValueError(f"state of the training data has {key} {state[key]}, but this run has {ours[key]}")
        batch, rest = divmod(state["batch"] * state["global_batch"], ours["global_batch"])
        if rest or batch > len(self):
            where = f"after {state['batch']} batches of {state['global_batch']}"
            raise ValueError(
                f"state of the training data lies {where}, within a batch of this run; expected a multiple of "
                f"global_batch {ours['global_batch']} up to {len(self)} batches"
            )
        return state["epoch"], batch


class PartBatches:
    """Batches for evaluation: process r of R takes the samples r, r + R, r + 2R, ..., each exactly once.

    Processes may differ by one batch: reduce sums and counts after the loop, not within it.
    """

    def __init__(self, *, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.positions, self.batch_size = range(rank, size, world_size), batch_size

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for first in range(0, len(self.positions), self.batch_size):
            yield [(0, position) for position in self.positions[first : first + self.batch_size]]
