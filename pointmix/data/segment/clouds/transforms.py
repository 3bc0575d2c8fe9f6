"""From labeled clouds to the samples that a network is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.data import transforms as T
from pointmix.data.clouds.features import feature_channels, scaled_features
from pointmix.data.clouds.points import finite_positions
from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.data.segment.clouds.crops import horizontal, normalize_crop, one_per_cell
from pointmix.data.segment.sample import IGNORE, LabeledCloud, SegmentBatch
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.pointset import PointSet

TRIES = 10  # crops drawn in search of one with enough points and a label


def train_transform(cfg: CloudSettings) -> Callable[[LabeledCloud], SegmentBatch]:
    """A random crop, grid sampling, `max_points`, dropout, normalization, then rotation, flips, scale and jitter.

    Points are in random order. Random numbers come from torch's global generator. The function raises UnreadableSample
    for a cloud with positions or features that are not finite, without a label, or with too few points.

    Args:
        cfg: with a scale for each feature, see `surveyed`.

    Raises:
        ValueError: for crops of no size, or a feature without a scale.
    """
    if cfg.crop not in (None, "none") and cfg.crop_extent is None and cfg.max_points is None:
        raise ValueError(f"data.crop {cfg.crop} needs a size: set data.crop_extent or data.max_points")
    if cfg.crop in (None, "none") and cfg.crop_extent is not None:
        raise ValueError(f"data.crop_extent is {cfg.crop_extent}, but data.crop is none; expected sphere or box")
    if cfg.scale[0] > cfg.scale[1]:
        raise ValueError(f"data.scale {cfg.scale[0]}, {cfg.scale[1]}: expected the smaller number first")
    _check_scales(cfg)
    return partial(_train_sample, cfg=cfg)


def eval_transform(cfg: CloudSettings) -> Callable[[LabeledCloud], SegmentBatch]:
    """The whole cloud: all points and labels in the order of the file, positions as in `whole_cloud`.

    Errors as in `train_transform`, but for the number of points.
    """
    _check_scales(cfg)
    return partial(_eval_sample, cfg=cfg)


def whole_cloud(cloud: LabeledCloud, cfg: CloudSettings) -> PointSet:
    """All points of a cloud with the features that the network takes, labels aside.

    Positions are in the unit of the file. The middle of their bounding box is subtracted in double precision before
    they are cast to float32, unless `data.normalize` is none and they need not be. `normalize_crop` does what is left.

    Raises:
        UnreadableSample: if a position or a feature is not finite, or the cloud has no such feature.
    """
    pos = finite_positions(cloud)
    points = _point_set(cloud, pos, np.arange(len(pos)), cfg)
    if cfg.normalize != "none":
        points = normalize_crop(points, CloudSettings(normalize="center", up=cfg.up))
    return points.in_type(torch.float32)


def _eval_sample(cloud: LabeledCloud, *, cfg: CloudSettings) -> SegmentBatch:
    return SegmentBatch(whole_cloud(cloud, cfg), _labels(cloud), _category(cloud))


def _train_sample(cloud: LabeledCloud, *, cfg: CloudSettings) -> SegmentBatch:
    pos, label = finite_positions(cloud), _labels(cloud)
    for _ in range(TRIES):
        index = _crop(pos, cfg)
        if len(index) >= cfg.min_points and (label[index] != IGNORE).any():
            break
    else:
        why = f"at least data.min_points {cfg.min_points} points, one of them with a label"
        raise UnreadableSample(f"{TRIES} random crops have too few points, the last one {len(index)}; expected {why}")
    dropped = int(len(index) * cfg.dropout_ratio * torch.rand(()))
    index = index[torch.randperm(len(index))[dropped:]]
    points = normalize_crop(_point_set(cloud, pos, index.numpy(), cfg), cfg)
    return SegmentBatch(_augmented(points, cloud, cfg), label[index], _category(cloud))


def _crop(pos: Float[Tensor, "N 3"], cfg: CloudSettings) -> Int[Tensor, "K"]:
    """The points of a random crop, after grid sampling, the nearest `max_points` at most."""
    index, whole = torch.arange(len(pos)), cfg.crop in (None, "none")
    away = pos.new_zeros(0)
    if not whole:
        away = pos - pos[torch.randint(len(pos), ())]
        sphere = cfg.crop == "sphere"
        away = torch.linalg.vector_norm(away, dim=1) if sphere else away[:, horizontal(cfg.up)].abs().amax(1)
        if cfg.crop_extent is not None:
            index = (away <= (cfg.crop_extent if sphere else cfg.crop_extent / 2)).nonzero().squeeze(1)
    if cfg.grid_size is not None:
        index = index[one_per_cell(pos[index], cfg.grid_size)]
    if cfg.max_points is None or len(index) <= cfg.max_points:
        return index
    chosen = torch.randperm(len(index)) if whole else away[index].argsort()
    return index[chosen[: cfg.max_points]]


def _augmented(points: PointSet, cloud: LabeledCloud, cfg: CloudSettings) -> PointSet:
    up, normal = cfg.up or "z", feature_channels(cloud, cfg.features or ()).get("normal")
    degrees = 180.0 if cfg.rotate is None else cfg.rotate
    if degrees:
        points = T.rotate(points, degrees=degrees, axis=up, vectors=normal)
    if cfg.tilt:  # after a random turn about the up axis, this is about any horizontal axis
        points = T.rotate(points, degrees=cfg.tilt, axis="xyz"[horizontal(up)[0]], vectors=normal)
        points = points if cfg.normalize == "none" else _lowest_at_zero(points, "xyz".index(up))
    for axis in horizontal(up):
        if torch.rand(()) < cfg.flip:
            points = _mirrored(points, axis, normal)
    if cfg.scale != (1, 1):
        points = T.scale(points, factor=cfg.scale)
    if cfg.jitter:
        points = T.jitter(points, sigma=cfg.jitter)
    if cfg.feature_dropout and torch.rand(()) < cfg.feature_dropout:
        points = points.with_feat(torch.zeros_like(points.feat))
    return points


def _lowest_at_zero(points: PointSet, axis: int) -> PointSet:
    """One cloud moved along the up axis, as `normalize_crop` leaves it."""
    pos = points.pos.clone()
    pos[:, axis] -= pos[:, axis].min()
    return PointSet(pos, points.feat, points.ptr, points.layout)


def _mirrored(points: PointSet, axis: int, normal: tuple[int, int] | None) -> PointSet:
    pos, feat = points.pos.clone(), points.feat.clone()
    pos[:, axis] *= -1
    if normal is not None:
        feat[:, normal[0] + axis] *= -1
    return PointSet(pos, feat, points.ptr, points.layout)


def _check_scales(cfg: CloudSettings) -> None:
    if missing := [name for name in cfg.features or () if name not in (cfg.feature_scale or {})]:
        raise ValueError(f"data.feature_scale has no {missing[0]}, which is among data.features")


def _labels(cloud: LabeledCloud) -> Int[Tensor, "N"]:
    if cloud.label.shape != cloud.pos.shape[:1]:
        raise BadMask(f"labels are {cloud.label.shape}, expected one for each of {len(cloud.pos)} points")
    label = torch.from_numpy(cloud.label.astype(np.int64))
    if not (label != IGNORE).any():
        raise UnreadableSample(f"all {len(label)} points are ignored, none has a label")
    return label


def _category(cloud: LabeledCloud) -> Int[Tensor, "1"] | None:
    return None if cloud.category is None else torch.tensor([cloud.category])


def _point_set(
    cloud: LabeledCloud, pos: Float[Tensor, "N 3"], index: Int[np.ndarray, " n"], cfg: CloudSettings
) -> PointSet:
    feat = scaled_features(cloud, cfg.features or (), cfg.feature_scale or {}, index)
    return PointSet(pos[index], feat, torch.tensor([0, len(index)]))
