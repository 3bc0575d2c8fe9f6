"""Names of columns in files of point clouds, and what they are called here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pointmix.io.errors import UnreadableSample

# The first position column counts; features of a cloud are by default one of each group, in this order.
POSITIONS = ("pos", "xyz", "points", "data", "coord", "coords")
FEATURES = (("feat", "features"), ("colors", "color", "rgb"), ("normals", "normal"))
LABEL_NAMES = (
    "label", "labels", "segment", "semantic", "semantic_label", "class", "classification", "scalar_label",
    "scalar_class", "scalar_classification",
)  # fmt: skip  # of columns with labels, in lower case; the first that a file has counts

OWN_NAMES = {name: "rgb" for name in FEATURES[1]} | {name: "normal" for name in FEATURES[2]}  # name in files -> ours
WIDTHS = {"rgb": 3, "normal": 3}  # channels of a feature; of others it is not fixed
VECTORS = {  # column -> names of its parts; the first complete spelling counts
    "xyz": (("x", "y", "z"),),
    "colors": (
        ("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("rf", "gf", "bf"),
    ),
    "normals": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
}  # fmt: skip
_RESERVED = {*POSITIONS, *(name for group in FEATURES for name in group)}


def feature_name(name: str) -> str:
    """What a column of a file is called here: rgb for colors, normal for normals, else its own name in lower case,
    without the scalar_ that CloudCompare puts before it."""
    lower = name.lower()
    return OWN_NAMES.get(lower, lower.removeprefix("scalar_"))


def missing_feature(name: str, has: Iterable[str]) -> UnreadableSample:
    """The error about a cloud without a feature of this name."""
    there = ", ".join(has) or "positions only"
    return UnreadableSample(f"it has no feature {name} with a row for each point; it has: {there}")


def join_vectors(single: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """Columns of a table with x, y, z, red and so on side by side as xyz, colors and normals; others as they are.

    Args:
        single: name -> (N,) or (N, C).
        kind: what a column is called in this kind of file, for messages.

    Raises:
        ValueError: if there are no x, y and z.
    """
    left = {name.strip().lower(): name for name in single}
    if not {"x", "y", "z"} <= set(left):
        raise ValueError(f"expected {kind} x, y and z, found {', '.join(single) or 'none'}")
    columns: dict[str, np.ndarray] = {}
    for column, spellings in VECTORS.items():
        names = next((names for names in spellings if set(names) <= set(left)), None)
        if names is not None:
            columns[column] = np.stack([single[left.pop(name)] for name in names], axis=1)
    # no single column is positions, colors or normals, whatever its name
    return columns | {f"property {name}" if name in _RESERVED else name: single[name] for name in left.values()}
