"""Point clouds in files: named columns to positions and features."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.io import formats  # noqa: F401  registers the readers
from pointmix.io.colors import color_scale
from pointmix.io.images import as_floats
from pointmix.io.registry import CLOUD_READERS, FEATURES, IMAGE_READERS, POSITIONS, Columns
from pointmix.io.tensors import ChannelValues, as_tensor
from pointmix.io.validate import check_finite, check_numbers, check_read
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

if TYPE_CHECKING:
    import h5py

COLORS, NORMALS = FEATURES[1:]
KINDS = {"rgb": "colors", "normal": "normals"}  # value of `features` -> what messages call it

NamedFeatures = list[tuple[str, np.ndarray]]  # (N,) or (N, C)


def read_cloud(
    path: str | os.PathLike[str],
    index: int | None = None,
    *,
    mean: ChannelValues | None = None,
    std: ChannelValues | None = None,
    features: str | None = None,
    columns: str | None = None,
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N C"]]:
    """Positions and features of the cloud in a file.

    .ply: vertices with x, y, z; the features are colors (red, green, blue; r, g, b; or diffuse_red and so on), then
    normals (nx, ny, nz or normal_x and so on), if any.
    .las, .laz: points in double precision; the features are colors, if any.
    .npy: (N, 2) or (N, 3) positions; of wider rows the first three columns, the rest are features.
    .npz, .h5: positions under pos or xyz, or, as in a .npy, under points or data; features under feat, colors (or rgb)
    and normals, in this order. Arrays with one more leading axis hold many clouds, and `index` selects one.
    A warning names the columns of the file that are not read. Further formats: `pointmix.io.register_reader`.

    Positions keep double precision, and integers get it if they need it; other positions and all features are float32.
    uint8 and uint16 features are scaled to [0, 1]. Colors, by their name in the file or by `columns`, are scaled to
    [0, 1] whatever their type: integers and floats up to 255 are divided by it, see `pointmix.io.colors.color_scale`.

    Args:
        index: which cloud, if the file holds many.
        mean, std: per feature; (value - mean) / std.
        features: none, rgb (colors only) or normal (normals only), refused unless the file has them under such a name.
            Unset: all features.
        columns: with `features`, what unnamed features are, such as further columns of a .npy: rgb or normal.
    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: if the library of the format is not installed.
        ValueError: if the file is damaged or does not hold what it should.
    """
    path = Path(path)
    if columns is not None and features is None:
        raise ValueError(f"columns {columns} says what unnamed features are, but no features are asked for")
    for name, value, known in (("features", features, ("none", *KINDS)), ("columns", columns, KINDS)):
        if value is not None and value not in known:
            raise ValueError(f"{name} {value!r}: expected one of {', '.join(known)}")
    read = CLOUD_READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: unknown kind of file, expected one of {', '.join([*CLOUD_READERS, *IMAGE_READERS])}")
    regular_file(path)
    try:
        found = read(path)
        with found if isinstance(found, AbstractContextManager) else nullcontext(found) as file:
            pos, named = _select(file, path, index)
        if features is not None:
            named = _of_kind(named, features, columns)
        return _as_tensors(pos, named, mean=mean, std=std)
    except ImportError:
        raise
    except Exception as e:  # decoders raise many kinds of errors on damaged bytes
        reason = one_line(e).removeprefix(f"{path} ")
        raise ValueError(f"cannot read {path}: {reason}") from e


def _select(file: Columns, path: Path, index: int | None) -> tuple[np.ndarray, NamedFeatures]:
    """Positions (N, D) and features of one cloud; a warning names all other columns."""
    name = next((key for key in POSITIONS if key in file), None)
    if name is None:
        raise ValueError(f"expected positions under one of {', '.join(POSITIONS)}, found {', '.join(file) or 'none'}")
    pos = check_numbers(name, file[name])
    if pos.ndim not in (2, 3):
        raise ValueError(f"expected {name} as (N, D), or (n, N, D) for n clouds, got {pos.shape}")
    if pos.ndim == 2 and index not in (None, 0):
        raise ValueError(f"the file holds one cloud, got index {index}")
    clouds = len(pos) if pos.ndim == 3 else 1
    if index is None and clouds != 1:
        raise ValueError(f"{name} holds {clouds} clouds, give the index of one")
    if not 0 <= (index or 0) < clouds:
        raise ValueError(f"index must be from 0 to {clouds - 1}, got {index}")

    def one_cloud(key: str) -> np.ndarray:
        value = check_numbers(key, file[key])
        if value.shape[: pos.ndim - 1] != pos.shape[:-1] or value.ndim > pos.ndim:
            raise ValueError(f"{key} is {value.shape}, which does not match {name} {pos.shape}")
        check_read(value, value.shape[1:] if pos.ndim == 3 else value.shape, key)
        part = value[index or 0] if pos.ndim == 3 else value[...]
        return _scale_colors(part, value) if key in COLORS else part

    xyz, features = one_cloud(name), []
    if name in ("points", "data") and xyz.shape[1] > 3:  # further columns are colors, normals and the like
        xyz, features = xyz[:, :3], [("further columns", xyz[:, 3:])]
    chosen = [key for group in FEATURES if (key := next((key for key in group if key in file), None)) is not None]
    features += [(key, one_cloud(key)) for key in chosen]
    if unread := [key for key in file if key not in (name, *chosen)]:
        # without the path, so that Python shows the warning once for similar files
        warnings.warn(f"not read from {path.suffix.lower()} files: {one_line(', '.join(unread))}", stacklevel=3)
    return xyz, features


def _of_kind(found: NamedFeatures, wanted: str, columns: str | None) -> NamedFeatures:
    """The colors or the normals among features; `columns` says what features without such a name are."""
    if wanted == "none":
        return []
    kinds = dict.fromkeys(COLORS, "rgb") | dict.fromkeys(NORMALS, "normal")
    matching = [(name, value) for name, value in found if kinds.get(name, columns) == wanted]
    if len(matching) == 1 and matching[0][1].shape[1:] == (3,):
        name, value = matching[0]
        return [(name, _scale_colors(value, value) if wanted == "rgb" and name not in kinds else value)]
    has = ", ".join(f"{name} {value.shape}" for name, value in found) or "only positions"
    unnamed = columns is None and any(name not in kinds for name, _ in found)
    hint = f"; if the unnamed ones are, say so with columns {wanted}" if unnamed else ""
    raise ValueError(f"expected {KINDS[wanted]} of 3 channels, found {has}{hint}")


def _scale_colors(colors: np.ndarray, whole: np.ndarray | h5py.Dataset) -> np.ndarray:
    """Colors in [0, 1], by the range of all colors of the file."""
    if colors.dtype.kind not in "uifb":
        return colors  # refused later, with its name
    return colors.astype(np.float64) / color_scale(whole)


def _as_tensors(
    pos: np.ndarray, features: NamedFeatures, *, mean: ChannelValues | None, std: ChannelValues | None
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N C"]]:
    xyz, values = _floats("positions", pos), [_floats(name, value) for name, value in features]
    if min(xyz.shape) < 1:
        raise ValueError(f"expected at least one point, got positions of shape {tuple(xyz.shape)}")
    feat = torch.cat([torch.empty(len(xyz), 0), *[f.float().reshape(len(xyz), -1) for f in values]], dim=1)
    feat = as_floats(feat, mean=mean, std=std)
    check_finite(xyz, "the cloud", "points")
    check_finite(feat, "the features", "points")
    return xyz, feat


def _floats(name: str, value: np.ndarray) -> Tensor:
    """float32, or float64 where the values need it; uint8 and uint16 features in [0, 1]."""
    if value.dtype.kind not in "uifb":
        raise ValueError(f"{name} are {value.dtype}, expected numbers")
    tensor = as_tensor(np.array(value))
    if name != "positions" and tensor.dtype in (torch.uint8, torch.uint16):
        return as_floats(tensor)
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    double = tensor.double()
    return double if (double.float().double() != double).any() else double.float()
