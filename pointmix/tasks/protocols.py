"""What the engine and a task give each other: loaders, metrics, rows of an evaluation, predictions for files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from pointmix.utils.json_values import Json

if TYPE_CHECKING:  # see base
    import torch
    from torch import Tensor, nn

Info = dict[str, Json]
Metrics = dict[str, Json]  # the floats among them are logged at every validation
Picture = Callable[[Path], None] | str  # draws a PNG, or says why there is nothing to draw

TABLES = (".csv", ".json")  # ends of an --out of pointmix predict that is a table rather than a folder

Item = TypeVar("Item")
Batch = TypeVar("Batch")
BatchOut = TypeVar("BatchOut", covariant=True)
BatchIn = TypeVar("BatchIn", contravariant=True)


# ---- data -------------------------------------------------------------------------------------------------------


@runtime_checkable
class Loader(Protocol[BatchOut]):
    """Batches of one split, as `pointmix.data.loader.BatchLoader` gives them."""

    @property
    def samples(self) -> Sized: ...
    @property
    def failed(self) -> Mapping[str, str]:
        """File -> reason, of the samples that could not be read so far."""

    def __iter__(self) -> Iterator[BatchOut]: ...


@runtime_checkable
class TrainLoader(Loader[BatchOut], Protocol[BatchOut]):
    """A loader that can be resumed in mid-epoch."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set order and augmentation of the next pass; called before every epoch."""

    def state_dict(self) -> dict[str, int]:
        """The position in the data."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next pass at a position."""

    def position(self, state: dict[str, int]) -> tuple[int, int]:
        """Epoch and batch of a state; ValueError if it belongs to other data."""


@runtime_checkable
class Splits(Protocol[BatchOut]):
    """The data of a run; `val` is None where nothing is held back. Each process gets its own part of each."""

    @property
    def train(self) -> TrainLoader[BatchOut]: ...
    @property
    def val(self) -> Loader[BatchOut] | None: ...
    @property
    def test(self) -> Loader[BatchOut]: ...


def to_device(batch: Item, device: torch.device | str) -> Item:
    """A batch on a device: everything in its tuples, lists and dicts that has a method `to`."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return type(batch)({key: to_device(value, device) for key, value in batch.items()})
    if isinstance(batch, list | tuple):
        items = [to_device(value, device) for value in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch


Loss: TypeAlias = "Tensor | dict[str, Tensor]"  # a float32 scalar, or several by name whose sum is minimized


# ---- metrics ----------------------------------------------------------------------------------------------------


@runtime_checkable
class Processes(Protocol):
    """All processes of a run."""

    def sum(self, x: Tensor) -> Tensor:
        """The sum over processes, on the run's device."""

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes."""


@runtime_checkable
class Metric(Protocol[BatchIn]):
    """Accumulates over the batches of a split; `pointmix.tasks.metrics.SumMetric` is one of sums."""

    def reset(self) -> None: ...
    def update(self, model: nn.Module, batch: BatchIn) -> None:
        """Add a batch, which is on the device; no gradients are recorded."""

    def combine(self, processes: Processes) -> None:
        """Merge what all processes accumulated; some may have had no batch."""

    def compute(self) -> Metrics:
        """The metrics, the monitored one among them; ValueError if there was no sample."""


@dataclass(frozen=True)
class Score:
    """How a metric is shown, and which way it is better.

    Args:
        label: its name in tables, such as "top-1".
        percent: whether it is a fraction of 1, shown in percent.
        larger_is_better: whether a larger value is better.
    """

    label: str
    percent: bool = False
    larger_is_better: bool = True

    def text(self, value: float) -> str:
        return f"{100 * value:.2f} %" if self.percent else f"{value:.4f}"

    def is_better(self, value: float, other: float) -> bool:
        return value > other if self.larger_is_better else value < other


# ---- after training ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement(Generic[Batch]):
    """One row of an evaluation.

    Args:
        model: the network, or a wrapper of it such as voting.
        loader: the test data.
        metric: what is measured.
        settings: JSON values that tell this row from others, such as {"keep": 0.5}.
    """

    model: nn.Module
    loader: Loader[Batch]
    metric: Metric[Batch]
    settings: dict[str, Json]


Row = tuple[str | int | float, ...]  # floats are shares or scores up to 1, shown in percent


@runtime_checkable
class Predictor(Protocol):
    """Predicts for one file after the other, without gradients.

    Args:
        columns: titles of the table, after the column of files. A predictor with an attribute `writes_out` that is true
            writes a file --out itself; for others it is the table.
    """

    columns: Sequence[str]

    def predict(self, path: str) -> Sequence[Row]:
        """The rows of a file; ValueError or OSError in one line if it cannot be used."""

    def finish(self) -> list[str]:
        """Called at the end, where a picture of all files may be drawn; lines to print."""
