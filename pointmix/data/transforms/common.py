"""What the transforms share: a value per set for each of its points, and random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from pointmix.layouts.cloud import Cloud
from pointmix.ops.precision import widened
from pointmix.pointset import PointSet

Transform = Callable[[PointSet], PointSet]


def compose(steps: Sequence[Transform]) -> Transform:
    """One transform that applies `steps` in order; it can be pickled if they can."""
    return partial(_apply, steps=tuple(steps))


def _apply(points: PointSet, *, steps: tuple[Transform, ...]) -> PointSet:
    for step in steps:
        points = step(points)
    return points


def check_cloud(points: PointSet, what: str) -> None:
    if not isinstance(points.layout, Cloud):
        raise ValueError(f"{what}: these points sit on a lattice; points.as_cloud() takes them off it")


def wide_positions(points: PointSet) -> Float[Tensor, "N D"]:
    """The positions with the range and the digits that sums and squares of them need."""
    return points.pos.to(widened(points.pos.dtype))


def per_point(values: Shaped[Tensor, "B *K"], points: PointSet) -> Shaped[Tensor, "N *K"]:
    """To each point what its set has; a single set's goes to all by broadcasting."""
    return values if points.num_sets == 1 else values[points.batch]


def generator_device(generator: Generator | None) -> torch.device | str:
    return "cpu" if generator is None else generator.device


def random_uniform(points: PointSet, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator_device(generator)).to(wide_positions(points))
