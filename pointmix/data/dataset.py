"""Samples of a source, each with its own random numbers, and their collation."""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from pointmix.data.sampler import Key
from pointmix.data.source import Readable, Source
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.utils.limits import TooLarge

MAX_TRIES = 100  # damaged samples in a row before giving up: then the disk is at fault, not a file

Raw = TypeVar("Raw")  # what a source reads
Item = TypeVar("Item")  # what becomes a part of a batch
Input = TypeVar("Input")  # what the transform makes of a sample with one target
Inputs = TypeVar("Inputs")  # inputs joined to a batch


class Failure(NamedTuple):
    """A sample that could not be used, and why; fatal if the loader must not skip it."""

    file: str
    reason: str
    fatal: bool = False


Sample = tuple[Item | None, list[Failure]]  # None if unreadable
Target = int | float


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


class SampleDataset(Dataset[Sample[Item]], ABC, Generic[Raw, Item]):
    """Samples of a part of a source, by (epoch, position).

    Args:
        source: the samples.
        indices: (n,) the part, as indices into the source.
        seed: for training: augmentation is seeded by (seed, epoch, index) for each sample, and a damaged sample is
            replaced by the next readable one. None for evaluation: random numbers are seeded by the index alone, and a
            damaged sample is left out.
    """

    what = "samples"  # what messages call them
    reading: Int[Tensor, "W 2"] | None = None  # for each worker: its process id, the index it read last; shared memory

    def __init__(self, *, source: Readable[Raw], indices: Int[np.ndarray, " n"], seed: int | None) -> None:
        self.source, self.indices, self.seed = source, indices, seed

    @abstractmethod
    def make(self, raw: Raw, index: int) -> Item:
        """What becomes a part of a batch; the global random states are seeded for this sample."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[Key]) -> list[Sample[Item]]:
        """The samples of a batch; called by torch's DataLoader. Without workers the caller's random state is kept."""
        with preserved_rng_state():
            return [self.sample(*key) for key in keys]

    def __getitem__(self, key: Key) -> Sample[Item]:
        return self.__getitems__([key])[0]

    def read(self, index: int) -> Raw:
        return self.source.read(index)

    def sample(self, epoch: int, position: int) -> Sample[Item]:
        """A sample, and the failures on the way to it; seeds the global random states."""
        failed: list[Failure] = []
        for step in range(min(MAX_TRIES, len(self)) if self.seed is not None else 1):
            index = int(self.indices[(position + step) % len(self)])
            if self.reading is not None and (worker := get_worker_info()) is not None:
                self.reading[worker.id] = torch.tensor([os.getpid(), index])
            try:
                raw = self.read(index)
                seed_all(*((index,) if self.seed is None else (self.seed, epoch, index)))
                return self.make(raw, index), failed
            except (UnreadableSample, TooLarge) as error:
                failed.append(Failure(self.source.name(index), str(error), isinstance(error, BadMask)))
        return None, failed


class SourceDataset(SampleDataset[Raw, tuple[Input, Target]], Generic[Raw, Input]):
    """Samples with one target each: items are pairs of an input and its target.

    Args:
        source: the samples and their targets.
        transform: what the source reads -> one input of the batch.
        indices, seed: see `SampleDataset`.
    """

    source: Source[Raw]

    def __init__(
        self,
        *,
        source: Source[Raw],
        indices: Int[np.ndarray, " n"],
        transform: Callable[[Raw], Input],
        seed: int | None,
    ) -> None:
        super().__init__(source=source, indices=indices, seed=seed)
        self.transform = transform

    def make(self, raw: Raw, index: int) -> tuple[Input, Target]:
        return self.transform(raw), np.asarray(self.source.targets[index]).item()


@dataclass(frozen=True)
class Collated(Generic[Item]):
    """The samples of a batch joined (None if none was readable), how many there are and should be, and the failures."""

    batch: Item | None
    num_samples: int
    num_asked: int
    failures: list[Failure]


def join_samples(samples: list[Sample[Item]], *, join: Callable[[list[Item]], Inputs]) -> Collated[Inputs]:
    """Join the readable samples of a batch.

    Args:
        join: items -> a batch; called with at least one.
    """
    failed = [failure for _, failures in samples for failure in failures]
    items = [item for item, _ in samples if item is not None]
    return Collated(join(items) if items else None, len(items), len(samples), failed)


def collate(
    samples: list[Sample[tuple[Input, Target]]], *, join: Callable[[list[Input]], Inputs]
) -> Collated[tuple[Inputs, Num[Tensor, " B"]]]:
    """Samples of a `SourceDataset` -> a batch of the joined inputs and the targets (B,).

    Targets are int64, or torch's default precision if those of the source are floating point.

    Args:
        join: inputs -> their batch; called with at least one.
    """

    def joined(items: list[tuple[Input, Target]]) -> tuple[Inputs, Num[Tensor, " B"]]:
        inputs, targets = zip(*items, strict=True)
        return join(list(inputs)), torch.tensor(targets)

    return join_samples(samples, join=joined)
