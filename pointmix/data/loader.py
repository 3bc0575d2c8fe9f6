"""A loader that remembers its position in the epoch and reports damaged files and dead workers."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from pointmix.data.dataset import MAX_TRIES, Collated, Sample, SampleDataset
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.utils.messages import is_out_of_memory

Batch = TypeVar("Batch")


class BatchLoader(DataLoader[Any], Generic[Batch]):
    """Iterates over batches and remembers its position. With `collate` a batch is (inputs, targets (B,)).

    The state of a training loader is (epoch, batches yielded): all else follows from it, so a run may resume with
    another number of workers, unlike with torchdata's StatefulDataLoader.

    Args:
        dataset: the samples; with a seed for training, else for evaluation.
        batches: which samples form which batch.
        workers: processes that read and transform; 0 for the current process.
        strict: whether a damaged sample is an error.
        collate: samples -> the batch, see `pointmix.data.dataset.join_samples`.
    """

    def __init__(
        self,
        *,
        dataset: SampleDataset[Any, Any],
        batches: EpochBatches | PartBatches,
        workers: int,
        strict: bool,
        collate: Callable[[list[Sample[Any]]], Collated[Batch]],
    ) -> None:
        self.samples, self.batches = dataset, batches  # DataLoader's own attributes have less specific types
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(0),  # otherwise each epoch would advance the caller's generator
        )
        if workers:
            dataset.reading = torch.full((workers, 2), -1).share_memory_()
        self.strict = strict
        self.batches_yielded = 0  # in this epoch
        self.failed: dict[str, str] = {}  # file -> reason
        self._workers: list[BaseProcess] = []

    def set_epoch(self, epoch: int) -> None:
        """Start this epoch next. The epoch of a loaded state continues at its position."""
        order = self._order()
        if epoch != order.epoch:
            order.epoch, order.start, self.batches_yielded = epoch, 0, 0

    def _order(self) -> EpochBatches:
        if not isinstance(self.batches, EpochBatches):
            raise TypeError("a loader for evaluation has neither epochs nor a state")
        return self.batches

    def _batches(self) -> Iterator[Collated[Batch]]:
        try:
            yield from self._started()
        except (MemoryError, RuntimeError, OSError, EOFError) as e:
            if is_out_of_memory(e):
                batch = f"a batch of {self.batches.batch_size} {self.samples.what}"
                raise MemoryError(f"{batch} does not fit; make batch_size or what data.* asks for smaller") from e
            # The error may come from a dead worker: its batches are lost, and so are the files that it opened.
            ended = wait([worker.sentinel for worker in self._workers], timeout=3) if self._workers else []
            for worker in self._workers:
                if worker.sentinel in ended:  # it may not have an exit code yet
                    worker.join()
            died = [worker for worker in self._workers if worker.exitcode]
            if not died:
                raise
            last_read = {} if self.samples.reading is None else dict(self.samples.reading.tolist())  # pid -> index
            names = ", ".join(self.samples.source.name(last_read[w.pid]) for w in died if w.pid in last_read)
            code = died[0].exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "died"
            reader = f"the worker process that read {names or 'nothing yet'}"
            raise ChildProcessError(f"{reader} {how}; is the file damaged, or memory too small?") from e

    def _started(self) -> Iterator[Collated[Batch]]:
        """torch's iterator, whose worker processes are known, and which leaves the handler of SIGCHLD as it was."""
        # torch's handler would raise the death of a worker anywhere in this process, not where it asks for a batch
        handler = signal.getsignal(signal.SIGCHLD) if threading.current_thread() is threading.main_thread() else None
        before = multiprocessing.active_children()
        batches = super().__iter__()
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)
        started = [child for child in multiprocessing.active_children() if child not in before]
        self._workers = sorted(started, key=lambda child: child.pid or 0) or self._workers
        return batches

    def position(self, state: dict[str, int]) -> tuple[int, int]:
        """Epoch and batch of a state; raises as `EpochBatches.place`."""
        return self._order().place(state)

    def state_dict(self) -> dict[str, int]:
        return {**self._order().state_dict(), "batch": self.batches_yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        order = self._order()
        order.load_state_dict(state)
        self.batches_yielded = order.start

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a private class there
        training = isinstance(self.batches, EpochBatches)
        self.batches_yielded = self.batches.start if isinstance(self.batches, EpochBatches) else 0
        for collated in self._batches():
            batch, count, failed = collated.batch, collated.num_samples, collated.failures
            self.failed.update((file, reason) for file, reason, _ in failed)
            if fatal := [reason for _, reason, fatal in failed if fatal]:
                raise BadMask(fatal[0])
            if failed and self.strict:
                what = f"(data.strict refuses damaged {self.samples.what})"
                raise UnreadableSample(f"{failed[0][0]}: {failed[0][1]} {what}")
            if training and count < collated.num_asked:
                tried = min(MAX_TRIES, len(self.samples))
                what = f"all of {tried} {self.samples.what} in a row are damaged"
                raise UnreadableSample(f"{what}; {failed[-1][0]}: {failed[-1][1]}")
            self.batches_yielded += 1
            if batch is not None:
                yield batch
