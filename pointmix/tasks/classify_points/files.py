"""Cloud files as inputs of a network, the way evaluation reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.transforms import eval_transform
from pointmix.io import is_image, read_cloud
from pointmix.ops.sampling import farthest_point_sampling, random_sampling
from pointmix.pointset import PointSet


def read_for(
    path: str | Path,
    cfg: PointDataConfig,
    *,
    run: str = "the run",
    index: int | None = None,
    columns: str | None = None,
) -> PointSet:
    """The cloud of a file with the features that a run takes, and no others.

    Args:
        cfg: data settings of the run.
        run: what to call it.
        index, columns: see `pointmix.io.read_cloud`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not have these features, or does not say that it has them.
    """
    if is_image(path):
        raise ValueError(f"{path} is an image, {run} takes clouds")
    features = () if cfg.features == "none" else (cfg.features,)
    return PointSet.from_points(*read_cloud(path, index=index, features=features, columns=columns or ()))


def sampled_as(cfg: PointDataConfig, *, keep_all: bool = False) -> Callable[[PointSet], PointSet]:
    """What evaluation does to a cloud: fewer points, then normalization.

    Points are sampled at random unless by FPS: the first points of any file may lie in one corner.

    Args:
        cfg: data settings of the run.
        keep_all: only normalize.
    """
    normalized = eval_transform(replace(cfg, sampling="first"))

    def transform(points: PointSet) -> PointSet:
        if not keep_all:
            if cfg.sampling == "fps":
                index, _ = farthest_point_sampling(points.pos, points.ptr, cfg.points)
            else:
                index, _ = random_sampling(points.ptr, cfg.points, seed=0)
            points = points.subset(index)
        return normalized(points)

    return transform
