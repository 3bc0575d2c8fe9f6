"""What a training step computes, one file a task: the loss of a batch, what is counted on a batch, and the summary."""

from __future__ import annotations

from pointmix.tasks.classify import Classify
from pointmix.tasks.points import ClassifyPoints

__all__ = ["Classify", "ClassifyPoints"]
