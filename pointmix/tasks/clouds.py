"""What the tasks on clouds have in common: the extent of the training data."""

from __future__ import annotations

import math

from pointmix.tasks.classification.task import check_key
from pointmix.tasks.protocols import Info


def check_extent(info: Info) -> None:
    """Refuse an extent that is not a size; runs of earlier versions have none."""
    extent = info.get("extent")
    right = extent is None or (isinstance(extent, int | float) and math.isfinite(extent) and extent >= 0)
    check_key(info, "extent", right, "the size of the training clouds, or null")
