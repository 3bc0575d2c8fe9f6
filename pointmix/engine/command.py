"""What the scripts share: the command of a training, and flags that depend on the task."""

from __future__ import annotations

import importlib
import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, NoReturn

from pointmix.tasks.base import DEFAULT_TASK, AnyTask, Command, add_task_arguments, config_of, list_tasks
from pointmix.utils.cli import exit_code

RUN = "run folder, the model.safetensors of one, or hf-hub:OWNER/NAME to download one"
IMPORT = "import a module of yours that registers a task, model, data source or reader; may be repeated"


def train_command(argv: list[str], *, task: str | None = None, prog: str, embedded: str | None = None) -> int:
    """Train as flags and YAML files say; returns the exit code.

    Args:
        task: name of the task; None: the flag --task names it.
        prog: name of the command in messages.
        embedded: YAML file that is used where no other is given and the flags set no other data.
    """
    return exit_code(lambda: _train(argv, task, prog, embedded))


def _train(argv: list[str], task: str | None, prog: str, embedded: str | None) -> None:
    from pointmix.engine.flags import parse_recipe

    argv = import_modules(argv)
    if task is None:
        parser = TaskParser(prog=prog, add_help=False, allow_abbrev=False)
        parser.add_argument("--task")
        args, argv = parser.parse_known_args(argv)
        task = args.task
        if task is None and {"-h", "--help"} & set(argv):
            print(f"usage: {prog} [--import MODULE] --task TASK [--help] [--config YAML] [flags]")
            print(f"tasks: {', '.join(list_tasks())}; --help after a task lists its flags")
            return
        if task is None:
            raise ValueError(f"--task is missing, expected one of {', '.join(list_tasks())}")
    cfg, recipe = parse_recipe(argv, config_of(task), prog=prog, embedded=embedded)
    from pointmix.engine.seeds import train_all  # after --help and wrong flags: it imports timm, which takes seconds

    train_all(cfg, recipe=recipe)


def split_imports(argv: list[str]) -> tuple[list[str], list[str]]:
    """The modules of --import flags, and the other flags."""
    parser = TaskParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--import", dest="modules", action="append", default=[])
    args, rest = parser.parse_known_args(argv)
    return args.modules, rest


def import_modules(argv: list[str]) -> list[str]:
    """Import the modules of --import flags, from the current folder, too; returns the other flags.

    Raises:
        ImportError: a module cannot be imported.
    """
    modules, rest = split_imports(argv)
    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as e:
            raise ImportError(f"--import {module}: {e}") from e
    return rest


class TaskParser(ArgumentParser):
    """A parser that raises ValueError in place of exiting, and knows its flags."""

    def __init__(self, **kwargs: Any) -> None:
        self.flags: set[str] = set()
        super().__init__(conflict_handler="resolve", **kwargs)  # tasks may have flags of the same name

    def add_argument(self, *args: Any, **kwargs: Any) -> Action:
        self.flags.update(arg for arg in args if arg.startswith("-"))
        return super().add_argument(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def flags_of(name: str, command: Command) -> set[str]:
    """The flags that the task of that name adds to a script."""
    parser = TaskParser(add_help=False)
    add_task_arguments(name, parser, command)
    return parser.flags


def parse_any(make: Callable[[], TaskParser], command: Command, argv: list[str]) -> Namespace:
    """Flags of a script before its task is known: those of all tasks are accepted. --help lists them.

    Args:
        make: makes the script's own parser.
    """
    if {"-h", "--help"} & set(argv):
        _print_help(make(), command)
    parser = make()
    for name in list_tasks():
        add_task_arguments(name, parser, command)
    return parser.parse_args(argv)


def _print_help(parser: ArgumentParser, command: Command) -> NoReturn:
    parser.print_help()
    for name in list_tasks():
        section = TaskParser(add_help=False, usage=SUPPRESS)
        add_task_arguments(name, section, command)
        print(f"\n{name} has these flags, too:\n", section.format_help().partition("\n")[2], sep="\n")
    sys.exit(0)


def parse_for(
    task: AnyTask, make: Callable[[], TaskParser], command: Command, argv: list[str], *, what: str
) -> Namespace:
    """Flags of a script for one task.

    Args:
        what: the run or file that the task is for, in messages.

    Raises:
        ValueError: a flag is wrong, or is one of another task; one line.
    """
    parser = make()
    if taken := parser.flags & flags_of(task.name, command):
        raise ValueError(f"{task.name} adds {', '.join(sorted(taken))} to {parser.prog}, which has such a flag itself")
    add_task_arguments(task.name, parser, command)
    for flag in (arg.split("=")[0] for arg in argv if arg.startswith("--")):
        others = [name for name in list_tasks() if flag in flags_of(name, command)]
        if flag not in parser.flags and others:
            raise ValueError(f"{flag} is a flag of {', '.join(others)}; {what} is of {task.name}")
    return parser.parse_args(argv)


def add_model_arguments(parser: ArgumentParser, *, default_task: str = DEFAULT_TASK) -> None:
    """Flags that say which network, in all scripts of trained networks."""
    parser.add_argument("--model", metavar="NAME", help="instead of a run: one of our models or of timm's")
    parser.add_argument("--task", metavar="NAME", help=f"task of --model (default {default_task}); a run names its own")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights for --model; else they are random")
    parser.add_argument("--device", help="torch device (default: cuda where there is one)")
    parser.add_argument("--import", metavar="MODULE", help=IMPORT)
