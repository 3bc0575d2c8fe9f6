"""Samples of a source, each with its own random numbers, and their collation."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from pointmix.data.sampler import Key
from pointmix.data.source import Source
from pointmix.io.errors import BadMask, UnreadableSample

MAX_TRIES = 100  # damaged samples in a row before giving up: then the disk is at fault, not a file

Raw = TypeVar("Raw")  # what a source reads
Input = TypeVar("Input")  # what the transform makes of it
Inputs = TypeVar("Inputs")  # inputs joined to a batch


class Failure(NamedTuple):
    """A sample that could not be used, and why; fatal if the loader must not skip it."""

    file: str
    reason: str
    fatal: bool = False


Sample = tuple[Input | None, int | float, list[Failure]]  # input (None if unreadable), target, failures
Batch = tuple[Inputs | None, Num[Tensor, " B"], list[Failure]]  # inputs are None if no sample was readable


def seed_all(*words: int) -> None:
    """Seed Python, NumPy and torch from `words`, none negative; about 15 microseconds."""
    first, second, third = np.random.SeedSequence(words).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)  # torch.manual_seed would also visit every accelerator


@contextmanager
def preserved_rng_state() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch; about 120 microseconds, so used once per batch."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class SourceDataset(Dataset[Sample[Input]], Generic[Raw, Input]):
    """Samples of a part of a source, by (epoch, position).

    Args:
        source: the samples.
        indices: (n,) the part, as indices into the source.
        transform: what the source reads -> one input of the batch.
        seed: for training: augmentation is seeded by (seed, epoch, index) for each sample, and a damaged sample is
            replaced by the next readable one. None for evaluation: random numbers are seeded by the index alone, and a
            damaged sample is left out.
    """

    what = "samples"  # what messages call them
    reading: Int[Tensor, "W 2"] | None = None  # for each worker: its process id, the index it read last; shared memory

    def __init__(
        self,
        *,
        source: Source[Raw],
        indices: Int[np.ndarray, " n"],
        transform: Callable[[Raw], Input],
        seed: int | None,
    ) -> None:
        self.source, self.indices, self.transform, self.seed = source, indices, transform, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[Key]) -> list[Sample[Input]]:
        """The samples of a batch; called by torch's DataLoader. Without workers the caller's random state is kept."""
        with preserved_rng_state():
            return [self.sample(*key) for key in keys]

    def __getitem__(self, key: Key) -> Sample[Input]:
        return self.__getitems__([key])[0]

    def read(self, index: int) -> Raw:
        return self.source.read(index)

    def sample(self, epoch: int, position: int) -> Sample[Input]:
        """A sample, its target, and the failures on the way to it; seeds the global random states."""
        failed: list[Failure] = []
        for step in range(min(MAX_TRIES, len(self)) if self.seed is not None else 1):
            index = int(self.indices[(position + step) % len(self)])
            if self.reading is not None and (worker := get_worker_info()) is not None:
                self.reading[worker.id] = torch.tensor([os.getpid(), index])
            try:
                raw = self.read(index)
                seed_all(*((index,) if self.seed is None else (self.seed, epoch, index)))
                return self.transform(raw), np.asarray(self.source.targets[index]).item(), failed
            except UnreadableSample as error:
                failed.append(Failure(self.source.name(index), str(error), isinstance(error, BadMask)))
        return None, -1, failed


def collate(samples: list[Sample[Input]], *, join: Callable[[list[Input]], Inputs]) -> Batch[Inputs]:
    """Samples -> the joined inputs and the targets (B,) of the readable ones, and the failures.

    Targets are int64, or torch's default precision if those of the source are floating point.

    Args:
        join: inputs -> a batch; called with at least one.
    """
    failed = [failure for _, _, failures in samples for failure in failures]
    inputs = [sample for sample, _, _ in samples if sample is not None]
    targets = torch.tensor([target for sample, target, _ in samples if sample is not None])
    targets = targets if len(targets) else targets.long()
    return join(inputs) if inputs else None, targets, failed
