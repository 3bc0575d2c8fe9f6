"""Training, evaluation and the files of a run, whatever its task."""

from __future__ import annotations

from pointmix.engine.checkpoint import load_run
from pointmix.engine.evaluate import evaluate

__all__ = ["evaluate", "load_run"]
