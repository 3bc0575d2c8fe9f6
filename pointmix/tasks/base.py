"""What a task is: all that the engine and the scripts ask of it. A task is one folder, or one module of yours.

    train     configuration -> splits -> info -> model, loss, metric -> report, pictures
    evaluate  info -> model, metric over test data -> table
    predict   info -> model, file -> rows of a table

The info is a dict of JSON values, saved as metadata of the weights: all that is needed to build the network again and
to prepare its inputs. Tasks register themselves when they are imported:

    @register_task("count_points")
    class CountPoints(Task[CountConfig, CountData, CountSplits, CountBatch]): ...
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar, cast

from pointmix.tasks.config import RunConfig
from pointmix.tasks.protocols import (
    Batch,
    Info,
    Loss,
    Measurement,
    Metric,
    Metrics,
    Picture,
    Predictor,
    Score,
    Splits,
    to_device,
)
from pointmix.utils.json_values import Json
from pointmix.utils.messages import one_line
from pointmix.utils.ranges import hints

if TYPE_CHECKING:  # a task says its flags without torch, which takes a second to import
    import torch
    from PIL.Image import Image
    from rich.console import Console
    from torch import Tensor, nn

    from pointmix.pointset import PointSet

Config = TypeVar("Config", bound=RunConfig)
Data = TypeVar("Data")  # the dataclass of `data` in the configuration
SplitsT = TypeVar("SplitsT", bound=Splits[object])
Command = Literal["evaluate", "predict", "explain"]


# ---- the task ---------------------------------------------------------------------------------------------------


class Task(ABC, Generic[Config, Data, SplitsT, Batch]):
    """A task. It holds no state: what a run has of its own is in its configuration, its splits and its info.

    Attributes:
        name: under which it is registered.
        config: dataclass of the flags and YAML keys; its field `data` is a dataclass, too.
        unit: what the samples are called in tables.
        scores: the metrics that are shown, by name.
        monitor: the metric by which the best epoch is selected, one of `scores`.
        pipeline_tag: the Hugging Face hub's name of the task for images, such as "image-classification"; None: it has
            none.
    """

    name: str
    config: type[Config]
    unit: ClassVar[str] = "samples"
    scores: ClassVar[Mapping[str, Score]]
    monitor: ClassVar[str]
    pipeline_tag: ClassVar[str | None] = None

    @abstractmethod
    def build_splits(self, cfg: Config, *, rank: int, world_size: int) -> SplitsT:
        """Open the data."""

    @abstractmethod
    def info(self, cfg: Config, splits: SplitsT) -> Info:
        """The metadata of the weights: "data", the settings of the data, and whatever else the methods below need. The
        engine adds the network's "name" and "kwargs" before it calls them."""

    @abstractmethod
    def build_model(self, info: Info) -> nn.Module:
        """The network, in training and when it is read back."""

    @abstractmethod
    def example_input(self, info: Info) -> Tensor | PointSet:
        """A blank input of one sample, for checks and for counting multiply-adds."""

    @abstractmethod
    def build_loss(self, cfg: Config, info: Info) -> Callable[[nn.Module, Batch], Loss]:
        """Gives the mean training loss of a batch, a float32 scalar, or its parts by name, which are added and logged.
        The model may be wrapped by accelerate."""

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
        from pointmix.tasks.checks import try_input

        try_input(model, info["name"], self.example_input(info), what=self.unit, single=cfg.batch_size == 1)

    def more_tests(self, cfg: Config, model: nn.Module) -> dict[str, nn.Module]:
        """Other ways to test the trained network, such as voting: name -> network."""
        return {}

    def report(self, metrics: Metrics, console: Console) -> None:
        """Print more about a finished run than the table of its scores.

        Args:
            metrics: content of metrics.json, with "test" (see `Metric.compute`) and "info".
        """

    def pictures(self, model: nn.Module, splits: SplitsT, info: Info, test: Metrics) -> dict[str, Picture]:
        """Pictures of a finished run beside its curves, by file name; `model` is in evaluation mode."""
        return {}

    # ---- trained networks: what the scripts ask ---------------------------------------------------------------------

    def check_info(self, info: Info) -> None:
        """Refuse with ValueError an info that does not hold what it should: it may come from any file."""

    def data_config(self, info: Info) -> Data:
        """The settings of the data a network was trained on.

        Raises:
            ValueError: they are not settings of this version.
        """
        config: type = self.config
        kind, path = hints(config)["data"], info.get("path", "the run")
        known = [field.name for field in dataclasses.fields(kind)]
        if unknown := sorted(set(info["data"]) - set(known)):
            raise ValueError(f"{path}: unknown data setting {unknown[0]!r}; expected one of {', '.join(known)}")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in info["data"].items()}
        try:
            return kind(**values)  # JSON has lists for tuples
        except ValueError:
            raise
        except Exception as e:  # values of any type may be there
            raise ValueError(f"{path}: its data settings are invalid: {one_line(e)}") from e

    def open_named(
        self,
        name: str,
        *,
        checkpoint: str | None = None,
        kwargs: dict[str, Json] | None = None,
        data: Data | None = None,
    ) -> tuple[nn.Module, Info]:
        """A network by its name in place of a run, and the info that such a run would have.

        Args:
            checkpoint: file of its weights; None: random ones.
            kwargs: arguments of the network.
            data: what it will be evaluated on, which may set the number of its outputs; None: its default.
        """
        raise ValueError(f"{self.name} has no networks by name, got {name}; give a run with --run")

    def add_arguments(self, parser: ArgumentParser, command: Command) -> None:
        """Add the task's own flags to a script's."""

    def measurements(self, model: nn.Module, info: Info, data: Data, args: Namespace) -> Iterator[Measurement[Batch]]:
        """The rows of pointmix evaluate for one network; wrong settings are refused before the first."""
        raise ValueError(f"{self.name} has no evaluation of trained networks")

    def show_evaluation(self, results: list[Metrics], args: Namespace, console: Console) -> None:
        """Print the results.

        Args:
            results: of each row "name", "model", "weights", its settings and metrics, the number of samples under the
                name of their unit, and "skipped".
        """
        from pointmix.tasks.tables import result_table

        console.print(result_table(results, self.scores, self.unit))

    def save_evaluation(self, results: list[Metrics], args: Namespace) -> list[Path]:
        """Write the results to args.out; returns the files written."""
        from pointmix.tasks.tables import write_results

        return write_results(results, args.out)

    def build_predictor(self, model: nn.Module, info: Info, args: Namespace) -> Predictor:
        """What pointmix predict applies to each file; wrong flags are refused here."""
        raise ValueError(f"{self.name} has no predictions for files")

    def transform(self, info: Info) -> Callable[[Image], Tensor] | Callable[[PointSet], PointSet] | None:
        """What evaluation does to a sample: makes a float32 (C, H, W) of a Pillow image, or the network's input of a
        `PointSet` with the features of the data. None: it takes more than that, see `build_predictor`."""
        return None

    def input_kind(self, info: Info) -> Literal["image", "cloud"] | None:
        """Which files pointmix predict takes from a folder that holds both; None: both."""
        return None

    def reads(self, args: Namespace) -> bool:
        """Whether pointmix explain should take this task for args.file where no run says which task it is."""
        return False

    def explain(self, args: Namespace, run: tuple[nn.Module, Info] | None) -> None:
        """Draw args.file into args.out; without a run with the network args.model."""
        raise ValueError(f"{self.name} has no pictures of files")


# ---- the registry -----------------------------------------------------------------------------------------------

_BUILT_IN = {  # name -> folder with the modules config, flags and task, which are imported on first use
    "classify_images": "pointmix.tasks.classify_images",
    "classify_points": "pointmix.tasks.classify_points",
    "segment": "pointmix.tasks.segment",
    "detect": "pointmix.tasks.detect",
}
_CONFIGS = {  # name -> class in the folder's module config
    "classify_images": "ClassifyImagesConfig",
    "classify_points": "ClassifyPointsConfig",
    "segment": "SegmentConfig",
    "detect": "DetectConfig",
}
DEFAULT_TASK = "classify_images"  # of networks by name, such as timm's
AnyTask = Task[RunConfig, object, Splits[object], object]
TaskClass = TypeVar("TaskClass")
_TASKS: dict[str, AnyTask] = {}


def register_task(name: str) -> Callable[[type[TaskClass]], type[TaskClass]]:
    """Class decorator that registers a task.

    Raises:
        ValueError: the name is taken by another class.
    """

    def register(cls: type[TaskClass]) -> type[TaskClass]:
        other: type = type(_TASKS[name]) if name in _TASKS else cls
        is_taken = (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__)
        if is_taken or not cls.__module__.startswith(_BUILT_IN.get(name, "")):
            raise ValueError(f"the task {name!r} is registered already, by {_BUILT_IN.get(name, other.__module__)}")
        task = cast(AnyTask, cls())
        task.name = name
        _TASKS[name] = task
        return cls

    return register


def list_tasks() -> list[str]:
    """Names of all tasks, the built-in ones first."""
    return list(dict.fromkeys([*_BUILT_IN, *_TASKS]))


class UnknownTask(ValueError):
    """No task is registered under a name."""


def get_task(name: str) -> AnyTask:
    """The task of that name.

    Raises:
        UnknownTask: there is none.
    """
    if name not in _TASKS and name in _BUILT_IN:
        importlib.import_module(f"{_BUILT_IN[name]}.task")
    if name not in _TASKS:
        raise UnknownTask(
            f"no task {one_line(repr(name), 60)} is registered, expected one of {', '.join(list_tasks())}; "
            "--import MODULE imports a module that registers one"
        )
    return _TASKS[name]


def config_of(name: str) -> type[RunConfig]:
    """The configuration of the task of that name. A built-in task is not imported for it, nor is torch.

    Raises:
        UnknownTask: there is none.
    """
    if name not in _CONFIGS:
        return get_task(name).config
    config: type[RunConfig] = getattr(importlib.import_module(f"{_BUILT_IN[name]}.config"), _CONFIGS[name])
    return config


def add_task_arguments(name: str, parser: ArgumentParser, command: Command) -> None:
    """Add the flags of the task of that name to those of a command. A built-in task is not imported for it.

    Raises:
        UnknownTask: there is none.
    """
    if name in _BUILT_IN and name not in _TASKS:
        importlib.import_module(f"{_BUILT_IN[name]}.flags").add_arguments(parser, command)
    else:
        get_task(name).add_arguments(parser, command)


def task_of(cfg: RunConfig) -> AnyTask:
    """The registered task whose configuration this is; that of the nearest base class, if it has no task of its own.

    Raises:
        ValueError: there is none.
    """
    names = {config_of(name): name for name in list_tasks()}
    for kind in type(cfg).__mro__:
        if kind in names:
            return get_task(names[kind])
    raise ValueError(f"no registered task has the configuration {type(cfg).__name__}; see pointmix.tasks.base")
