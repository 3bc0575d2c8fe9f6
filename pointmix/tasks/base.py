"""What a task is: all that the engine and the scripts ask of it. A task is one folder, or one module of yours.

    train     configuration -> splits -> info -> model, loss, metric -> report, pictures
    evaluate  info -> model, metric over test data -> table
    predict   info -> model, file -> rows of a table

The info is a dict of JSON values that stands beside the weights: whatever is needed to build the network again and to
feed it without the configuration. Tasks register themselves when they are imported:

    @register_task("count_points")
    class CountPoints(Task[CountConfig, CountData, tuple[PointSet, Tensor]]): ...
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pointmix.tasks.checks import try_input
from pointmix.tasks.config import RunConfig
from pointmix.utils.messages import one_line
from pointmix.utils.ranges import hints

if TYPE_CHECKING:
    from rich.console import Console

Info = dict[str, Any]  # JSON values
Metrics = dict[str, Any]  # JSON values; the floats among them are logged at every validation
Picture = Callable[[Path], None] | str  # draws a PNG, or says why there is nothing to draw
Command = Literal["evaluate", "predict", "explain"]

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Config = TypeVar("Config", bound=RunConfig)
Data = TypeVar("Data")  # the dataclass of `data` in the configuration
BatchOut = TypeVar("BatchOut", covariant=True)
BatchIn = TypeVar("BatchIn", contravariant=True)


# ---- data -------------------------------------------------------------------------------------------------------


class Loader(Protocol[BatchOut]):
    """Batches of one split, as `pointmix.data.loader.BatchLoader` gives them."""

    @property
    def dataset(self) -> Sized: ...
    @property
    def failed(self) -> Mapping[str, str]:
        """File -> reason, of the samples that could not be read so far."""

    def __iter__(self) -> Iterator[BatchOut]: ...


class Order(Protocol):
    """The order of the training samples, as `pointmix.data.sampler.EpochBatches` has it."""

    @property
    def size(self) -> int: ...
    def place(self, state: dict[str, int]) -> tuple[int, int]:
        """Epoch and batch of a loader's state; ValueError if it belongs to other data."""


class TrainLoader(Loader[BatchOut], Protocol[BatchOut]):
    """A loader that can be resumed in mid-epoch."""

    @property
    def batch_sampler(self) -> Order: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...


class Splits(Protocol[BatchOut]):
    """The data of a run. `val` is None where nothing is held back. Each process sees its own part of every split."""

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


# ---- metrics ----------------------------------------------------------------------------------------------------


class Processes(Protocol):
    """All processes of a run."""

    def sum(self, x: Tensor) -> Tensor:
        """The sum over processes, on the run's device."""

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes."""


class Metric(Protocol[BatchIn]):
    """Accumulates over the batches of a split; `pointmix.tasks.metrics.SumMetric` is one of sums."""

    def reset(self) -> None: ...
    def update(self, model: nn.Module, batch: BatchIn) -> None:
        """Add a batch, which is on the device; no gradients are recorded."""

    def combine(self, processes: Processes) -> None:
        """Make what was accumulated that of all processes, some of which may have had no batch."""

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
    settings: dict[str, Any]


class Predictor(Protocol):
    """Predicts for one file after the other, without gradients.

    Args:
        columns: titles of the table, after the column of files.
    """

    columns: Sequence[str]

    def predict(self, path: str) -> list[tuple[str, ...]]:
        """The rows of a file; ValueError or OSError in one line if it cannot be used."""

    def finish(self) -> list[str]:
        """Called at the end, where a picture of all files may be drawn; lines to print."""


# ---- the task ---------------------------------------------------------------------------------------------------


class Task(ABC, Generic[Config, Data, Batch]):
    """A task. It holds no state: what a run has of its own is in its configuration, its splits and its info.

    Attributes:
        name: under which it is registered.
        config: dataclass of the flags and YAML keys; its field `data` is a dataclass, too.
        unit: what the samples are called in tables.
        scores: the metrics that are shown, by name.
        monitor: the metric by which the best epoch is selected, one of `scores`.
    """

    name: str
    config: type[Config]
    unit: ClassVar[str] = "samples"
    scores: ClassVar[Mapping[str, Score]]
    monitor: ClassVar[str]

    @abstractmethod
    def build_splits(self, cfg: Config, *, rank: int, world_size: int) -> Splits[Batch]:
        """Open the data."""

    @abstractmethod
    def info(self, cfg: Config, splits: Any) -> Info:
        """What stands beside the weights: "data", the settings of the data, and whatever else the methods below need.
        The engine adds the network's "name" and "kwargs" before it calls them."""

    @abstractmethod
    def build_model(self, info: Info) -> nn.Module:
        """The network, in training and when it is read back."""

    @abstractmethod
    def example_input(self, info: Info) -> Any:
        """A blank input of one sample, for checks and for counting multiply-adds."""

    @abstractmethod
    def build_loss(self, cfg: Config, info: Info) -> Callable[[nn.Module, Batch], Tensor]:
        """The mean training loss of a batch, a float32 scalar. The model may be wrapped for several processes."""

    @abstractmethod
    def build_metric(self, info: Info) -> Metric[Batch]:
        """The metric of validation and test."""

    @abstractmethod
    def num_samples(self, batch: Batch) -> int:
        """Number of samples of a batch."""

    def to_device(self, batch: Batch, device: torch.device | str) -> Batch:
        """A batch on the device."""
        return to_device(batch, device)

    def describe_data(self, cfg: Config, info: Info) -> str:
        """The data in a few words, for the first line of a run."""
        return cfg.data_name

    def check_model(self, model: nn.Module, cfg: Config, info: Info) -> None:
        """Try the network before hours of work; ValueError if it does not suit the data."""
        try_input(model, info["name"], self.example_input(info), what=self.unit, single=cfg.batch_size == 1)

    def more_tests(self, cfg: Config, model: nn.Module) -> dict[str, nn.Module]:
        """Other ways to use the trained network on the test data: a name for each and the network that does it."""
        return {}

    def report(self, metrics: Metrics, console: Console) -> None:
        """Print more about a finished run than the table of its scores.

        Args:
            metrics: content of metrics.json, with "test" (see `Metric.compute`) and "info".
        """

    def pictures(self, model: nn.Module, splits: Any, info: Info, test: Metrics) -> dict[str, Picture]:
        """Pictures of a finished run beside its curves, by file name; `model` is in evaluation mode."""
        return {}

    # ---- trained networks: what the scripts ask ---------------------------------------------------------------------

    def check_info(self, info: Info) -> None:
        """Refuse, with ValueError, an info that does not hold what it should; any file may have written it."""

    def data_config(self, info: Info) -> Data:
        """The settings of the data a network was trained on.

        Raises:
            ValueError: they are not settings of this version.
        """
        kind = hints(self.config)["data"]
        known = [field.name for field in dataclasses.fields(kind)]
        if unknown := sorted(set(info["data"]) - set(known)):
            raise ValueError(f"{info['path']}: unknown data setting {unknown[0]!r}; expected one of {', '.join(known)}")
        try:
            return kind(**info["data"])
        except ValueError:
            raise
        except Exception as e:  # values of any type may be there
            raise ValueError(f"{info['path']}: its data settings are invalid: {one_line(e)}") from e

    def open_named(
        self,
        name: str,
        *,
        checkpoint: str | None = None,
        kwargs: dict[str, Any] | None = None,
        data: Data | None = None,
    ) -> tuple[nn.Module, Info]:
        """A network by its name in place of a run, and the info that such a run would have.

        Args:
            checkpoint: file of its weights; None: random ones.
            kwargs: arguments of the network.
            data: what it will be evaluated on, which may set the number of its outputs; None: its own default.
        """
        raise ValueError(f"{self.name} has no networks by name, got {name}; give a run with --run")

    def add_arguments(self, parser: ArgumentParser, command: Command) -> None:
        """Add the task's own flags to a script's."""

    def measurements(self, model: nn.Module, info: Info, data: Data, args: Namespace) -> Iterator[Measurement[Batch]]:
        """The rows of evaluate.py for one network; wrong settings are refused before the first."""
        raise ValueError(f"{self.name} has no evaluation of trained networks")

    def show_evaluation(self, results: list[dict[str, Any]], args: Namespace, console: Console) -> None:
        """Print the results of all rows: "name", "model", "weights", settings, metrics, the unit's count, "skipped"."""
        from pointmix.tasks.tables import result_table

        console.print(result_table(results, self.scores, self.unit))

    def save_evaluation(self, results: list[dict[str, Any]], args: Namespace) -> list[Path]:
        """Write the results to args.out; returns the files written."""
        from pointmix.tasks.tables import write_results

        return write_results(results, args.out)

    def build_predictor(self, model: nn.Module, info: Info, args: Namespace) -> Predictor:
        """What predict.py applies to each file; wrong flags are refused here."""
        raise ValueError(f"{self.name} has no predictions for files")

    def reads(self, args: Namespace) -> bool:
        """Whether explain.py should take this task for args.file where no run says which task it is."""
        return False

    def explain(self, args: Namespace, run: tuple[nn.Module, Info] | None) -> None:
        """Draw args.file into args.out; without a run with the network args.model."""
        raise ValueError(f"{self.name} has no pictures of files")


# ---- the registry -----------------------------------------------------------------------------------------------

_BUILT_IN = {  # name -> module, imported on first use
    "classify_images": "pointmix.tasks.classify_images",
    "classify_points": "pointmix.tasks.classify_points",
}
DEFAULT_TASK = "classify_images"  # of networks by name, such as timm's
AnyTask = Task[Any, Any, Any]
TaskClass = TypeVar("TaskClass", bound=type[AnyTask])
_TASKS: dict[str, AnyTask] = {}


def register_task(name: str) -> Callable[[TaskClass], TaskClass]:
    """Class decorator that registers a task.

    Raises:
        ValueError: the name is taken by another class.
    """

    def register(cls: TaskClass) -> TaskClass:
        other = type(_TASKS[name]) if name in _TASKS else cls
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"the task {name!r} is registered already, by {other.__module__}.{other.__qualname__}")
        cls.name = name
        _TASKS[name] = cls()
        return cls

    return register


def list_tasks() -> list[str]:
    """Names of all tasks, the built-in ones first."""
    return list(dict.fromkeys([*_BUILT_IN, *_TASKS]))


def get_task(name: str) -> AnyTask:
    """The task of that name.

    Raises:
        ValueError: none is registered under this name.
    """
    if name not in _TASKS and name in _BUILT_IN:
        importlib.import_module(_BUILT_IN[name])
    if name not in _TASKS:
        raise ValueError(
            f"no task {one_line(repr(name), 60)} is registered, expected one of {', '.join(list_tasks())}; "
            "--import MODULE imports a module that registers one"
        )
    return _TASKS[name]


def task_of(cfg: RunConfig) -> AnyTask:
    """The registered task whose configuration this is.

    Raises:
        ValueError: there is none.
    """
    for task in _TASKS.values():
        if type(cfg) is task.config:
            return task
    raise ValueError(f"no registered task has the configuration {type(cfg).__name__}; see pointmix.tasks.base")
