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
    """Sampling, normalization and float32; then a random fraction `keep_ratio` of the points is kept.

    Args:
        config: resolved.
    """
    steps = _fixed_steps(config)
    if keep_ratio < 1:
        steps.append(partial(T.dropout, ratio=1 - keep_ratio))
    return T.compose(steps)


def test_transform(config: PointDataConfig, *, whole: bool = True) -> T.Transform:
    """As `eval_transform`, but clouds that are tested in parts stay in their own unit: `Voting` normalizes each part.

    Args:
        whole: all of their points, else a sample.
    """
    if not is_voted(config):
        return eval_transform(config)
    return T.compose([*([] if whole else _sampling(config)), to_float32])


def is_voted(config: PointDataConfig) -> bool:
    """Whether tests see all points of randomly sampled clouds, in parts."""
    return config.sampling == "random" and config.most_points is not None


def train_transform(config: PointDataConfig, *, normals: tuple[int, int] | None = None) -> T.Transform:
    """The same, then augmentation: dropout, rotate, scale, translate, jitter, shuffle, each if it is switched on.

    Args:
        config: resolved.
        normals: first channel and end of the normals among the features, if any.
    """
    steps = _fixed_steps(config)
    if config.dropout_ratio:
        steps.append(partial(T.dropout, ratio=(0.0, config.dropout_ratio)))
    if config.rotate:
        axis = "any" if config.rotate_axis == "any" else config.up or "z"
        steps.append(partial(T.rotate, degrees=config.rotate, axis=axis, vectors=normals))
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
    return [*_sampling(config), normalized(config)]


def _sampling(config: PointDataConfig) -> list[T.Transform]:
    if config.sampling not in ("random", "fps") or config.most_points is None:  # the dataset takes the first ones
        return []
    return [partial(sample_points, num_samples=config.most_points, sampling=config.sampling)]


def normalized(config: PointDataConfig) -> T.Transform:
    """The normalization of each set alone, then float32."""
    how: dict[str | None, T.Transform] = {
        "center": partial(T.center, up=config.up),
        "unit_sphere": T.unit_sphere,
        "unit_cube": T.unit_cube,
    }
    return T.compose([*([how[config.normalize]] if config.normalize in how else []), to_float32])
