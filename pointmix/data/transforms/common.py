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
        raise ValueError(f"{what}: these points lie on a lattice; convert them with points.as_cloud()")


def wide_positions(points: PointSet) -> Float[Tensor, "N D"]:
    """The positions, in float32 if they are of half precision, which sums and squares overflow."""
    return points.pos.to(widened(points.pos.dtype))


def per_point(values: Shaped[Tensor, "B *K"], points: PointSet) -> Shaped[Tensor, "#N *K"]:
    """The value of its set for each point; that of a single set is left to broadcasting."""
    return values if points.num_sets == 1 else values[points.batch]


def generator_device(generator: Generator | None) -> torch.device | str:
    return "cpu" if generator is None else generator.device


def random_uniform(points: PointSet, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator_device(generator)).to(wide_positions(points))
