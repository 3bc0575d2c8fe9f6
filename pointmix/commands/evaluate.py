"""Measure trained networks on the test split of their data, also with some of the points missing.

pointmix evaluate --run RUN                                     # on the data of the run
pointmix evaluate --run RUN --data.root DIR                     # on another copy of it
pointmix evaluate --model coc_tiny --checkpoint FILE --data.source folder --data.root DIR
pointmix evaluate RUN OTHER_RUN --keep 1 .75 .5 .25 .1 --mask pixels --out curve.png
pointmix evaluate RUN_ON_CLOUDS --votes 10                      # the mean over ten scalings
pointmix evaluate RUN_ON_CLOUDS --keep 1 .5 .25 --out curve.png # random points left out
pointmix evaluate SEGMENTER_RUN --sliding 512 512 --flip --scales 0.75 1 1.25
pointmix evaluate DETECTOR_RUN --coco_json detections.json
pointmix evaluate RUN --import my_package.my_task               # of a task of yours

The flags --data.* are those of the training.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from argparse import ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointmix.commands.typed import described
from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from torch import nn

    from pointmix.engine.command import TaskParser
    from pointmix.tasks.base import AnyTask
    from pointmix.tasks.protocols import Info, Loader


def make_parser(prog: str) -> TaskParser:
    from pointmix.engine.command import RUN, TaskParser, add_model_arguments

    about = described(__doc__, "pointmix evaluate", prog)
    parser = TaskParser(prog=prog, description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUN)
    parser.add_argument("--run", metavar="RUN", help="one more run")
    add_model_arguments(parser)
    kwargs = 'other arguments of the model, as {"keep_cells": "occupied", "absent": "nearest"} for partial images'
    parser.add_argument("--kwargs", type=model_arguments, metavar="JSON", help=kwargs)
    batch_size = "samples a step (default 64; segmentation and detection always take 1)"
    parser.add_argument("--batch_size", type=int, default=64, metavar="N", help=batch_size)
    parser.add_argument("--out", metavar="FILE", help="JSON file for the results; with --keep a PNG, CSV and JSON")
    return parser


def model_arguments(text: str) -> dict[str, Any]:
    """The value of --kwargs: JSON, or YAML as in {keep_cells: occupied}."""
    from pointmix.engine.recipes import load_yaml

    try:
        found = load_yaml(text, "--kwargs")
    except ValueError as e:
        raise ArgumentTypeError(str(e)) from e
    if not isinstance(found, dict):
        raise ArgumentTypeError(f'expected arguments by name, such as {{"absent": "nearest"}}, got {text}')
    return found


def split_data_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """The flags --data.*, each of which has one value, and all others."""
    data, rest, flags = [], [], iter(argv)
    for flag in flags:
        if not flag.startswith("--data."):
            rest.append(flag)
        else:
            data += [flag] if "=" in flag else [flag, *([value] if (value := next(flags, None)) is not None else [])]
    return data, rest


def changed_data(data: Any, flags: list[str]) -> Any:
    """Data settings as the flags --data.* change them."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(prog="evaluate", exit_on_error=False)
    parser.add_class_arguments(type(data), "data")
    parser.set_defaults({f"data.{key}": value for key, value in dataclasses.asdict(data).items()})
    try:
        return parser.instantiate(parser.parse_args(flags)).data
    except (ArgumentError, TypeError) as e:
        raise ValueError(" ".join(str(e).split())) from e


def main(argv: list[str], prog: str = "pointmix evaluate") -> int:
    return exit_code(lambda: evaluate(argv, prog))


def evaluate(argv: list[str], prog: str) -> None:
    from pointmix.engine.command import import_modules, parse_any, parse_for

    data_flags, argv = split_data_flags(import_modules(argv))
    make = partial(make_parser, prog)
    args = parse_any(make, "evaluate", argv)

    from rich.console import Console

    from pointmix.engine.evaluate import evaluate as evaluated  # torch takes a second to import
    from pointmix.engine.inference import open_model, pick_device
    from pointmix.tasks.base import get_task
    from pointmix.utils.atomic import check_place
    from pointmix.utils.messages import one_line

    if args.out:
        check_place(args.out)
    device = pick_device(args.device)
    runs = [*args.runs, *([args.run] if args.run is not None else [])]
    if bool(runs) == (args.model is not None) or (runs and args.checkpoint is not None):
        open_model(run=runs[0] if runs else None, model=args.model, checkpoint=args.checkpoint)  # says what is wrong
    opened: list[tuple[str, nn.Module, Info, Any]] = []
    for run, name in zip(runs, short_names(runs), strict=True):
        model, info = open_model(run=run, task=args.task, kwargs=args.kwargs, device=device)
        opened.append((name, model, info, changed_data(get_task(info["task"]).data_config(info), data_flags)))
        if (first := opened[0][2])["task"] != info["task"]:
            raise ValueError(f"{runs[0]} is of {first['task']}, {run} of {info['task']}; expected runs of one task")
    if args.model is not None:
        opened.append((args.model, *open_named(args, data_flags, device)))

    task: AnyTask = get_task(opened[0][2]["task"])
    args = parse_for(task, make, "evaluate", argv, what=(runs or [args.model])[0])
    rows = [(name, info, task.measurements(model, info, data, args)) for name, model, info, data in opened]
    results: list[dict[str, Any]] = []
    for name, info, measurements in rows:
        for row in measurements:
            batches = progress(row.loader, task, name)
            metrics = evaluated(row.model, batches, metric=row.metric, device=device, to_device=task.to_device)
            about = {"name": name, "model": info["name"], "weights": info["path"], **row.settings}
            count = len(row.loader.samples) - len(row.loader.failed)
            skipped = [list(failure) for failure in sorted(row.loader.failed.items())]
            results.append({**about, **metrics, task.unit: count, "skipped": skipped})
    task.show_evaluation(results, args, Console())
    for file, reason in sorted({tuple(failure) for result in results for failure in result["skipped"]}):
        print("skipped", one_line(f"{file}: {reason}", 4000), file=sys.stderr)
    if args.out:
        print("result in", *task.save_evaluation(results, args))


def progress(loader: Loader[Any], task: AnyTask, name: str) -> Iterator[Any]:
    """The batches of a loader, with a bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        job = bar.add_task(name, total=len(loader.samples))
        for batch in loader:
            yield batch
            bar.advance(job, task.num_samples(batch))


def open_named(args: Namespace, data_flags: list[str], device: Any) -> tuple[nn.Module, Info, Any]:
    """The network --model for the classes of the data, its info, and the data."""
    from pointmix.engine.inference import open_model
    from pointmix.tasks.base import DEFAULT_TASK, get_task

    name = args.task or DEFAULT_TASK
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are fine for reading the defaults
        default = get_task(name).data_config(open_model(model=args.model, task=name)[1])
    data = changed_data(default, data_flags)
    given = {"checkpoint": args.checkpoint, "kwargs": args.kwargs, "device": device}
    return *open_model(model=args.model, task=name, data=data, **given), data


def short_names(runs: list[str]) -> list[str]:
    """The folders' own names if they differ, else the paths as given."""
    paths = [Path(run).resolve() for run in runs]
    names = [path.parent.name if path.suffix == ".safetensors" else path.name for path in paths]
    return names if len(set(names)) == len(names) else runs
