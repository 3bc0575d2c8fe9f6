"""What networks are trained for, one folder a task. `base` says what a task is, `config` what all runs can set."""

from __future__ import annotations

from pointmix.tasks.base import Task, get_task, list_tasks, register_task

__all__ = ["Task", "get_task", "list_tasks", "register_task"]
