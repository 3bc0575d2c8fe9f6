"""Flags that depend on the task, and the command of a training."""

from __future__ import annotations

import sys
from argparse import ArgumentParser

import pytest

from pointmix.engine.command import TaskParser, flags_of, import_modules, parse_any, parse_for, train_command
from pointmix.tasks.base import get_task

IMAGES, POINTS = get_task("classify_images"), get_task("classify_points")


def make():
    parser = TaskParser(prog="some.py")
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--out")
    return parser


def test_flags_of_all_tasks_are_taken_until_the_task_is_known():
    args = parse_any(make, "evaluate", ["a", "--keep", "1", "0.5", "--votes", "3", "--mask", "pixels", "--out", "b"])
    assert (args.runs, args.keep, args.votes, args.mask, args.out) == (["a"], [1, 0.5], 3, "pixels", "b")


def test_then_those_of_others_are_refused_by_name():
    assert parse_for(POINTS, make, "evaluate", ["a", "--votes", "3"], what="a").votes == 3
    with pytest.raises(ValueError, match="^--votes is a flag of classify_points, segment; a is of classify_images$"):
        parse_for(IMAGES, make, "evaluate", ["a", "--votes=3"], what="a")
    with pytest.raises(ValueError, match="unrecognized arguments: --nonsense"):
        parse_for(IMAGES, make, "evaluate", ["a", "--nonsense"], what="a")


def test_a_task_does_not_replace_a_flag_of_the_script(monkeypatch):
    def add(self, parser: ArgumentParser, command: str) -> None:
        parser.add_argument("--out", type=int)

    monkeypatch.setattr(type(IMAGES), "add_arguments", add)
    with pytest.raises(ValueError, match="classify_images adds --out to some.py, which has such a flag itself"):
        parse_for(IMAGES, make, "evaluate", [], what="a")


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_help_lists_the_flags_of_every_task(command, capsys):
    with pytest.raises(SystemExit) as e:
        parse_any(make, command, ["--help"])
    text = capsys.readouterr().out
    assert e.value.code == 0 and "usage: some.py" in text
    for task in (IMAGES, POINTS):
        section = text.split(f"{task.name} has these flags, too")[1].split("has these flags")[0]
        assert all(flag in section for flag in flags_of(task.name, command))


def test_modules_are_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "a_task_of_mine.py").write_text("LOADED = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert import_modules(["--import", "a_task_of_mine", "--x=1", "--import=json"]) == ["--x=1"]
    assert sys.modules.pop("a_task_of_mine").LOADED
    with pytest.raises(ImportError, match="^--import nothing_there: No module named 'nothing_there'$"):
        import_modules(["--import", "nothing_there"])


def test_help_without_a_task_names_the_tasks(capsys):
    assert train_command(["--help"], prog="train.py") == 0
    assert "tasks: classify_images, classify_points" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "--task is missing, expected one of classify_images, classify_points"),
        (["--task", "nothing"], "no task 'nothing' is registered, expected one of classify_images"),
        (["--task=classify_images", "--votes=3"], "votes"),
        (["--import", "nothing_there"], "--import nothing_there: No module named"),
        (["--import"], "--import"),
    ],
)
def test_a_wrong_command_is_one_line(argv, message, capsys):
    assert train_command(argv, prog="train.py") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
