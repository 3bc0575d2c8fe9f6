"""LAS and LAZ: airborne and terrestrial laser scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointmix.io.registry import Columns, register_reader, require
from pointmix.utils.limits import check_array, regular_file

COLORS = {"red", "green", "blue"}
OWN = {"X", "Y", "Z", *COLORS}  # dimensions that become columns under other names
FLAGS = {"synthetic", "key_point", "withheld", "overlap", "scan_direction_flag", "edge_of_flight_line"}


@register_reader(".las", ".laz")
def read_las(path: Path) -> Columns:
    """The points of a .las or .laz file: xyz (float64, in the unit of the file), rgb if there are colors, and
    intensity, return_number, number_of_returns, classification and further dimensions under laspy's names, no flags.

    Raises:
        ModuleNotFoundError: if laspy is not installed, or lazrs for compressed points.
        ValueError: if the file is cut off, or its points take more bytes than the limit ARRAY_BYTES.
    """
    laspy = require("laspy", path)
    with laspy.open(regular_file(path), read_evlrs=False) as reader:
        header = reader.header
        points, size = header.point_count, header.point_format.size
        check_array((points, 3), 8, "the points")
        check_array((points,), size, "the points")
        left = max(path.stat().st_size - header.offset_to_point_data, 0)
        if header.are_points_compressed:
            require("lazrs", path)
        elif points * size > left:
            raise ValueError(
                f"the file is cut off: its header names {points} points of {size} bytes, {max(left, 0)} follow"
            )
        las = reader.read()
    names = set(las.point_format.dimension_names)
    columns = {"xyz": np.stack([las.x, las.y, las.z], axis=1)}
    if names >= COLORS:
        columns["rgb"] = np.stack([las.red, las.green, las.blue], axis=1)
    return columns | {name: np.asarray(las[name]) for name in sorted(names - OWN - FLAGS)}
