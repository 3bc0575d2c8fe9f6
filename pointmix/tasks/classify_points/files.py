"""Cloud files as inputs of a network, the way evaluation reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.files import read_named
from pointmix.data.clouds.points import as_points
from pointmix.data.clouds.transforms import eval_transform
from pointmix.io import is_image
from pointmix.io.errors import UnreadableSample
from pointmix.pointset import PointSet


def read_for(
    path: str | Path,
    cfg: PointDataConfig,
    *,
    run: str = "the run",
    index: int | None = None,
    columns: Sequence[str] | None = None,
) -> PointSet:
    """The cloud of a file with the features that a run takes, and no others, in its own unit and precision.

    Args:
        cfg: data settings of the run, resolved.
        run: what to call it.
        index: which cloud, if the file holds many.
        columns: names of the columns without one, see `pointmix.io.read_columns`; None: as in training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not have these features, or does not say that it has them.
    """
    if is_image(path):
        raise ValueError(f"{path} is an image, {run} takes clouds")
    try:
        return as_points(read_named(path, cfg, index=index, columns=columns), cfg, name=str(path))
    except UnreadableSample as e:
        raise ValueError(f"cannot read {path}: {e}") from e


def sampled_as(cfg: PointDataConfig, *, keep_all: bool = False) -> Callable[[PointSet], PointSet]:
    """What evaluation does to a cloud: fewer points, then normalization.

    Points are sampled at random unless by FPS: the first points of any file may lie in one corner.

    Args:
        cfg: data settings of the run, resolved.
        keep_all: only normalize.
    """
    if keep_all:
        return eval_transform(dataclasses.replace(cfg, points=None, max_points=None))
    return eval_transform(cfg if cfg.sampling == "fps" else dataclasses.replace(cfg, sampling="random"))
