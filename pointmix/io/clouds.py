"""Point clouds in files as tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pointmix.io import registry
from pointmix.io.cloud_file import CloudFile
from pointmix.io.colors import color_scale
from pointmix.io.columns import open_clouds
from pointmix.io.images import as_floats
from pointmix.io.mesh import SURFACE_POINTS
from pointmix.io.tensors import ChannelValues, as_tensor
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line


def read_cloud(
    path: str | os.PathLike[str],
    index: int | None = None,
    *,
    mean: ChannelValues | None = None,
    std: ChannelValues | None = None,
    features: str | Sequence[str] | None = None,
    columns: str | Sequence[str] = (),
    keys: Mapping[str, str] | None = None,
    surface_points: int = SURFACE_POINTS,
    nan: str = "refuse",
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N C"]]:
    """Positions and features of the cloud in a file.

    .ply: vertices with x, y, z; colors (red, green, blue; r, g, b; or diffuse_red and so on), normals (nx, ny, nz or
    normal_x and so on) and other properties. With faces it is a mesh.
    .off, .obj, .stl: meshes, read as random points of their surface, the same for the same file.
    .las, .laz: points in double precision, colors and all dimensions by laspy's names.
    .pcd: fields x, y, z, rgb, normal_x and so on; as text, binary or compressed.
    .xyz, .txt, .asc, .csv, .pts: a line a point, with or without a header of names; further columns without a header
    have no names.
    .npy: (N, 2) or (N, 3) positions, further columns without names; or records with fields x, y, z and others.
    .npz, .h5, .pt: positions under pos, xyz, coord, points or data, which may have further columns; features under
    feat, colors (or rgb), normals or any other name. A file holds many clouds in the forms of `pointmix.io.stored`;
    `index` selects one.
    Further formats: `pointmix.io.register_reader`. Raw values and labels: `pointmix.io.read_columns`.

    Positions keep double precision, and integers of 32 bits and more get it; other positions and all features are
    float32. uint8 and uint16 features are scaled to [0, 1]. Colors are scaled to [0, 1] whatever their type: integers
    and floats up to 255 are divided by it, see `pointmix.io.colors.color_scale`.

    Args:
        index: which cloud, if the file holds many.
        mean, std: per feature; (value - mean) / std.
        features: names of the features, such as rgb, normal, intensity, side by side in this order. Unset: columns
            without a name, feat, colors and normals, as far as the file has them; a warning names what is not read.
        columns, keys, surface_points, nan: see `read_columns`; a warning counts the points that nan="drop" leaves out.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: if the library of the format is not installed.
        ValueError: if the file is damaged or does not hold what it should.
    """
    path = Path(path)
    if path.suffix.lower() in registry.CLOUD_READERS:
        regular_file(path)
    features = (features,) if isinstance(features, str) else features
    columns = (columns,) if isinstance(columns, str) else columns
    try:
        with open_clouds(path, keys=keys, columns=columns) as file:
            pos, feat, unread, dropped = cloud_tensors(file, index, features, surface_points, nan)
        feat = as_floats(feat, mean=mean, std=std)
    except ImportError:
        raise
    except Exception as e:
        raise ValueError(f"cannot read {path}: {one_line(e).removeprefix(f'{path} ')}") from e
    if unread:  # without the path, so that Python shows the warning once for similar files
        warnings.warn(f"not read from {path.suffix.lower()} files: {one_line(', '.join(unread))}", stacklevel=2)
    if dropped:
        warnings.warn(f"{path}: {dropped} points with NaN or infinite values are left out", stacklevel=2)
    return pos, feat


def cloud_tensors(
    file: CloudFile, index: int | None, features: Sequence[str] | None, surface_points: int = 0, nan: str = "refuse"
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N C"], list[str], int]:
    """Positions, features side by side, names of the columns that are not read if no features are named, and the number
    of points left out. Arguments and errors: `read_cloud`."""
    wanted, unread = file.usual(index or 0) if features is None else (features, [])
    cloud = file.read(index, features=wanted, labels=(), surface_points=surface_points, nan=nan)
    pos = torch.from_numpy(cloud.pos)
    parts = [_scaled(name, value, cloud.color_scale).reshape(len(pos), -1) for name, value in cloud.features.items()]
    return pos, torch.cat([torch.empty(len(pos), 0), *parts], dim=1), list(unread), cloud.dropped


def _scaled(name: str, value: Shaped[np.ndarray, "N ..."], colors: float | None) -> Float[Tensor, "N ..."]:
    """float32; colors divided by what the file tells, other uint8 and uint16 by their type's largest value."""
    if name == "rgb":
        scale = color_scale(value) if colors is None else colors
        return torch.from_numpy((value.astype(np.float64) / scale).astype(np.float32))
    tensor = as_tensor(np.array(value))
    return as_floats(tensor) if tensor.dtype in (torch.uint8, torch.uint16) else tensor.float()
