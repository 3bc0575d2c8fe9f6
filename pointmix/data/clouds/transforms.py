"""From a configuration to the transforms of its clouds."""

from __future__ import annotations

from functools import partial

import torch

from pointmix.data import transforms as T
from pointmix.data.clouds.config import PointDataConfig
from pointmix.ops.sampling import farthest_point_sampling, random_sampling
from pointmix.pointset import PointSet


def sample_points(points: PointSet, *, num_samples: int, sampling: str) -> PointSet:
    """Some points of one cloud: random ones, or by farthest point sampling ("fps")."""
    if sampling == "random":
        index, _ = random_sampling(points.ptr, num_samples, seed=int(torch.randint(2**31, ())))
    else:
        index, _ = farthest_point_sampling(points.pos, points.ptr, num_samples)
    return PointSet(points.pos[index], points.feat[index], torch.tensor([0, len(index)]))


def to_float32(points: PointSet) -> PointSet:
    """Cast to float32, after all steps that need double precision; see `PointSet.in_type`."""
    return points.in_type(torch.float32)


def eval_transform(config: PointDataConfig, *, keep_ratio: float = 1.0) -> T.Transform:
    """Sampling, normalization and float32; then a random fraction `keep_ratio` of the points is kept."""
    steps = _fixed_steps(config)
    if keep_ratio < 1:
        steps.append(partial(T.dropout, ratio=1 - keep_ratio))
    return T.compose(steps)


def train_transform(config: PointDataConfig) -> T.Transform:
    """The same, then augmentation: dropout, rotate, scale, translate, jitter, shuffle, each if it is switched on."""
    steps = _fixed_steps(config)
    normals = (0, 3) if config.features == "normal" else None
    if config.dropout_ratio:
        steps.append(partial(T.dropout, ratio=(0.0, config.dropout_ratio)))
    if config.rotate:
        steps.append(partial(T.rotate, degrees=config.rotate, axis=config.rotate_axis, vectors=normals))
    low, high = config.scale
    if (low, high) != (1, 1):
        steps.append(partial(T.scale, factor=(low, high), per_axis=config.scale_per_axis, normals=normals))
    if config.translate:
        steps.append(partial(T.translate, max_distance=config.translate))
    if config.jitter:
        steps.append(partial(T.jitter, sigma=config.jitter, clip=config.jitter_clip))
    if config.shuffle:
        steps.append(T.shuffle)
    return T.compose(steps)


def _fixed_steps(config: PointDataConfig) -> list[T.Transform]:
    steps: list[T.Transform] = []
    if config.sampling != "first":  # the dataset has taken the first ones already
        steps.append(partial(sample_points, num_samples=config.points, sampling=config.sampling))
    if config.normalize != "none":
        steps.append({"unit_sphere": T.unit_sphere, "unit_cube": T.unit_cube}[config.normalize])
    return [*steps, to_float32]
