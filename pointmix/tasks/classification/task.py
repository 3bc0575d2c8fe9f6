"""What the classification of images and of clouds have in common: everything but the input."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from pointmix.tasks.base import Command, Config, Data, SplitsT, Task
from pointmix.tasks.classification.flags import add_arguments
from pointmix.tasks.classification.tables import class_table, curve_table, write_curve
from pointmix.tasks.protocols import Batch, Info, Loader, Metrics, Picture
from pointmix.tasks.tables import result_table, write_results
from pointmix.utils.messages import counted, one_line

if TYPE_CHECKING:
    from rich.console import Console

MAX_CHANNELS = 8192
CLUSTERS, CONFUSION = "clusters.png", "confusion.png"


class ClassificationTask(Task[Config, Data, SplitsT, Batch]):
    """A task with an info of "classes" (names in the order of the labels) and "in_chans", and batches of inputs and
    targets.

    Attributes:
        curve_scores: the scores that are shown over shares of points.
        setting: another setting of an evaluation that its files have, such as "mask".
    """

    curve_scores: ClassVar[tuple[str, ...]]
    setting: ClassVar[str]

    def num_samples(self, batch: Any) -> int:
        return len(batch[1])

    def describe_data(self, cfg: Config, info: Info) -> str:
        return f"{cfg.data_name}, {counted(len(info['classes']), 'class')}"

    def report(self, metrics: Metrics, console: Console) -> None:
        if "per_class" in metrics["test"]:
            console.print(class_table(metrics["test"], metrics["info"]["classes"], self.unit))

    def pictures(self, model: nn.Module, splits: SplitsT, info: Info, test: Metrics) -> dict[str, Picture]:
        from pointmix.explain.confusion import draw_confusion

        if "confusion" not in test:
            return {}
        return {CONFUSION: lambda path: draw_confusion(path, test["confusion"], info["classes"])}

    # ---- trained networks -------------------------------------------------------------------------------------------

    def check_info(self, info: Info) -> None:
        for key in ("classes", "in_chans"):
            if key not in info:
                raise ValueError(f"its metadata has no {key!r}")
        names = info["classes"]
        are_names = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
        check_key(info, "classes", are_names, "a list of names")
        right = is_whole(info["in_chans"]) and 0 <= info["in_chans"] <= MAX_CHANNELS
        check_key(info, "in_chans", right, f"a number of channels up to {MAX_CHANNELS}")
        weights = info.get("class_weights")
        right = weights is None or (are_numbers(weights) and len(weights) == len(names) and min(weights) >= 0)
        check_key(info, "class_weights", right, f"{len(names)} numbers from 0 on, or null")

    def add_arguments(self, parser: ArgumentParser, command: Command) -> None:
        add_arguments(parser, command)

    def evaluation_note(self, results: list[Metrics]) -> str:
        """How the results were measured, for the end of their title."""
        return ""

    def curve_title(self, results: list[Metrics]) -> str:
        """What hides points in an evaluation, and how it is measured."""
        raise NotImplementedError

    def show_evaluation(self, results: list[Metrics], args: Namespace, console: Console) -> None:
        if args.keep is not None:
            title = f"{results[0][self.unit]} test {self.unit}, {self.curve_title(results)}"
            console.print(curve_table(results, {key: self.scores[key] for key in self.curve_scores}, title=title))
            return
        for r in results if "per_class" in results[0] else ():
            console.print(class_table(r, r["classes"], self.unit, title=f"{r['name']}, by class"))
        console.print(result_table(results, self.scores, self.unit, note=self.evaluation_note(results)))

    def save_evaluation(self, results: list[Metrics], args: Namespace) -> list[Path]:
        if args.keep is None:
            return write_results(results, args.out)
        columns = ("name", "model", "weights", self.setting, "keep", *self.scores, "loss", self.unit)
        score = (self.monitor, self.scores[self.monitor])
        return write_curve(results, Path(args.out), score=score, columns=columns, title=self.curve_title(results))


def check_key(info: Info, key: str, right: bool, expected: str) -> None:
    """Refuse a value of an info that is not right."""
    if not right:
        raise ValueError(f"{key} in its metadata is {one_line(repr(info[key]), 60)}, expected {expected}")


def is_whole(value: object) -> bool:
    """Whether a JSON value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def are_numbers(value: object, *, above: float = -math.inf) -> bool:
    """Whether a JSON value is a list of finite numbers above a limit, with at least one."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(v, int | float) and math.isfinite(v) and v > above for v in value)


def check_classes(info: Info, classes: list[str]) -> None:
    """Refuse data whose classes are not those of the network."""
    if info["classes"] != classes:
        raise ValueError(
            f"{info['path']} knows {_listed(info['classes'])}, the data has {_listed(classes)}; "
            "expected the same, in the same order"
        )


def _listed(names: list[str]) -> str:
    return f"{counted(len(names), 'class')} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def one_of_each_class(test: Loader[Any], split: Any, *, number: int) -> dict[int, Any]:
    """A test sample of each of the first classes met in the first 32 batches, by class.

    Args:
        test: gives inputs and targets.
        split: makes the single samples of the inputs of a batch.
        number: of classes.
    """
    from itertools import islice

    first: dict[int, Any] = {}
    for inputs, targets in islice(iter(test), 32):
        for sample, target in zip(split(inputs), targets.tolist(), strict=True):
            if len(first) < number:
                first.setdefault(target, sample)
    return first
