"""Transforms on point sets: each takes a batch of any sizes, treats every set by itself, and returns it.

Given per-point labels (N, ...) as well, a transform returns both, the labels still those of their points:

    points = rotate(points, degrees=180)
    points, labels = drop(points, labels, share=0.2)
    augment = compose([partial(scale, factor=(0.8, 1.25)), shuffle])

Random numbers come from `generator`, or from torch's own on the CPU, so the same seed gives the same result on every
device. Positions are transformed about the origin, in float32 where they are of a half precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor

from pointmix.layouts.cloud import Cloud
from pointmix.ops.precision import at_least_float32
from pointmix.ops.ragged import counts_to_ptr
from pointmix.ops.segments import segment_mean
from pointmix.pointset import PointSet

AXES = ("x", "y", "z", "any")
Transform = Callable[..., Any]  # (points) -> points, or (points, labels) -> (points, labels)


def compose(steps: Sequence[Transform]) -> Transform:
    """One transform that does `steps` one after the other."""
    return partial(_run, steps=tuple(steps))


def _run(points: PointSet, labels: Tensor | None = None, *, steps: tuple[Transform, ...]) -> Any:
    for step in steps:
        if labels is None:
            points = step(points)
        else:
            points, labels = step(points, labels)
    return points if labels is None else (points, labels)


# ---- positions ------------------------------------------------------------------------------------------------------


def unit_sphere(points: PointSet, labels: Tensor | None = None) -> Any:
    """Each set about its mean, with the farthest point at distance 1. Sets of one place become zeros."""
    _check_free(points, "unit_sphere")
    pos = _wide(points)
    pos = pos - _spread(segment_mean(pos, points.batch, points.num_sets), points)
    largest = _largest(torch.linalg.vector_norm(pos, dim=1, keepdim=True), points)  # (B, 1)
    return _moved(points, pos / _spread(_nonzero(largest), points), labels)


def unit_cube(points: PointSet, labels: Tensor | None = None) -> Any:
    """Each set about the middle of its bounding box, whose longest side becomes 1: all within -0.5 to 0.5."""
    _check_free(points, "unit_cube")
    pos = _wide(points)
    high, low = _largest(pos, points), -_largest(-pos, points)  # (B, D)
    longest = (high - low).amax(dim=1, keepdim=True)
    pos = (pos - _spread((high + low) / 2, points)) / _spread(_nonzero(longest), points)
    return _moved(points, pos, labels)


def scale(
    points: PointSet,
    labels: Tensor | None = None,
    *,
    factor: tuple[float, float],
    per_axis: bool = False,
    normals: tuple[int, int] | None = None,
    generator: Generator | None = None,
) -> Any:
    """Multiply positions by a factor drawn evenly from a range for each set, or for each axis of each set.

    Args:
        factor: the range, two positive numbers.
        per_axis: a factor for each axis.
        normals: (first, end) of the feature channels that hold surface normals. Where axes differ these are divided by
            the factors and brought back to their length, as normals must be to stay at right angles to the surface.

    Raises:
        ValueError: for a range that is not positive, points on a lattice, or channels that are not there.
    """
    low, high = factor
    if not 0 < low <= high < math.inf:
        raise ValueError(f"scale: factor must be two positive numbers, the smaller first, got {low}, {high}")
    _check_free(points, "scale")
    drawn = _rand(points, (points.num_sets, points.pos.shape[1] if per_axis else 1), generator)
    drawn = _spread(low + (high - low) * drawn, points)  # (N, D) or (N, 1)
    feat = points.feat
    if normals is not None:
        old = _vectors("scale", points, normals)
        new = old / drawn.to(old.dtype)
        length, now = (torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in (old, new))
        feat = _with_vectors(feat, new * (length / _nonzero(now)), normals)
    return _moved(points, _wide(points) * drawn, labels, feat)


def shift(points: PointSet, labels: Tensor | None = None, *, most: float, generator: Generator | None = None) -> Any:
    """Add to the positions of each set a vector drawn evenly from -most to most along every axis."""
    if not 0 <= most < math.inf:
        raise ValueError(f"shift: most must be at least 0, got {most}")
    _check_free(points, "shift")
    drawn = (2 * _rand(points, (points.num_sets, points.pos.shape[1]), generator) - 1) * most
    return _moved(points, _wide(points) + _spread(drawn, points), labels)


def rotate(
    points: PointSet,
    labels: Tensor | None = None,
    *,
    degrees: float | tuple[float, float],
    axis: str = "y",
    vectors: tuple[int, int] | None = None,
    generator: Generator | None = None,
) -> Any:
    """Turn each set by an angle drawn evenly from a range, counterclockwise as seen from the axis' tip.

    Args:
        degrees: the range, or the largest angle either way.
        axis: "x", "y", "z", or "any" for a direction drawn evenly for each set. Positions in two dimensions turn about
            "z".
        vectors: (first, end) of the feature channels that hold vectors, such as normals, which turn along.

    Raises:
        ValueError: for an unknown axis, positions that are not in three dimensions, points on a lattice, or channels
            that are not there.
    """
    low, high = degrees if isinstance(degrees, Sequence) else (-degrees, degrees)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"rotate: degrees must be two numbers, the smaller first, got {low}, {high}")
    dims = points.pos.shape[1]
    if axis not in AXES:
        raise ValueError(f"rotate: axis must be one of {', '.join(AXES)}, got {axis!r}")
    if dims != 3 and (dims, axis) != (2, "z"):
        raise ValueError(f"rotate: positions have {dims} dimensions, expected 3, or 2 and axis z")
    _check_free(points, "rotate")
    angle = torch.deg2rad(low + (high - low) * _rand(points, (points.num_sets,), generator))
    if axis == "any":
        draw = torch.randn(points.num_sets, 3, generator=generator, device=_device(generator))
        direction = torch.nn.functional.normalize(draw.to(_wide(points)))
    else:
        direction = torch.eye(3).to(_wide(points))[AXES.index(axis)].expand(points.num_sets, 3)
    matrix = _spread(_rotation(direction, angle)[:, :dims, :dims], points)  # (N, D, D)
    feat = points.feat
    if vectors is not None:
        turned = (matrix.to(at_least_float32(feat.dtype)) * _vectors("rotate", points, vectors)[:, None]).sum(dim=2)
        feat = _with_vectors(feat, turned, vectors)
    return _moved(points, (matrix * _wide(points)[:, None]).sum(dim=2), labels, feat)


def jitter(
    points: PointSet,
    labels: Tensor | None = None,
    *,
    sigma: float,
    clip: float = math.inf,
    generator: Generator | None = None,
) -> Any:
    """Move every point by normal noise of deviation `sigma`, at most `clip` along an axis."""
    if not (0 <= sigma < math.inf and clip >= 0):
        raise ValueError(f"jitter: sigma and clip must be at least 0, got {sigma} and {clip}")
    _check_free(points, "jitter")
    noise = torch.randn(points.pos.shape, generator=generator, device=_device(generator)).to(_wide(points))
    return _moved(points, _wide(points) + (sigma * noise).clamp(-clip, clip), labels)


# ---- which points ---------------------------------------------------------------------------------------------------


def drop(
    points: PointSet,
    labels: Tensor | None = None,
    *,
    share: float | tuple[float, float],
    generator: Generator | None = None,
) -> Any:
    """Leave out random points: of each set a share drawn evenly from a range, rounded, but never the last point.

    Args:
        share: the range within 0 to 1, or one number.
    """
    low, high = share if isinstance(share, Sequence) else (share, share)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"drop: share must be within 0 to 1, the smaller number first, got {low}, {high}")
    size = points.ptr.diff()
    drawn = low + (high - low) * _rand(points, (points.num_sets,), generator).double()
    gone = torch.minimum((drawn * size).round().long(), size - 1)  # (B,)
    order, place = _random_order(points, generator)
    index = order[place >= _spread(gone, points)].sort().values
    return _selected(points, index, counts_to_ptr(size - gone), labels)


def crop(
    points: PointSet,
    labels: Tensor | None = None,
    *,
    radius: float,
    shape: str = "sphere",
    generator: Generator | None = None,
) -> Any:
    """Keep the points of each set that lie near a random one of them.

    Args:
        radius: how near, in the unit of the positions: the radius of the sphere, or half the side of the box.
        shape: "sphere" or "box".
    """
    if shape not in ("sphere", "box"):
        raise ValueError(f"crop: shape must be sphere or box, got {shape!r}")
    if not radius >= 0:
        raise ValueError(f"crop: radius must be at least 0, got {radius}")
    drawn = _rand(points, (points.num_sets,), generator).double() * points.ptr.diff()
    center = points.ptr[:-1] + torch.minimum(drawn.long(), points.ptr.diff() - 1)
    pos = _wide(points)
    away = pos - _spread(pos[center], points)  # (N, D)
    distance = torch.linalg.vector_norm(away, dim=1) if shape == "sphere" else away.abs().amax(dim=1)
    index = (distance <= radius).nonzero().squeeze(1)
    count = torch.bincount(points.batch[index], minlength=points.num_sets)
    return _selected(points, index, counts_to_ptr(count), labels)


def shuffle(points: PointSet, labels: Tensor | None = None, *, generator: Generator | None = None) -> Any:
    """Put the points of each set in random order."""
    return _selected(points, _random_order(points, generator)[0], points.ptr, labels)


# ---- what they share ------------------------------------------------------------------------------------------------


def _check_free(points: PointSet, what: str) -> None:
    if not isinstance(points.layout, Cloud):
        raise ValueError(f"{what}: these points sit on a lattice; points.as_cloud() takes them off it")


def _wide(points: PointSet) -> Float[Tensor, "N D"]:
    """The positions with the range and the digits that sums and squares of them need."""
    return points.pos.to(at_least_float32(points.pos.dtype))


def _spread(values: Shaped[Tensor, "B *K"], points: PointSet) -> Shaped[Tensor, "N *K"]:
    """To each point what its set has; a single set's goes to all by broadcasting."""
    return values if points.num_sets == 1 else values[points.batch]


def _device(generator: Generator | None) -> torch.device | str:
    return "cpu" if generator is None else generator.device


def _rand(points: PointSet, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    return torch.rand(shape, generator=generator, device=_device(generator)).to(_wide(points))


def _random_order(points: PointSet, generator: Generator | None) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """The points of each set in random order, set after set, and the place of each within its set."""
    key = torch.rand(len(points.pos), generator=generator, device=_device(generator)).to(points.pos.device)
    order = key.argsort()
    place = torch.arange(len(order), device=order.device)
    if points.num_sets == 1:
        return order, place
    batch = points.batch
    return order[batch[order].argsort(stable=True)], place - points.ptr[:-1][batch]  # set after set again


def _selected(points: PointSet, index: Int[Tensor, "K"], ptr: Int[Tensor, "B+1"], labels: Tensor | None) -> Any:
    layout = points.layout.as_sparse(points.num_sets, points.ptr.device).take(index, slice(None))
    chosen = PointSet(points.pos[index], points.feat[index], ptr, layout)
    return chosen if labels is None else (chosen, _checked(labels, points)[index])


def _moved(
    points: PointSet, pos: Float[Tensor, "N D"], labels: Tensor | None, feat: Float[Tensor, "N C"] | None = None
) -> Any:
    layout = Cloud(points.layout.sampling)  # not nested: what was farthest no longer is
    moved = PointSet(pos.to(points.pos.dtype), points.feat if feat is None else feat, points.ptr, layout)
    return moved if labels is None else (moved, _checked(labels, points))


def _checked(labels: Tensor, points: PointSet) -> Tensor:
    if labels.ndim < 1 or len(labels) != len(points.pos):
        raise ValueError(f"labels must be one a point, ({len(points.pos)}, ...), got {tuple(labels.shape)}")
    return labels


def _vectors(what: str, points: PointSet, channels: tuple[int, int]) -> Float[Tensor, "N D"]:
    first, end = channels
    if end - first != points.pos.shape[1] or not 0 <= first < end <= points.feat.shape[1]:
        raise ValueError(
            f"{what}: channels {first} to {end} are no vectors in {points.pos.shape[1]} dimensions; the points have "
            f"{points.feat.shape[1]} channels"
        )
    return points.feat[:, first:end].to(at_least_float32(points.feat.dtype))


def _with_vectors(
    feat: Float[Tensor, "N C"], vectors: Float[Tensor, "N D"], channels: tuple[int, int]
) -> Float[Tensor, "N C"]:
    return torch.cat([feat[:, : channels[0]], vectors.to(feat.dtype), feat[:, channels[1] :]], dim=1)


def _largest(x: Float[Tensor, "N C"], points: PointSet) -> Float[Tensor, "B C"]:
    """The largest number of each set and channel."""
    batch = points.batch[:, None].expand_as(x)
    return x.new_full((points.num_sets, x.shape[1]), -math.inf).scatter_reduce(0, batch, x, "amax")


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, x)


def _rotation(axis: Float[Tensor, "B 3"], angle: Float[Tensor, "B"]) -> Float[Tensor, "B 3 3"]:
    """Rodrigues' formula, R = I + sin(t) K + (1 - cos(t)) K^2, with K the matrix of the cross product with the axis."""
    eye = torch.eye(3).to(axis)
    k = torch.linalg.cross(axis[:, None].expand(-1, 3, 3), eye.expand(len(axis), 3, 3)).mT
    angle = angle[:, None, None]
    return eye + angle.sin() * k + (1 - angle.cos()) * (k @ k)
