"""Transforms that select or reorder points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from pointmix.data.transforms.common import generator_device, per_point, random_uniform, wide_positions
from pointmix.ops.ragged import offsets
from pointmix.pointset import PointSet


def dropout(
    points: PointSet,
    *,
    ratio: float | tuple[float, float],
    generator: Generator | None = None,
) -> PointSet:
    """Drop random points of each set, but never the last one.

    Args:
        ratio: the fraction to drop, in [0, 1], or a range to draw it from uniformly for each set.
        generator: of the random numbers; unset, torch's global one on the CPU.
    """
    low, high = ratio if isinstance(ratio, Sequence) else (ratio, ratio)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"dropout: ratio must be within 0 to 1, the smaller number first, got {low}, {high}")
    size = points.ptr.diff()
    drawn = low + (high - low) * random_uniform(points, (points.num_sets,), generator).double()
    dropped = torch.minimum((drawn * size).round().long(), size - 1)  # (B,)
    order, rank = _random_order(points, generator)
    index = order[rank >= per_point(dropped, points)].sort().values
    return _selected(points, index, offsets(size - dropped))


def crop(
    points: PointSet,
    *,
    radius: float,
    shape: str = "sphere",
    generator: Generator | None = None,
) -> PointSet:
    """Keep the points of each set within a sphere or box around a random point of it.

    Args:
        radius: of the sphere, or half the side of the box, in the unit of the positions.
        shape: "sphere" or "box".
        generator: of the random numbers; unset, torch's global one on the CPU.
    """
    if shape not in ("sphere", "box"):
        raise ValueError(f"crop: shape must be sphere or box, got {shape!r}")
    if not radius >= 0:
        raise ValueError(f"crop: radius must be at least 0, got {radius}")
    drawn = random_uniform(points, (points.num_sets,), generator).double() * points.ptr.diff()
    center = points.ptr[:-1] + torch.minimum(drawn.long(), points.ptr.diff() - 1)
    pos = wide_positions(points)
    away = pos - per_point(pos[center], points)  # (N, D)
    distance = torch.linalg.vector_norm(away, dim=1) if shape == "sphere" else away.abs().amax(dim=1)
    index = (distance <= radius).nonzero().squeeze(1)
    count = torch.bincount(points.batch[index], minlength=points.num_sets)
    return _selected(points, index, offsets(count))


def shuffle(points: PointSet, *, generator: Generator | None = None) -> PointSet:
    """Put the points of each set in random order."""
    return _selected(points, _random_order(points, generator)[0], points.ptr)


def _selected(points: PointSet, index: Int[Tensor, "K"], ptr: Int[Tensor, "B1"]) -> PointSet:
    layout = points.layout.as_sparse(points.num_sets, points.ptr.device).take(index, slice(None))
    return PointSet(points.pos[index], points.feat[index], ptr, layout)


def _random_order(points: PointSet, generator: Generator | None) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Indices of the points in random order within each set, and the rank of each of them within its set."""
    key = torch.rand(len(points.pos), generator=generator, device=generator_device(generator)).to(points.pos.device)
    order = key.argsort()
    rank = torch.arange(len(order), device=order.device)
    if points.num_sets == 1:
        return order, rank
    batch = points.batch
    return order[batch[order].argsort(stable=True)], rank - points.ptr[:-1][batch]  # grouped by set again
