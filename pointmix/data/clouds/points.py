"""From a cloud as in its file to positions and features that a network can take."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.features import named_feature, scaled_features
from pointmix.data.clouds.files import warn_of_dropped
from pointmix.data.clouds.named import NamedCloud
from pointmix.io.errors import UnreadableSample
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
        raise UnreadableSample(f"the positions are NaN or infinite at {bad} of {len(pos)} points")
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
    if cfg.nan == "drop":
        cloud = _finite_part(cloud, cfg.features, name)
    pos = finite_positions(cloud)
    if cfg.normalize != "none":
        pos = pos.double() - pos.double().amin(0)
    feat = scaled_features(cloud, cfg.features, cfg.feature_scale or {})
    return PointSet(pos, feat, torch.tensor([0, len(pos)]))


def _finite_part(cloud: NamedCloud, names: tuple[str, ...], path: str) -> NamedCloud:
    """The points whose position and features of these names are finite; a warning counts the others."""
    keep = np.isfinite(cloud.pos).all(1)
    values = {name: named_feature(cloud, name) for name in names}
    for value in values.values():
        keep &= np.isfinite(value).all(1)
    if keep.all():
        return cloud
    bad = int((~keep).sum())
    if bad == len(keep):
        raise UnreadableSample(f"all of its {bad} points are NaN or infinite")
    warn_of_dropped(path, bad)
    return NamedCloud(cloud.pos[keep], {name: value[keep] for name, value in values.items()})
