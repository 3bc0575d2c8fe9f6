"""Clouds in the objects of other libraries, which need not be installed to convert from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.io.cloud_file import CloudFile
from pointmix.io.clouds import cloud_tensors
from pointmix.io.fields import Fields, cloud_fields
from pointmix.io.formats.npy import record_columns
from pointmix.io.stored import find_clouds
from pointmix.io.tensors import ArrayLike
from pointmix.utils.messages import one_line

NamedArrays = Mapping[str, ArrayLike] | np.ndarray


@runtime_checkable
class HasPos(Protocol):
    """`Data` or `Batch` of PyTorch Geometric: pos (N, D), and if they are there x (N, C), batch (N,), ptr (B + 1,)."""

    pos: Tensor


@runtime_checkable
class HasPoints(Protocol):
    """`PointCloud` of Open3D: points, and if there are any colors and normals, each (N, 3)."""

    points: Sequence[Sequence[float]]


def data_fields(data: HasPos, features: Sequence[str] | None) -> Fields:
    """A cloud or a batch of clouds. Arguments and errors: `PointSet.from_data`."""
    pos = getattr(data, "pos", None)
    if not isinstance(pos, Tensor):
        raise ValueError(f"from_data: {type(data).__name__}.pos is {type(pos).__name__}, expected a tensor (N, D)")
    names = features if features is not None else ("x",) if getattr(data, "x", None) is not None else ()
    parts = []
    for name in names:
        value = getattr(data, name, None)
        if not isinstance(value, Tensor) or value.ndim not in (1, 2) or len(value) != len(pos):
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"from_data: feature {name} is {what}, expected a tensor with {len(pos)} rows")
        parts.append(value.reshape(len(pos), -1))
    # a network in single precision takes positions in double precision, not features
    feat = torch.cat(parts, dim=1) if parts else None
    ptr, batch = getattr(data, "ptr", None), getattr(data, "batch", None)
    pos, feat, one, layout = cloud_fields(pos, feat, batch if ptr is None else None)
    return pos, feat, one if ptr is None else ptr, layout


def to_data(pos: Float[Tensor, "N D"], feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B1"]) -> HasPos:
    """A `Data` of PyTorch Geometric for one set, a `Batch` for several. Errors: `PointSet.to_data`."""
    try:
        geometric = import_module("torch_geometric.data")
    except ImportError as e:
        message = "to_data needs PyTorch Geometric: pip install torch-geometric"
        raise ModuleNotFoundError(message, name="torch_geometric") from e
    bounds = ptr.tolist()
    parts: list[HasPos] = [
        geometric.Data(pos=pos[low:high], x=feat[low:high] if feat.shape[1] else None)
        for low, high in zip(bounds[:-1], bounds[1:], strict=True)
    ]
    batch: HasPos = parts[0] if len(parts) == 1 else geometric.Batch.from_data_list(parts)
    return batch


def open3d_fields(cloud: HasPoints, features: Sequence[str] | None) -> Fields:
    """A cloud. Arguments and errors: `PointSet.from_open3d`."""
    if not hasattr(cloud, "points"):
        raise ValueError(f"from_open3d: a {type(cloud).__name__} has no points; of a mesh, sample_points_uniformly")
    found = {name: np.asarray(getattr(cloud, name, ())) for name in ("points", "colors", "normals")}
    columns = {name: value for name, value in found.items() if len(value) or name == "points"}
    return columns_fields(columns, features, "from_open3d")


def columns_fields(columns: NamedArrays, features: Sequence[str] | None, caller: str = "from_columns") -> Fields:
    """A cloud. Arguments and errors: `PointSet.from_columns`."""
    try:
        if isinstance(columns, np.ndarray):
            if columns.dtype.names is None:
                raise ValueError(f"an array of {columns.dtype} has no named fields; from_points takes plain arrays")
            arrays = record_columns(columns)
        else:
            arrays = {name: np.asarray(value) for name, value in columns.items()}
        file = CloudFile(find_clouds(arrays), {})
        if len(file) != 1:
            raise ValueError(f"expected one cloud, got {len(file)}")
        pos, feat, unread, _ = cloud_tensors(file, 0, features)
    except ValueError as e:
        raise ValueError(f"{caller}: {one_line(e)}") from e
    if unread:
        warnings.warn(f"{caller}: not among the features: {one_line(', '.join(unread))}", stacklevel=4)
    return cloud_fields(pos, feat)
