"""An open file of point clouds, read by the names of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from pointmix.io.errors import UnreadableSample
from pointmix.io.mesh import FACES, SURFACE_POINTS, on_surface
from pointmix.io.names import FEATURES, LABEL_NAMES, WIDTHS, feature_name, missing_feature
from pointmix.io.stored import Stored
from pointmix.io.validate import as_positions, check_upright, finite_rows
from pointmix.utils.messages import one_line

UNNAMED = "further columns"  # beside x, y, z in an array without names
WIDE = ("points", "data", "coord", "coords")  # positions under these names may have further columns

Features = Mapping[str, Shaped[np.ndarray, "N ..."]]


class FoundCloud(NamedTuple):
    """What a file holds of a cloud.

    Args:
        pos: (N, D) float32, or float64 if the file has as many bytes.
        features: name -> (N,) or (N, C) as in the file; colors are rgb, normals are normal.
        label: (N,) or (N, 1) as in the file, a single number if the file labels whole clouds, None if it has none.
        dropped: number of points left out because of NaN or infinite values.
    """

    pos: Float[np.ndarray, "N D"]
    features: Features
    label: Shaped[np.ndarray, "..."] | None
    dropped: int = 0


@dataclass(frozen=True)
class CloudFile:
    """An open file of one cloud or many.

    Args:
        stored: its arrays, and what of them is a cloud.
        keys: our name -> name in the file, where they differ.
        columns: names of the unnamed columns.
    """

    stored: Stored
    keys: Mapping[str, str]
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.stored)

    def names(self, index: int = 0) -> dict[str, str]:
        """The arrays of a cloud beside its positions: name of a feature -> name in the file."""
        left = {key: key for key in self.stored.keys(index)}
        names = {own: left.pop(key) for own, key in self.keys.items() if key in left}
        usual = [next((key for key in group if key in left), None) for group in FEATURES]
        for key in [*(key for key in usual if key is not None), *left]:
            if key in left and feature_name(key) not in names:
                names[feature_name(key)] = left.pop(key)
        return names | {f"{key} of the file" if key in names else key: key for key in left}

    def usual(self, index: int = 0) -> tuple[list[str], list[str]]:
        """Names of the unnamed columns, feat, colors and normals, and of the columns that are none of these."""
        names = self.names(index)
        found = [next((name for name, key in names.items() if key in group), None) for group in FEATURES]
        feat, *others = found
        beside: list[str] = []
        if self._is_wide(index) or self.columns and feat is not None:
            beside = list(self.columns) or [UNNAMED]
        if not self.columns or self._is_wide(index):
            others = found
        chosen = [*beside, *(name for name in others if name is not None)]
        read = {FACES, *(names[name] for name in found if name is not None)}
        return chosen, [key for key in self.stored.keys(index) if key not in read]

    def _is_wide(self, index: int) -> bool:
        return self.stored.key in WIDE and self.stored.whole(index, self.stored.key).shape[-1] > 3

    def read(
        self,
        index: int = 0,
        *,
        features: Sequence[str] | None = None,
        labels: Sequence[str] = LABEL_NAMES,
        dims: int | None = None,
        surface_points: int = SURFACE_POINTS,
        nan: str = "refuse",
    ) -> FoundCloud:
        """One cloud. Arguments and errors: `read_columns`."""
        with unreadable():
            if nan not in ("refuse", "drop", "keep"):
                raise ValueError(f"nan {nan!r}: expected refuse, drop or keep")
            if not 0 <= index < len(self):
                one = "the file holds one cloud" if len(self) == 1 else f"index must be from 0 to {len(self) - 1}"
                raise ValueError(f"{one}, got {'index ' * (len(self) == 1)}{index}")
            pos, beside, names = self._parts(index, dims)
            faces = self.stored.array(index, FACES) if FACES in names and surface_points else None
            names.pop(FACES, None)
            found = _find_label({name: name for name in beside} | names, labels)
            label = None
            if found is not None:
                label = beside[found] if found in beside else self.stored.array(index, names[found])
            if features is None:
                chosen = [name for name in names if name not in (found, *LABEL_NAMES)]
                numbers = (name for name in chosen if self.stored.is_numbers(index, names[name]))
                arrays = {name: self.stored.array(index, names[name]) for name in numbers}
                unnamed = {name: array for name, array in beside.items() if name not in (found, *LABEL_NAMES)}
                parts = unnamed | {name: array for name, array in arrays.items() if _fits(array, len(pos))}
            else:
                of_faces = {"normal"} - names.keys() if faces is not None else set()
                own = [name for name in features if name not in of_faces]
                parts = {name: self._named(index, name, len(pos), names, beside) for name in own}
            if faces is not None:
                pos, parts, label = on_surface(pos, faces, parts, label, surface_points)
                parts = parts if features is None else {name: parts[name] for name in features}
            checked = {} if features is None else parts
            good = None if nan == "keep" else finite_rows(pos, checked, drop=nan == "drop")
            if good is None:
                return FoundCloud(pos, parts, label)
            left = {name: array[good] for name, array in parts.items()}
            label = label[good] if label is not None and label.ndim else label
            return FoundCloud(pos[good], left, label, len(good) - int(good.sum()))

    def _parts(self, index: int, dims: int | None) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, str]]:
        """Positions, unnamed columns under the names that were given for them, and the other names."""
        pos, names, beside = self.stored.array(index, self.stored.key), self.names(index), {}
        unnamed = next((name for name in FEATURES[0] if name in names), None)
        check_upright(pos.shape)
        if self._is_wide(index):
            pos, beside = pos[:, :3], self._unnamed(pos[:, 3:])
        elif self.columns and unnamed is not None:
            beside = self._unnamed(self._array(index, names.pop(unnamed), len(pos)))
        return as_positions(pos, dims), beside, names

    def _unnamed(self, found: np.ndarray) -> dict[str, np.ndarray]:
        if not self.columns:
            return {UNNAMED: found}
        found = found.reshape(len(found), -1)
        ends = np.cumsum([0, *(WIDTHS.get(name, 1) for name in self.columns)]).tolist()
        if ends[-1] != found.shape[1]:
            names = ", ".join(self.columns)
            raise ValueError(f"columns {names} are {ends[-1]} values a point, it has {found.shape[1]} without a name")
        parts = zip(self.columns, ends[:-1], ends[1:], strict=True)
        return {name: found[:, low] if high == low + 1 else found[:, low:high] for name, low, high in parts}

    def _named(
        self, index: int, wanted: str, points: int, names: Mapping[str, str], beside: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """The feature of a name, which may be ours or the file's, in upper or lower case."""
        name = next((name for name in (wanted, feature_name(wanted)) if name in names or name in beside), None)
        if name is None:
            hint = "; name the further columns with columns" if UNNAMED in beside else ""
            error = missing_feature(wanted, [*beside, *names])
            raise UnreadableSample(f"{error}{hint}")
        value = beside[name] if name in beside else self._array(index, names[name], points)
        if name in WIDTHS and value.shape[1:] != (WIDTHS[name],):
            raise UnreadableSample(f"{wanted} is {value.shape}, expected ({points}, {WIDTHS[name]})")
        return value

    def _array(self, index: int, key: str, points: int) -> np.ndarray:
        value = self.stored.array(index, key)
        if value.dtype.kind == "c":
            raise ValueError(f"{key} are {value.dtype}, expected numbers")
        if not _fits(value, points):
            raise ValueError(f"{key} is {value.shape}, which does not match {points} points")
        return value


@contextmanager
def unreadable() -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes as an UnreadableSample."""
    try:
        yield
    except (ImportError, UnreadableSample):
        raise
    except Exception as e:
        raise UnreadableSample(one_line(e)) from e


def _find_label(names: Mapping[str, str], labels: Sequence[str]) -> str | None:
    lower = {key.lower(): name for name, key in names.items()}
    return next((lower[name.lower()] for name in labels if name.lower() in lower), None)


def _fits(value: np.ndarray, points: int) -> bool:
    return value.ndim in (1, 2) and len(value) == points
