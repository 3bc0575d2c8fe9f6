"""The forms in which one file holds many clouds.

- (N, D) positions: one cloud
- (n, N, D) positions: n clouds of N points; other arrays (n, N, C), or (n,) with a value a cloud
- (M, D) positions of n clouds one after the other, beside them `ptr` (n + 1,), or `lengths` (n,), or `offset` (n,), the
  end of each; other arrays (M, C) or (n,)
- an array a cloud: cloud_0, cloud_1, ... or 0, 1, ...
- a group a cloud (HDF5), of any name, in it arrays as of one cloud
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pointmix.io.names import POSITIONS
from pointmix.io.validate import check_numbers, check_read

if TYPE_CHECKING:
    import h5py

ENDS = {"ptr": "ptr", "offsets": "ptr", "offset": "ends", "lengths": "lengths", "counts": "lengths", "sizes": "lengths"}
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
    """

    parts: list[Arrays]
    key: str
    count: int
    ptr: np.ndarray | None = None
    dense: bool = False
    hidden: frozenset[str] = frozenset()

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


def find_clouds(arrays: Arrays, key: str | None = None) -> Stored:
    """The clouds among the arrays of a file.

    Args:
        key: name of the positions; unset: the first of `POSITIONS`.

    Raises:
        ValueError: if there are no positions, or they are in none of the forms above.
    """
    expected = POSITIONS if key is None else (key,)
    name = next((name for name in expected if name in arrays), None)
    if name is not None:
        return _with_positions(arrays, name)
    names = list(arrays)
    if names and all(hasattr(arrays[name], "keys") for name in names):
        names.sort(key=_natural)
        groups = [arrays[name] for name in names]
        inner = [next((key for key in expected if key in group), None) for group in groups]  # type: ignore[operator]
        if inner[0] is not None and len(set(inner)) == 1:
            return Stored(groups, inner[0], len(groups))  # type: ignore[arg-type]
        raise ValueError(f"expected in each of {len(groups)} groups positions under one of {', '.join(expected)}")
    stems = {re.sub(r"\d+$", "", name) for name in names}
    if len(stems) == 1 and all(name[-1:].isdigit() for name in names):
        names.sort(key=_natural)
        return Stored([{"data": arrays[name]} for name in names], "data", len(names))
    raise ValueError(f"expected positions under one of {', '.join(expected)}, found {', '.join(names) or 'none'}")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _with_positions(arrays: Arrays, name: str) -> Stored:
    pos = check_numbers(name, arrays[name])
    if pos.ndim not in (2, 3):
        raise ValueError(f"expected {name} as (N, D), or (n, N, D) for n clouds, got {pos.shape}")
    if pos.ndim == 3:
        return Stored([arrays], name, len(pos), dense=True)
    ends = next((key for key in ENDS if key in arrays and key != name), None)
    if ends is None:
        return Stored([arrays], name, 1)
    found = check_numbers(ends, arrays[ends])
    if found.ndim != 1 or found.dtype.kind not in "ui":
        if len(found) == len(pos):  # a feature of that name
            return Stored([arrays], name, 1)
        raise ValueError(f"{ends} is {found.shape} {found.dtype}, expected (n,) whole numbers")
    check_read(found, found.shape, ends)
    given = np.asarray(found[...]).astype(np.int64)
    ptr = given if ENDS[ends] == "ptr" else np.append(0, given if ENDS[ends] == "ends" else given.cumsum())
    if len(ptr) < 2 or ptr[0] != 0 or ptr[-1] != len(pos) or (np.diff(ptr) < 1).any():
        raise ValueError(
            f"{ends} divides {ptr[-1] if len(ptr) else 0} points into {len(ptr) - 1} clouds, expected all {len(pos)} "
            f"of {name}, in rising order, at least one a cloud"
        )
    return Stored([arrays], name, len(ptr) - 1, ptr=ptr, hidden=frozenset({ends}))
