"""The registry, and what a task inherits."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import namedtuple

import pytest
import torch

from pointmix.tasks import base
from pointmix.tasks.base import Task, get_task, list_tasks, register_task, task_of
from pointmix.tasks.classify_images import ClassifyImagesConfig
from pointmix.tasks.classify_points import ClassifyPointsConfig
from pointmix.tasks.config import RunConfig
from pointmix.tasks.protocols import Score, to_device
from pointmix.tasks.segment import SegmentConfig


def other_task(**attributes):
    """A class of a task that does nothing."""
    methods = dict.fromkeys(Task.__abstractmethods__, lambda self, *args, **kwargs: None)
    return type("Other", (Task,), {"config": RunConfig, "__module__": "tests"} | methods | attributes)


@pytest.fixture
def registry(monkeypatch):
    """What is registered in a test is forgotten after it."""
    monkeypatch.setattr(base, "_TASKS", dict(base._TASKS))


def test_built_in_tasks_are_found_by_name_and_by_configuration():
    configs = {"classify_images": ClassifyImagesConfig, "classify_points": ClassifyPointsConfig}
    configs["segment"] = SegmentConfig
    assert list_tasks()[:3] == list(configs)
    for name, config in configs.items():
        assert get_task(name).name == name and task_of(config()) is get_task(name)


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_built_in_tasks_have_the_same_settings_and_flags_before_they_are_imported(command, monkeypatch):
    def helps() -> list[str]:
        parsers = [ArgumentParser() for _ in names]
        for name, parser in zip(names, parsers, strict=True):
            base.add_task_arguments(name, parser, command)
        return [parser.format_help() for parser in parsers]

    names = list(base._BUILT_IN)
    assert [get_task(name).config for name in names] == list(map(base.config_of, names))
    imported = helps()
    monkeypatch.setattr(base, "_TASKS", {})
    assert imported == helps() and len(set(imported)) > 2


@pytest.mark.usefixtures("registry")
def test_a_task_from_outside_is_an_equal():
    with pytest.raises(ValueError, match="no registered task has the configuration RunConfig"):
        task_of(RunConfig())
    register_task("other")(other_task())
    assert "other" in list_tasks() and task_of(RunConfig()) is get_task("other")


@pytest.mark.usefixtures("registry")
def test_a_configuration_belongs_to_the_task_of_its_nearest_class():
    class Derived(ClassifyImagesConfig):
        pass

    get_task("classify_images")
    assert task_of(Derived()) is get_task("classify_images")
    register_task("other")(other_task(config=Derived))
    assert task_of(Derived()) is get_task("other") and task_of(ClassifyImagesConfig()) is get_task("classify_images")


@pytest.mark.usefixtures("registry")
def test_a_name_is_taken_once():
    first = register_task("other")(other_task())
    register_task("other")(first)  # a module that is imported again
    with pytest.raises(ValueError, match="the task 'other' is registered already, by tests"):
        register_task("other")(other_task(__qualname__="Another"))
    for name in ("classify_images", "classify_points", "segment"):
        base._TASKS.pop(name, None)  # as before its first use
        with pytest.raises(ValueError, match=f"the task '{name}' is registered already, by pointmix.tasks.{name}"):
            register_task(name)(other_task())


@pytest.mark.parametrize("name", ["pose", "", "\x1b[31m", "os.system", "x" * 1000])
def test_an_unknown_name_is_one_line_that_says_what_to_do(name):
    with pytest.raises(ValueError, match="is registered, expected one of classify_images, .*; --import MODULE") as e:
        get_task(name)
    assert str(e.value).isprintable() and len(str(e.value)) < 300


def test_an_incomplete_task_is_named():
    with pytest.raises(TypeError, match="build_loss"):
        register_task("incomplete")(type("Incomplete", (Task,), {}))
    assert "incomplete" not in list_tasks()


def test_what_a_task_need_not_have():
    task = other_task(name="other")()
    assert task.more_tests(RunConfig(), None) == {} == task.pictures(None, None, {}, {})
    for call in (
        lambda: task.measurements(None, {}, None, None),
        lambda: task.build_predictor(None, {}, None),
        lambda: task.explain(None, None),
        lambda: task.open_named("x"),
    ):
        with pytest.raises(ValueError, match="^other has no "):
            call()


def test_trees_are_moved():
    Pair = namedtuple("Pair", "x y")
    tree = {"a": [torch.ones(1), ("b", torch.zeros(2))], "pair": Pair(torch.ones(3), 4)}
    moved = to_device(tree, "meta")
    assert moved["a"][0].is_meta and moved["a"][1][1].is_meta and moved["a"][1][0] == "b"
    assert isinstance(moved["pair"], Pair) and moved["pair"].x.is_meta and moved["pair"].y == 4


def test_scores():
    accuracy, error = Score("OA", percent=True), Score("MAE", larger_is_better=False)
    assert accuracy.text(0.9) == "90.00 %" and error.text(1.5) == "1.5000"
    assert accuracy.is_better(0.9, 0.8) and not accuracy.is_better(0.8, 0.8)
    assert error.is_better(0.8, 0.9) and not error.is_better(0.9, 0.9)
