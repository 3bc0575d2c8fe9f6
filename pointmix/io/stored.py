"""The forms in which one file holds many clouds.

- (N, D) positions: one cloud
- (n, N, D) positions: n clouds of N points; other arrays (n, N, C), or (n,) with a value a cloud
- (M, D) positions of n clouds one after the other, beside them `ptr` (n + 1,), or `lengths` (n,), or `offset` (n,), the
  end of each, or `batch` (M,), the cloud of each point; other arrays (M, C) or (n,)
- an array a cloud: cloud_0, cloud_1, ... or 0, 1, ...; beside them at most labels (n,)
- a group a cloud (HDF5), of any name, in it arrays as of one cloud

Clouds are in the order of the arrays, those of arrays and groups in the order of their names, cloud_2 before cloud_10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pointmix.io.cloud_labels import label_values
from pointmix.io.names import LABEL_NAMES, POSITIONS
from pointmix.io.validate import check_numbers, check_read

if TYPE_CHECKING:
    import h5py

ENDS = {
    "ptr": "ptr", "offsets": "ptr", "offset": "ends", "lengths": "lengths", "counts": "lengths", "sizes": "lengths",
    "batch": "batch",
}  # fmt: skip
Arrays = Mapping[str, object]


@dataclass(frozen=True)
class Stored:
    """Clouds in the arrays of a file.

    Args:
        parts: the arrays of each cloud, or of all clouds together.
        key: name of the positions in them.
        count: number of clouds.
        ptr: (n + 1,) where each cloud begins and ends, if they lie one after the other.
        dense: whether the first axis of the positions counts clouds.
        hidden: arrays that are no features, such as `ptr`.
        beside: labels beside an array a cloud.
        attrs: of the file (HDF5).
    """

    parts: list[Arrays]
    key: str
    count: int
    ptr: np.ndarray | None = None
    dense: bool = False
    hidden: frozenset[str] = frozenset()
    beside: Arrays = field(default_factory=dict)
    attrs: Arrays = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def keys(self, index: int) -> list[str]:
        """Names of the arrays of a cloud beside its positions."""
        part = self.parts[index if len(self.parts) > 1 else 0]
        return [key for key in part if key != self.key and key not in self.hidden]

    def whole(self, index: int, key: str) -> np.ndarray | h5py.Dataset:
        """The array of this name for all clouds that share it, not read yet if the file allows.

        Raises:
            ValueError: if it is no array of numbers.
        """
        return check_numbers(key, self.parts[index if len(self.parts) > 1 else 0][key])

    def is_numbers(self, index: int, key: str) -> bool:
        """Whether it is an array of numbers, not text, a group or a single value."""
        found = self.parts[index if len(self.parts) > 1 else 0][key]
        return getattr(getattr(found, "dtype", None), "kind", "") in tuple("uifb") and getattr(found, "ndim", 0) > 0

    def array(self, index: int, key: str) -> np.ndarray:
        """The array of one cloud.

        Raises:
            ValueError: if it is no array of numbers, or takes more bytes than the limit ARRAY_BYTES.
        """
        whole = self.whole(index, key)
        rows = len(whole) if whole.ndim else 0
        if self.ptr is not None and rows == self.ptr[-1]:
            low, high = int(self.ptr[index]), int(self.ptr[index + 1])
            check_read(whole, (high - low, *whole.shape[1:]), key)
            return np.asarray(whole[low:high])
        if (self.dense or self.ptr is not None) and rows == self.count:
            check_read(whole, whole.shape[1:], key)
            return np.asarray(whole[index])
        check_read(whole, whole.shape, key)
        return np.asarray(whole[...])

    def labels(self, names: Sequence[str]) -> list[int] | list[str] | None:
        """The label of each cloud, a number or a name; None if there are none. No cloud is read.

        Of groups, and of a file with one cloud, it is an array of one value or an attribute (HDF5); of other files it
        is an array (n,) or (n, 1).

        Args:
            names: of labels, in upper or lower case; the first that the file has counts.

        Raises:
            ValueError: if there is not one label a cloud, or some are neither whole numbers nor short text.
        """
        if self.beside or self.dense or self.ptr is not None:
            found = _named(self.beside or self.parts[0], names)
            return None if found is None else label_values(*found, self.count)
        values: list[int | str] = []
        for part in self.parts:
            found = _named(getattr(part, "attrs", {}), names) or _named(part, names)
            values += [] if found is None else label_values(*found, 1)
        if len(values) not in (0, len(self.parts)):
            raise ValueError(f"{len(values)} of {len(self.parts)} clouds have a label, expected one a cloud")
        if len({type(value) for value in values}) > 1:
            raise ValueError("the labels of some clouds are numbers, those of others are text")
        return values or None  # type: ignore[return-value]


def _named(arrays: Arrays, names: Sequence[str]) -> tuple[str, object] | None:
    lower = {name.lower(): name for name in arrays}
    found = next((lower[name.lower()] for name in names if name.lower() in lower), None)
    return None if found is None else (found, arrays[found])


def find_clouds(arrays: Arrays, key: str | None = None) -> Stored:
    """The clouds among the arrays of a file.

    Args:
        key: name of the positions; unset: the first of `POSITIONS`.

    Raises:
        ValueError: if there are no positions, or they are in none of the forms above.
    """
    expected, attrs = POSITIONS if key is None else (key,), getattr(arrays, "attrs", {})
    name = next((name for name in expected if name in arrays), None)
    if name is not None:
        return _with_positions(arrays, name, attrs)
    names = list(arrays)
    if names and all(hasattr(arrays[name], "keys") for name in names):
        names.sort(key=_natural)
        groups = [arrays[name] for name in names]
        inner = [next((key for key in expected if key in group), "") for group in groups]  # type: ignore[operator]
        if lacking := [name for name, found in zip(names, inner, strict=True) if not found]:
            what = f"expected in each of {len(names)} groups positions under one of {', '.join(expected)}"
            raise ValueError(f"{what}; {lacking[0]} has none")
        if len(set(inner)) > 1:
            raise ValueError(
                f"{len(names)} groups have positions under {', '.join(sorted(set(inner)))}, expected one name"
            )
        return Stored(groups, inner[0], len(groups), attrs=attrs)  # type: ignore[arg-type]
    numbered = [name for name in names if name[-1:].isdigit()]
    beside = {name: arrays[name] for name in names if name not in numbered and name.lower() in LABEL_NAMES}
    if len({re.sub(r"\d+$", "", name) for name in numbered}) == 1 and len(numbered) + len(beside) == len(names):
        numbered.sort(key=_natural)
        parts: list[Arrays] = [{"data": arrays[name]} for name in numbered]
        return Stored(parts, "data", len(parts), beside=beside, attrs=attrs)
    raise ValueError(f"expected positions under one of {', '.join(expected)}, found {', '.join(names) or 'none'}")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _with_positions(arrays: Arrays, name: str, attrs: Arrays) -> Stored:
    pos = check_numbers(name, arrays[name])
    if pos.ndim not in (2, 3):
        raise ValueError(f"expected {name} as (N, D), or (n, N, D) for n clouds, got {pos.shape}")
    if pos.ndim == 3:
        if not len(pos):
            raise ValueError(f"{name} is {pos.shape}, it holds no cloud")
        return Stored([arrays], name, len(pos), dense=True, attrs=attrs)
    ends = next((key for key in ENDS if key in arrays and key != name), None)
    found = None if ends is None else check_numbers(ends, arrays[ends])
    if ends is None or found is None or _is_feature(found, ENDS[ends], len(pos)):
        return Stored([arrays], name, 1, attrs=attrs)
    if found.ndim != 1 or found.dtype.kind not in "ui":
        raise ValueError(f"{ends} is {found.shape} {found.dtype}, expected (n,) whole numbers")
    check_read(found, found.shape, ends)
    ptr = _ptr(np.asarray(found[...]), ends, name, len(pos))
    return Stored([arrays], name, len(ptr) - 1, ptr=ptr, hidden=frozenset({ends}), attrs=attrs)


def _is_feature(found: np.ndarray | h5py.Dataset, kind: str, points: int) -> bool:
    """Whether an array beside positions is a feature of the points, although its name is one of `ENDS`."""
    plain = found.ndim == 1 and found.dtype.kind in "ui"
    return not plain and found.ndim > 0 and len(found) == points or kind == "batch" and found.shape != (points,)


def _ptr(given: np.ndarray, name: str, pos: str, points: int) -> np.ndarray:
    """Where each cloud begins and ends, (n + 1,), from an array of `ENDS`.

    Args:
        name, pos: of the array and of the positions, for messages.
        points: number of positions.

    Raises:
        ValueError: if it does not divide all points into clouds of one point or more.
    """
    kind, given = ENDS[name], given.astype(np.int64)
    if kind == "batch":
        steps = np.diff(given, prepend=-1)
        if (wrong := (steps < 0) | (steps > 1) | (np.arange(points) == 0) & (given != 0)).any():
            point = int(wrong.argmax())
            rule = "it must begin at 0 and rise by 0 or 1 from point to point: clouds in order, none empty"
            raise ValueError(f"{name} is {given[point]} at point {point}; {rule}")
        return np.append(np.flatnonzero(steps), points)
    ptr = given if kind == "ptr" else np.append(0, given if kind == "ends" else given.cumsum())
    if kind == "ends" and len(given) > 1 and given[0] == 0:  # some programs write the beginning too
        ptr = given
    sizes = np.diff(ptr)
    if (sizes < 0).any():
        place = int((sizes < 0).argmax())
        raise ValueError(f"{name} must rise, it goes from {ptr[place]} to {ptr[place + 1]} at cloud {place}")
    if len(ptr) < 2 or ptr[0] != 0:
        what = f"begins at {ptr[0]}, expected 0" if len(ptr) > 1 else "names no cloud"
        raise ValueError(f"{name} {what}")
    if ptr[-1] != points:
        raise ValueError(f"{name} divides {ptr[-1]} points into {len(sizes)} clouds, expected all {points} of {pos}")
    if not sizes.all():
        raise ValueError(f"{name} gives cloud {int(sizes.argmin())} of {len(sizes)} no point, expected at least one")
    return ptr
