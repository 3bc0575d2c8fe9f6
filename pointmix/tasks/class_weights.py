"""Weights of the classes in a cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pointmix.utils.messages import counted

Given = Sequence[float] | Literal["balanced"] | None


def class_weights(given: Given, *, counts: Callable[[], Sequence[int]], classes: int) -> list[float] | None:
    """The weight of each class, in the order of the labels; None: 1.

    Args:
        given: the setting.
        counts: labeled training samples, pixels or points of each class; called for "balanced" only.
        classes: how many there are.

    Raises:
        ValueError: there are weights for another number of classes, or all are 0.
    """
    if given is None:
        return None
    weights = balanced_weights(counts()) if isinstance(given, str) else [float(weight) for weight in given]
    if len(weights) != classes:
        number = counted(len(weights), "value")
        raise ValueError(f"loss.class_weights has {number} for {counted(classes, 'class')}")
    if not any(weights):
        raise ValueError("loss.class_weights are all 0, expected one above 0")
    return weights


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Weights inversely proportional to the number of samples, scaled so that the mean weight of a sample is 1
    (scikit-learn's "balanced", over the classes that occur); 0 for classes without any."""
    occur = sum(count > 0 for count in counts)
    return [sum(counts) / (occur * count) if count else 0.0 for count in counts]
