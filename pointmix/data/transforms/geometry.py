"""Transforms of positions: normalization and augmentation. Features follow where they hold vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from pointmix.data.transforms.common import check_cloud, generator_device, per_point, random_uniform, wide_positions
from pointmix.layouts.cloud import Cloud
from pointmix.ops.precision import at_least_float32
from pointmix.ops.segments import segment_mean
from pointmix.pointset import PointSet

AXES = ("x", "y", "z", "any")


def center(points: PointSet, *, up: str | None = None) -> PointSet:
    """Move the middle of the bounding box of each set to the origin; along the axis `up` (x, y, z) its lowest point."""
    check_cloud(points, "center")
    pos = wide_positions(points)
    low = -_largest(-pos, points)
    pos = pos - per_point(low, points)  # first, so that nothing is lost to rounding far from the origin
    middle = _largest(pos, points) / 2  # (B, D)
    if up is not None:
        middle[:, AXES.index(up)] = 0
    return _moved(points, pos - per_point(middle, points))


def unit_sphere(points: PointSet) -> PointSet:
    """Center each set at its mean and scale its farthest point to distance 1. Sets of coinciding points become 0."""
    check_cloud(points, "unit_sphere")
    pos = wide_positions(points)
    pos = pos - per_point(segment_mean(pos, points.batch, points.num_sets), points)
    largest = _largest(torch.linalg.vector_norm(pos, dim=1, keepdim=True), points)  # (B, 1)
    return _moved(points, pos / per_point(_nonzero(largest), points))


def unit_cube(points: PointSet) -> PointSet:
    """Center the bounding box of each set and scale its longest side to 1: all positions are in [-0.5, 0.5]."""
    check_cloud(points, "unit_cube")
    pos = wide_positions(points)
    high, low = _largest(pos, points), -_largest(-pos, points)  # (B, D)
    longest = (high - low).amax(dim=1, keepdim=True)
    pos = (pos - per_point((high + low) / 2, points)) / per_point(_nonzero(longest), points)
    return _moved(points, pos)


def scale(
    points: PointSet,
    *,
    factor: tuple[float, float],
    per_axis: bool = False,
    normals: tuple[int, int] | None = None,
    generator: Generator | None = None,
) -> PointSet:
    """Multiply the positions of each set by a random factor, or by one per axis.

    Args:
        factor: range of the factor, two positive numbers; drawn uniformly.
        per_axis: draw a factor for each axis.
        normals: (first, end) feature channels that hold surface normals. They are divided by the factors and scaled
            back to their length, to stay perpendicular to the surface.
        generator: of the random numbers; unset, torch's global one on the CPU.

    Raises:
        ValueError: for a range that is not positive, points on a lattice, or missing channels.
    """
    low, high = factor
    if not 0 < low <= high < math.inf:
        raise ValueError(f"scale: factor must be two positive numbers, the smaller first, got {low}, {high}")
    check_cloud(points, "scale")
    drawn = random_uniform(points, (points.num_sets, points.pos.shape[1] if per_axis else 1), generator)
    drawn = per_point(low + (high - low) * drawn, points)  # (N, D) or (N, 1)
    feat = points.feat
    if normals is not None:
        old = _vectors("scale", points, normals)
        new = old / drawn.to(old.dtype)
        length, now = (torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in (old, new))
        feat = _with_vectors(feat, new * (length / _nonzero(now)), normals)
    return _moved(points, wide_positions(points) * drawn, feat)


def translate(points: PointSet, *, max_distance: float, generator: Generator | None = None) -> PointSet:
    """Translate each set by a random vector, uniform in [-max_distance, max_distance] along every axis."""
    if not 0 <= max_distance < math.inf:
        raise ValueError(f"translate: max_distance must be at least 0, got {max_distance}")
    check_cloud(points, "translate")
    drawn = (2 * random_uniform(points, (points.num_sets, points.pos.shape[1]), generator) - 1) * max_distance
    return _moved(points, wide_positions(points) + per_point(drawn, points))


def rotate(
    points: PointSet,
    *,
    degrees: float | tuple[float, float],
    axis: str = "y",
    vectors: tuple[int, int] | None = None,
    generator: Generator | None = None,
) -> PointSet:
    """Rotate each set by a random angle about an axis through the origin, by the right-hand rule.

    Args:
        degrees: range of the angle, or the largest angle either way; drawn uniformly.
        axis: "x", "y", "z", or "any" for a uniformly random direction for each set. Positions in two dimensions rotate
            about "z".
        vectors: (first, end) feature channels that hold vectors, such as normals, to rotate as well.
        generator: of the random numbers; unset, torch's global one on the CPU.

    Raises:
        ValueError: for an unknown axis, positions that are not in three dimensions, points on a lattice, or missing
            channels.
    """
    low, high = degrees if isinstance(degrees, Sequence) else (-degrees, degrees)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"rotate: degrees must be two numbers, the smaller first, got {low}, {high}")
    dims = points.pos.shape[1]
    if axis not in AXES:
        raise ValueError(f"rotate: axis must be one of {', '.join(AXES)}, got {axis!r}")
    if dims != 3 and (dims, axis) != (2, "z"):
        raise ValueError(f"rotate: positions have {dims} dimensions, expected 3, or 2 and axis z")
    check_cloud(points, "rotate")
    angle = torch.deg2rad(low + (high - low) * random_uniform(points, (points.num_sets,), generator))
    if axis == "any":
        draw = torch.randn(points.num_sets, 3, generator=generator, device=generator_device(generator))
        direction = torch.nn.functional.normalize(draw.to(wide_positions(points)))
    else:
        direction = torch.eye(3).to(wide_positions(points))[AXES.index(axis)].expand(points.num_sets, 3)
    matrix = per_point(_rotation(direction, angle)[:, :dims, :dims], points)  # (N, D, D)
    feat = points.feat
    if vectors is not None:
        turned = (matrix.to(at_least_float32(feat.dtype)) * _vectors("rotate", points, vectors)[:, None]).sum(dim=2)
        feat = _with_vectors(feat, turned, vectors)
    return _moved(points, (matrix * wide_positions(points)[:, None]).sum(dim=2), feat)


def jitter(
    points: PointSet,
    *,
    sigma: float,
    clip: float = math.inf,
    generator: Generator | None = None,
) -> PointSet:
    """Add normal noise of standard deviation `sigma` to the positions, clipped to [-clip, clip] along each axis."""
    if not (0 <= sigma < math.inf and clip >= 0):
        raise ValueError(f"jitter: sigma and clip must be at least 0, got {sigma} and {clip}")
    check_cloud(points, "jitter")
    noise = torch.randn(points.pos.shape, generator=generator, device=generator_device(generator)).to(
        wide_positions(points)
    )
    return _moved(points, wide_positions(points) + (sigma * noise).clamp(-clip, clip))


def _moved(points: PointSet, pos: Float[Tensor, "N D"], feat: Float[Tensor, "N C"] | None = None) -> PointSet:
    sampling = points.layout.sampling if isinstance(points.layout, Cloud) else "fps"
    layout = Cloud(sampling)  # not nested: the farthest points have changed
    return PointSet(pos.to(points.pos.dtype), points.feat if feat is None else feat, points.ptr, layout)


def _vectors(what: str, points: PointSet, channels: tuple[int, int]) -> Float[Tensor, "N D"]:
    first, end = channels
    if end - first != points.pos.shape[1] or not 0 <= first < end <= points.feat.shape[1]:
        raise ValueError(
            f"{what}: channels {first} to {end} are not vectors in {points.pos.shape[1]} dimensions; the points have "
            f"{points.feat.shape[1]} channels"
        )
    return points.feat[:, first:end].to(at_least_float32(points.feat.dtype))


def _with_vectors(
    feat: Float[Tensor, "N C"], vectors: Float[Tensor, "N D"], channels: tuple[int, int]
) -> Float[Tensor, "N C"]:
    return torch.cat([feat[:, : channels[0]], vectors.to(feat.dtype), feat[:, channels[1] :]], dim=1)


def _largest(x: Float[Tensor, "N C"], points: PointSet) -> Float[Tensor, "B C"]:
    """The maximum of each set and channel."""
    batch = points.batch[:, None].expand_as(x)
    return x.new_full((points.num_sets, x.shape[1]), -math.inf).scatter_reduce(0, batch, x, "amax")


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, x)


def _rotation(axis: Float[Tensor, "B 3"], angle: Float[Tensor, "B"]) -> Float[Tensor, "B 3 3"]:
    """Rodrigues' formula, R = I + sin(t) K + (1 - cos(t)) K^2, with K the cross-product matrix of the axis."""
    eye = torch.eye(3).to(axis)
    k = torch.linalg.cross(axis[:, None].expand(-1, 3, 3), eye.expand(len(axis), 3, 3)).mT
    angle = angle[:, None, None]
    return eye + angle.sin() * k + (1 - angle.cos()) * (k @ k)
