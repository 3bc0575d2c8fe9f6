"""Views of a cloud that vote on its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from pointmix.data import transforms as T
from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT


def same(points: PointSet) -> PointSet:
    """The points as they are."""
    return points


def vote_views(cfg: CloudSettings, votes: int) -> tuple[Callable[[PointSet], PointSet], ...]:
    """The input as it is, and views turned and scaled at random in the ranges of training.

    Raises:
        ValueError: training neither rotates nor scales, so that all votes would be the same.
    """
    COUNT.check(votes=votes)
    degrees, (low, high) = 180.0 if cfg.rotate is None else cfg.rotate, cfg.scale
    if votes > 1 and degrees == 0 and low == high:
        raise ValueError(f"{votes} votes would be the same: data.rotate is 0 and data.scale {low:g}, {high:g}")
    draw = torch.Generator().manual_seed(0)
    views: list[Callable[[PointSet], PointSet]] = [same]
    for angle, size in torch.rand(votes - 1, 2, generator=draw, dtype=torch.float64).tolist():
        how = {"degrees": degrees * (2 * angle - 1), "factor": low + (high - low) * size}
        views.append(partial(turned, features=cfg.features or (), up=cfg.up or "z", **how))
    return tuple(views)


def turned(points: PointSet, *, features: Sequence[str], up: str, degrees: float, factor: float) -> PointSet:
    """Points, and normals among their features, rotated about the up axis, and scaled."""
    normal = normal_channels(features, points.feat.shape[1])
    own = torch.Generator()  # the ranges hold one number each
    points = T.rotate(points, degrees=(degrees, degrees), axis=up, vectors=normal, generator=own)
    return T.scale(points, factor=(factor, factor), generator=own)


def normal_channels(features: Sequence[str], channels: int) -> tuple[int, int] | None:
    """First channel and end of the normals among features by name: colors and normals have three channels, others one.

    Raises:
        ValueError: there are normals, and the features have other numbers of channels.
    """
    if "normal" not in features:
        return None
    width = [3 if name in ("rgb", "normal") else 1 for name in features]
    if sum(width) != channels:
        raise ValueError(f"cannot tell which of {channels} channels of {', '.join(features)} are normals, for votes")
    first = sum(width[: features.index("normal")])
    return first, first + 3
