"""What the tasks on clouds have in common: how files with NaN are read, and the extent of the training data."""

from __future__ import annotations

import math
from argparse import ArgumentParser

from pointmix.tasks.classification.task import check_key
from pointmix.tasks.protocols import Info


def add_nan_argument(parser: ArgumentParser) -> None:
    """The flag for points that are not finite."""
    text = "clouds with NaN or infinite values: refuse the file, or drop such points and count them (default: data.nan "
    parser.add_argument("--nan", choices=("refuse", "drop"), help=text + "of the run)")


def check_extent(info: Info) -> None:
    """Refuse an extent that is not a size; runs of earlier versions have none."""
    extent = info.get("extent")
    right = extent is None or (isinstance(extent, int | float) and math.isfinite(extent) and extent >= 0)
    check_key(info, "extent", right, "the size of the training clouds, or null")
