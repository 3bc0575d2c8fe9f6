"""Clouds, images and depth maps in files, read by the libraries of their formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from pointmix.io.arrays import as_tensor
from pointmix.io.images import as_floats, full_color, upright
from pointmix.io.open_image import check_numbers, check_ply, check_read, open_image, open_npz, read_npy
from pointmix.io.pixels import check_finite
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

POSITIONS = ("pos", "xyz", "points", "data")  # names of arrays; the first that is there counts
FEATURES = (("feat", "features"), ("colors", "color", "rgb"), ("normals", "normal"))  # one of each group, in this order
KINDS = {"rgb": "colors", "normal": "normals"}  # what to ask for -> what it is called in messages
PLY_NAMES = {  # what -> spellings, the first that is complete counts
    "colors": (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")),
    "normals": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
}
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

Found = tuple[np.ndarray, list[tuple[str, np.ndarray]]]  # positions (N, D) and named features (N,) or (N, C)


def is_image(path: str | Path) -> bool:
    """Whether the name is that of an image, else a cloud is expected."""
    return Path(path).suffix.lower() in IMAGES


def read_cloud(
    path: str | Path,
    mask: None = None,
    index: int | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: str | None = None,
    columns: str | None = None,
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N C"]]:
    """Positions and features of the cloud in a file.

    .ply: vertices with x, y, z; the features are colors (red, green, blue; r, g, b; or diffuse_red and so on), then
    normals (nx, ny, nz or normal_x and so on), if any.
    .npy: (N, 2) or (N, 3) positions; of wider rows the first three columns, the rest are features.
    .npz, .h5: positions under pos or xyz, or, as in a .npy, under points or data; features under feat, colors (or rgb)
    and normals, in this order. What has one more axis in front holds many clouds, and `index` chooses one.
    A warning names what else there is in the file.

    Positions keep double precision, integers that need it get it, others are single; features are single, bytes and
    unsigned 16-bit integers in [0, 1]. What the file or `columns` says is colors is in [0, 1] whatever its type, as
    `pointmix.io.images.full_color` finds for the file: integers and floats up to 255 are divided by it.
    Arguments and errors: `PointSet.from_file`, and

    Args:
        features: none, rgb (the colors alone) or normal (the normals alone), refused unless the file says that it has
            them. Unset: all that there is.
        columns: for `features`, what those are that have no name, such as further columns of a .npy: rgb or normal.
    """
    path = Path(path)
    if columns is not None and features is None:
        raise ValueError(f"columns {columns} tells what is what for features, which are not asked for")
    for name, value, known in (("features", features, ("none", *KINDS)), ("columns", columns, KINDS)):
        if value is not None and value not in known:
            raise ValueError(f"{name} {value!r}: expected one of {', '.join(known)}")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: unknown kind of file, expected one of {', '.join([*READERS, *IMAGES])}")
    if mask is not None:
        raise ValueError(f"{path}: masks are of images, a cloud has none (got {mask})")
    regular_file(path)
    try:
        pos, found = read(path, index)
        if features is not None:
            found = _of_kind(found, features, columns)
        pos, values = _floats("positions", pos), [_floats(name, value) for name, value in found]
        if min(pos.shape) < 1:
            raise ValueError(f"expected at least one point, got positions of shape {tuple(pos.shape)}")
        feat = torch.cat([torch.empty(len(pos), 0), *[f.float().reshape(len(pos), -1) for f in values]], dim=1)
        feat = as_floats(feat, mean=mean, std=std)
        check_finite(pos, "the cloud", "points")
        check_finite(feat, "the features", "points")
    except ImportError:
        raise
    except Exception as e:  # decoders raise many kinds on damaged bytes
        reason = one_line(e).removeprefix(f"{path} ")
        raise ValueError(f"cannot read {path}: {reason}") from e
    return pos, feat


def read_image(
    path: str | Path, mask: str | Path | None = None, index: None = None
) -> tuple[Image.Image, Bool[Tensor, "H W"] | None]:
    """An image file in RGB and the mask in another. Errors: `PointSet.from_file`."""
    from pointmix.data.images import partial
    from pointmix.tasks.classify_images import files as inference  # these two build on point sets

    if index is not None:
        raise ValueError(f"{path}: an image file holds one image, got index {index}")
    image = inference.read_image(path, 3)
    return image, None if mask is None else partial.read_mask(mask, (image.height, image.width))


def read_depth(path: str | Path) -> np.ndarray:
    """A depth map (H, W), as the file has it: a 16-bit or float image, or a .npy array.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or is a picture in bytes or colors.
    """
    regular_file(path, "depth file")
    try:
        if Path(path).suffix.lower() == ".npy":
            return read_npy(path)
        with open_image(path) as image:
            depth = np.array(upright(image))
    except Exception as e:
        raise ValueError(f"cannot read depth {path}: {one_line(e)}") from e
    if depth.ndim != 2 or depth.dtype.itemsize < 2:
        kind = f"{'x'.join(map(str, depth.shape))} {depth.dtype}"
        raise ValueError(f"{path}: expected a depth image of one channel with 16 bits or floats, got {kind}")
    return depth


def _floats(name: str, value: np.ndarray) -> Tensor:
    """Floats of any size; bytes and 16-bit unsigned features in [0, 1]. Integers that single precision cannot hold are
    double."""
    if value.dtype.kind not in "uifb":
        raise ValueError(f"{name} are {value.dtype}, expected numbers")
    value = as_tensor(np.array(value))
    if name != "positions" and value.dtype in (torch.uint8, torch.uint16):
        return as_floats(value)
    if value.dtype in (torch.float32, torch.float64):
        return value
    double = value.double()
    return double if (double.float().double() != double).any() else double.float()


def _ply(path: Path, index: int | None) -> Found:
    plyfile = _library("plyfile", path)
    check_ply(path)
    ply = plyfile.PlyData.read(str(path))
    if index not in (None, 0):
        raise ValueError(f"a .ply file holds one cloud, got index {index}")
    if "vertex" not in ply:
        raise ValueError(f"expected an element 'vertex', found {[e.name for e in ply.elements]}")
    vertex = ply["vertex"].data
    names = {name.lower(): name for name in vertex.dtype.names}

    def columns(keys: Sequence[str]) -> np.ndarray:
        return np.stack([vertex[names.pop(key)] for key in keys], axis=1)

    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"expected vertices with x, y and z, found {', '.join(names.values())}")
    pos, features = columns("xyz"), []
    for what, spellings in PLY_NAMES.items():
        keys = next((keys for keys in spellings if set(keys) <= set(names)), None)
        if keys is not None:
            values = columns(keys)
            features.append((what, _in_unit(values, values) if what == "colors" else values))
    _name_unread(path, [*names.values(), *(f"element {e.name}" for e in ply.elements if e.name != "vertex")])
    return pos, features


def _npy(path: Path, index: int | None) -> Found:
    return _of_arrays({"data": read_npy(path)}, path, index)


def _npz(path: Path, index: int | None) -> Found:
    with open_npz(path) as arrays:
        return _of_arrays(arrays, path, index)


def _h5(path: Path, index: int | None) -> Found:
    _library("h5py", path)
    from pointmix.io.open_hdf5 import open_hdf5

    with open_hdf5(path) as file:
        return _of_arrays(file, path, index)


READERS: dict[str, Callable[[Path, int | None], Found]] = {
    ".ply": _ply, ".npy": _npy, ".npz": _npz, ".h5": _h5, ".hdf5": _h5,
}  # fmt: skip


def _of_arrays(arrays: Mapping[str, np.ndarray], path: Path, index: int | None) -> Found:
    """One cloud of (N, D), or of many of one size (n, N, D), among named arrays."""
    name = next((key for key in POSITIONS if key in arrays), None)
    if name is None:
        raise ValueError(f"expected positions under one of {', '.join(POSITIONS)}, found {', '.join(arrays) or 'none'}")
    pos = check_numbers(name, arrays[name])
    if pos.ndim not in (2, 3):
        raise ValueError(f"expected {name} as (N, D), or (n, N, D) for n clouds, got {pos.shape}")
    clouds = len(pos) if pos.ndim == 3 else 1
    if index is None and clouds != 1:
        raise ValueError(f"{name} holds {clouds} clouds, give the index of one")
    if not 0 <= (index or 0) < clouds:
        raise ValueError(f"index must be from 0 to {clouds - 1}, got {index}")

    def one(key: str) -> np.ndarray:
        value = check_numbers(key, arrays[key])
        if value.shape[: pos.ndim - 1] != pos.shape[:-1] or value.ndim > pos.ndim:
            raise ValueError(f"{key} is {value.shape}, which does not go with {name} {pos.shape}")
        check_read(value, value.shape[1:] if pos.ndim == 3 else value.shape, key)
        part = value[index or 0] if pos.ndim == 3 else value[...]
        return _in_unit(part, value) if key in FEATURES[1] else part

    found, features = one(name), []
    if name in ("points", "data") and found.shape[1] > 3:  # further columns are colors, normals and the like
        found, features = found[:, :3], [("further columns", found[:, 3:])]
    chosen = [key for group in FEATURES if (key := next((key for key in group if key in arrays), None)) is not None]
    features += [(key, one(key)) for key in chosen]
    _name_unread(path, [key for key in arrays if key not in (name, *chosen)])
    return found, features


def _name_unread(path: Path, names: Sequence[str]) -> None:
    if names:  # without the path, so that Python shows it once for files alike
        unread = one_line(", ".join(names))
        warnings.warn(f"not read from {path.suffix.lower()} files: {unread}", stacklevel=2)


def _of_kind(found: list[tuple[str, np.ndarray]], wanted: str, columns: str | None) -> list[tuple[str, np.ndarray]]:
    """Those features that are colors, or normals; `columns` says what those are whose name does not tell."""
    if wanted == "none":
        return []
    kinds = dict(zip(FEATURES[1] + FEATURES[2], ["rgb"] * 3 + ["normal"] * 2, strict=True))
    right = [(name, value) for name, value in found if kinds.get(name, columns) == wanted]
    if len(right) == 1 and right[0][1].shape[1:] == (3,):
        (name, value), named = right[0], right[0][0] in kinds
        return [(name, value if wanted != "rgb" or named else _in_unit(value, value))]
    has = ", ".join(f"{name} {value.shape}" for name, value in found) or "positions alone"
    unnamed = columns is None and any(name not in kinds for name, _ in found)
    hint = f"; if that is what has no name, say so with columns {wanted}" if unnamed else ""
    raise ValueError(f"expected {KINDS[wanted]} of 3 channels, found {has}{hint}")


def _in_unit(colors: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Colors in [0, 1], by the range of all that the file has."""
    if colors.dtype.kind not in "uifb":
        return colors  # refused later, with its name
    return colors.astype(np.float64) / full_color(whole)


def _library(name: str, path: Path) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as e:
        raise ModuleNotFoundError(f"{path}: this kind of file needs {name}: pip install {name}", name=name) from e
