"""From a cloud as in its file to positions and features that a network can take."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.features import named_feature, scaled_features
from pointmix.data.clouds.files import warn_of_dropped
from pointmix.data.clouds.named import NamedCloud
from pointmix.io.errors import UnreadableSample
from pointmix.io.validate import finite_rows
from pointmix.pointset import PointSet


def finite_positions(cloud: NamedCloud) -> Float[Tensor, "N 3"]:
    """The positions in their own precision.

    Raises:
        UnreadableSample: if there is none, or one is not finite.
    """
    pos = torch.from_numpy(np.ascontiguousarray(cloud.pos))
    if not len(pos):
        raise UnreadableSample("it has no point")
    bad = int((~torch.isfinite(pos)).any(1).sum())
    if bad:
        raise UnreadableSample(
            f"the positions are NaN or infinite at {bad} of {len(pos)} points; nan drop leaves them out"
        )
    return pos


def as_points(cloud: NamedCloud, cfg: PointDataConfig, *, name: str) -> PointSet:
    """One cloud with the features that a configuration names.

    Unless `data.normalize` is none, the lowest coordinates are subtracted in double precision, before anything else.
    This is exact for coordinates of one binary grid, so the result does not depend on where on a map the cloud lies.

    Args:
        cfg: with a scale for each feature.
        name: of the cloud, for the warning about dropped points.

    Raises:
        UnreadableSample: if a position or a feature is not finite (with `data.nan` drop: at all points), or the cloud
            has no such feature.
    """
    if cfg.nan == "drop" and (good := finite_points(cloud, cfg.features, name=name)) is not None:
        cloud = cloud.subset(good, cfg.features)
    pos = finite_positions(cloud)
    if cfg.normalize != "none":
        pos = pos.double() - pos.double().amin(0)
    feat = scaled_features(cloud, cfg.features, cfg.feature_scale or {})
    return PointSet(pos, feat, torch.tensor([0, len(pos)]))


def finite_points(cloud: NamedCloud, names: Iterable[str], *, name: str) -> Bool[np.ndarray, " N"] | None:
    """Which points `data.nan` drop leaves: those whose position and features of these names are finite. None: all.

    Args:
        name: of the cloud, for the warning that counts the others.

    Raises:
        UnreadableSample: no point is left, or the cloud has no such feature.
    """
    good = finite_rows(cloud.pos, {name: named_feature(cloud, name) for name in names}, drop=True)
    if good is not None:
        warn_of_dropped(name, len(good) - int(good.sum()))
    return good
