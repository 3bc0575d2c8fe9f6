"""A network trained on clouds, and cloud files: what the scripts that predict and explain share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointmix.data.clouds.transforms import eval_transform
from pointmix.engine.inference import data_config
from pointmix.io import is_image, read_cloud
from pointmix.ops.sampling import farthest_point_sampling, random_sampling
from pointmix.pointset import PointSet

Seen = Callable[[PointSet], PointSet]


def features_of(info: dict[str, Any]) -> str:
    """What the points of a run carry besides their positions: none, rgb or normal.

    Raises:
        ValueError: for a run on images.
    """
    if "img_size" in info:
        raise ValueError(f"{info['path']} is of images and takes no clouds")
    return data_config(info).features


def read_for(
    info: dict[str, Any], path: str | Path, *, index: int | None = None, columns: str | None = None
) -> PointSet:
    """The cloud of a file with the features that a run takes, and no others.

    Args:
        info: of the run, see `pointmix.engine.inference.open_model`.
        index, columns: as in `pointmix.io.read_cloud`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file does not have these features, or does not say that it has; or for a run on images.
    """
    features = features_of(info)
    if is_image(path):
        raise ValueError(f"{path} is an image, {info['path']} takes clouds")
    return PointSet.from_points(*read_cloud(path, index=index, features=features, columns=columns))


def seen_by(info: dict[str, Any], *, keep_all: bool = False) -> Seen:
    """What a run does to a cloud before its network sees it, as in evaluation: fewer points, then normalization.

    Points are chosen at random unless by FPS, as the first points of any file may be a corner of it.

    Args:
        keep_all: only normalize.
    """
    cfg = data_config(info)
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
