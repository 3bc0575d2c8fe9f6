"""From keys to batches: samples with their own random numbers, collation that reports damaged files, the loader."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import signal_handling

from pointmix.data.images.source import BadMask, Source, UnreadableImage, decode
from pointmix.data.sampler import EpochBatches, Key, PartBatches
from pointmix.utils.messages import is_out_of_memory


class Failure(NamedTuple):
    """An image that could not be used, and why; fatal if the loader must not go on without it."""

    file: str
    reason: str
    fatal: bool = False


Sample = tuple[Any, int, list[Failure]]  # no input (None) where none could be read
MAX_TRIES = 100  # damaged images in a row before giving up: then it is the disk, not a file


def seed_all(*words: int) -> None:
    """Make the random numbers of Python, NumPy and torch follow from `words`, none negative; about 15 microseconds."""
    first, second, third = np.random.SeedSequence(words).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)  # torch.manual_seed would also visit every accelerator


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Leave the random states of Python, NumPy and torch as they were; about 120 microseconds, so once a batch."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class ImageSet(Dataset):
    """Samples of a part of a source, by (epoch, position).

    Args:
        source: where the images are.
        indices: (n,) the part, in the source's numbering.
        mode: 'L' or 'RGB'.
        transform: Pillow image -> one input of the batch.
        seed: of the augmentation, drawn anew from (seed, epoch, index) for each sample; a damaged image is replaced by
            the next readable one. None for evaluation: what is random follows from the index alone, and a damaged image
            is left out.
    """

    what = "images"
    reading: Int[Tensor, "W"] | None = None  # the index that each worker read last, -1 before, in shared memory

    def __init__(
        self,
        *,
        source: Source,
        indices: Int[np.ndarray, " n"],
        mode: str,
        transform: Callable[[Image.Image], Any],
        seed: int | None,
    ) -> None:
        self.source, self.indices, self.mode, self.transform, self.seed = source, indices, mode, transform, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, keys: list[Key]) -> list[Sample]:
        """The samples of one batch; torch's fetcher asks for these, so workers 0 leaves the caller's numbers alone."""
        with random_states_kept():
            return [self.sample(*key) for key in keys]

    def __getitem__(self, key: Key) -> Sample:
        return self.__getitems__([key])[0]

    def read(self, index: int) -> Image.Image:
        return decode(self.source, index, self.mode)

    def sample(self, epoch: int, position: int) -> Sample:
        """One image, its label and the files that failed on the way to it; seeds the global random states."""
        failed: list[Failure] = []
        for step in range(min(MAX_TRIES, len(self)) if self.seed is not None else 1):
            index = int(self.indices[(position + step) % len(self)])
            if self.reading is not None and (worker := get_worker_info()) is not None:
                self.reading[worker.id] = index
            try:
                image = self.read(index)
                seed_all(*((index,) if self.seed is None else (self.seed, epoch, index)))
                return self.transform(image), int(self.source.targets[index]), failed
            except UnreadableImage as error:
                failed.append(Failure(self.source.name(index), str(error), isinstance(error, BadMask)))
        return None, -1, failed


def collate(samples: list[Sample], *, join: Callable[[list[Any]], Any]) -> tuple[Any, Int[Tensor, " B"], list[Failure]]:
    """Samples -> the inputs, joined, and the targets (B,) of those that could be read, and the failures."""
    failed = [failure for _, _, failures in samples for failure in failures]
    good = [(image, target) for image, target, _ in samples if image is not None]
    targets = torch.tensor([target for _, target in good], dtype=torch.int64)
    return (join([image for image, _ in good]) if good else torch.empty(0)), targets, failed


class BatchLoader(DataLoader):
    """Iterates over (inputs, targets int64 (B,)) and remembers its place; inputs have `to(device)`.

    The state of a training loader is the place alone, (epoch, batches given), since all else follows from that: a run
    may go on with another number of workers, which torchdata's StatefulDataLoader would not allow.

    Args:
        dataset: the samples; with a seed it is training, else evaluation.
        batches: which of them, in what order.
        workers: processes that read and transform; 0 does it here.
        strict: whether a damaged image is an error.
        collate: samples -> the inputs, targets (B,) and the failures.
    """

    def __init__(
        self,
        *,
        dataset: ImageSet,
        batches: EpochBatches | PartBatches,
        workers: int,
        strict: bool,
        collate: Callable[[list[Sample]], tuple[Any, Tensor, list[Failure]]],
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(0),  # else each epoch would draw from the caller's numbers
        )
        if workers:
            dataset.reading = torch.full((workers,), -1).share_memory_()
            # Else torch would raise when a worker dies wherever this process is then, not where it asks for a batch.
            signal_handling._SIGCHLD_handler_set = True
        self.strict = strict
        self.given = 0  # batches of the epoch that the caller has seen
        self.failed: dict[str, str] = {}  # file -> reason

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch next. The epoch that a loaded state is in goes on where the state left it."""
        if epoch != self.batch_sampler.epoch:
            self.batch_sampler.epoch, self.batch_sampler.start, self.given = epoch, 0, 0

    def _batches(self) -> Iterator[tuple[Any, Int[Tensor, " B"], list[Failure]]]:
        try:
            yield from super().__iter__()
        except (MemoryError, RuntimeError, OSError, EOFError) as e:
            if is_out_of_memory(e):
                batch = f"a batch of {self.batch_sampler.batch_size} {self.dataset.what}"
                raise MemoryError(f"{batch} does not fit; make batch_size or what data.* asks for smaller") from e
            # What comes of a dead worker, which holds the batches that it has sent.
            workers = getattr(self._iterator, "_workers", [])
            ended = wait([worker.sentinel for worker in workers], timeout=3) if workers else []
            for worker in workers:
                if worker.sentinel in ended:  # its files are closed, but it may not have an exit code yet
                    worker.join()
            died = [(number, worker.exitcode) for number, worker in enumerate(workers) if worker.exitcode]
            if not died:
                raise
            read = [index for number, _ in died if (index := int(self.dataset.reading[number])) >= 0]
            names = ", ".join(self.dataset.source.name(index) for index in read) or "nothing yet"
            how = f"was killed by {signal.Signals(-died[0][1]).name}" if died[0][1] < 0 else "died"
            what = f"the worker process that read {names} {how}; is the file damaged, or memory too small?"
            raise ChildProcessError(what) from e

    def state_dict(self) -> dict[str, int]:
        return {**self.batch_sampler.state_dict(), "batch": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch_sampler.load_state_dict(state)
        self.given = self.batch_sampler.start

    def __iter__(self) -> Iterator[tuple[Any, Int[Tensor, " B"]]]:
        self.given = getattr(self.batch_sampler, "start", 0)
        training = self.dataset.seed is not None
        for images, targets, failed in self._batches():
            self.failed.update((file, reason) for file, reason, _ in failed)
            if fatal := [reason for _, reason, fatal in failed if fatal]:
                raise BadMask(fatal[0])
            if failed and self.strict:
                what = f"(data.strict refuses damaged {self.dataset.what})"
                raise UnreadableImage(f"{failed[0][0]}: {failed[0][1]} {what}")
            if training and len(targets) < self.batch_sampler.batch_size:
                count = min(MAX_TRIES, len(self.dataset))
                what = f"all of {count} {self.dataset.what} in a row are damaged"
                raise UnreadableImage(f"{what}; {failed[-1][0]}: {failed[-1][1]}")
            self.given += 1
            if len(targets):
                yield images, targets
