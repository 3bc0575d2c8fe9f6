"""Splits of labeled samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int

from pointmix.data.dataset import SampleDataset
from pointmix.data.loader import BatchLoader
from pointmix.io.errors import BadMask, UnreadableSample

VAL_FRACTION = 0.1  # held out of train where the data have no validation split of their own

Batch = TypeVar("Batch")
Item = TypeVar("Item")  # a training sample


class LoaderSplits(Generic[Batch]):
    """What the splits of images and of clouds have in common: loaders of batches."""

    train: BatchLoader[Batch]
    val: BatchLoader[Batch] | None
    test: BatchLoader[Batch]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train)

    def set_epoch(self, epoch: int) -> None:
        """Set the order and the augmentation of the next pass over train; call it before every epoch."""
        self.train.set_epoch(epoch)

    def skipped(self) -> list[tuple[str, str]]:
        """(file, reason) of every damaged sample that this process has found so far."""
        loaders = [loader for loader in (self.train, self.val, self.test) if loader is not None]
        return sorted({failure for loader in loaders for failure in loader.failed.items()})


def stratified_split(
    targets: Int[np.ndarray, " N"], *, fraction: float, seed: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Two sorted lists of indices, the second with `fraction` of every class: at least one sample, but never all."""
    rng = np.random.default_rng(seed)
    second = []
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        count = min(max(round(fraction * len(members)), 1), len(members) - 1) if fraction else 0
        second.append(members[:count])
    indices = np.sort(np.concatenate(second))
    return np.setdiff1d(np.arange(len(targets)), indices), indices


def stratified_fold(
    targets: Int[np.ndarray, " N"], *, fold: tuple[int, int], seed: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Two sorted lists of indices, the second the k-th of n equal parts with the same proportions of classes.

    Args:
        fold: k, n, with k from 1.

    Raises:
        ValueError: if there are fewer than n samples.
    """
    k, n = fold
    if len(targets) < n:
        raise ValueError(f"data.fold {k}, {n}: {len(targets)} samples cannot be divided into {n} parts")
    order = np.random.default_rng(seed).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]  # by class, at random within each
    return np.sort(np.delete(order, np.s_[k - 1 :: n])), np.sort(order[k - 1 :: n])


def random_split(number: int, *, fraction: float, seed: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Two sorted lists of indices, the second with `fraction` of all: at least one, but never all."""
    count = min(max(round(fraction * number), 1), number - 1) if fraction else 0
    order = np.random.default_rng(seed).permutation(number)
    return np.sort(order[count:]), np.sort(order[:count])


def first_sample(dataset: SampleDataset[Any, Item]) -> Item:
    """A training sample, for the number of its channels.

    Raises:
        UnreadableSample: there is none that can be read.
        BadMask: the first one has labels that do not fit.
    """
    item, failed = dataset[0, 0]
    if fatal := [failure for failure in failed if failure.fatal]:
        raise BadMask(fatal[0].reason)
    if item is None:
        name, why, _ = failed[-1]
        raise UnreadableSample(f"{len(failed)} {dataset.what} in a row are damaged; {name}: {why}")
    return item


def check_same_classes(train: list[str], other: list[str], split: str) -> None:
    """Refuse a split whose classes are not those of train.

    Raises:
        ValueError: naming the classes that only one of the two has.
    """
    if train == other:
        return
    missing, extra = sorted(set(train) - set(other)), sorted(set(other) - set(train))
    parts = [f"{shortened(missing)} only in train"] * bool(missing)
    parts += [f"{shortened(extra)} only in {split}"] * bool(extra)
    raise ValueError(f"train and {split} have different classes: {'; '.join(parts) or 'in another order'}")


def shortened(names: Sequence[str]) -> str:
    """A list of names for a message, five at most."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
