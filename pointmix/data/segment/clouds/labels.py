"""Labels in files of clouds: from their numbers to classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped

from pointmix.data.segment.sample import IGNORE
from pointmix.io.errors import BadMask


@dataclass(frozen=True)
class LabelRule:
    """How labels of files become classes.

    Args:
        num_classes: K; classes are 0 to K - 1.
        label_map: label -> class, or `IGNORE`; labels that are not named are ignored. None: labels are classes.
        ignore_index: a label that is ignored, beside `IGNORE` itself.
        reduce_zero_label: label 0 is ignored, and classes count from label 1.
        nan: "refuse" labels that are NaN, as programs write them for points without one, or "drop": ignore them.

    Raises:
        ValueError: if label_map names a class beyond K, or both it and reduce_zero_label are given.
    """

    num_classes: int
    label_map: Mapping[int, int] | None = None
    ignore_index: int = 255
    reduce_zero_label: bool = False
    nan: str = "refuse"

    def __post_init__(self) -> None:
        for label, to in (self.label_map or {}).items():
            if not IGNORE <= to < self.num_classes:
                raise ValueError(
                    f"data.label_map {label}: {to}; expected a class from 0 to {self.num_classes - 1} or -1"
                )
        if self.label_map is not None and self.reduce_zero_label:
            raise ValueError("data.label_map and data.reduce_zero_label are both set; expected one of them")

    def classes_of(self, found: Shaped[np.ndarray, "N ..."], points: int, where: str) -> Int64[np.ndarray, " N"]:
        """The class of each point, or `IGNORE`.

        Args:
            found: labels of a file, (N,) or (N, 1).
            points: N, points of the cloud.
            where: what messages call the file.

        Raises:
            BadMask: if there is not one whole number a point, or a label beyond the classes.
        """
        if found.shape not in ((points,), (points, 1)) or found.dtype.kind not in "uifb":
            what = f"labels are {found.shape} {found.dtype}"
            raise BadMask(f"{where}: {what}, expected a whole number for each of {points} points")
        found = found.reshape(-1)
        missing = np.isnan(found) if self.nan == "drop" and found.dtype.kind == "f" else np.zeros(points, bool)
        found = np.where(missing, 0, found)  # 0 is never refused
        with np.errstate(invalid="ignore"):  # floats beyond int64 become other numbers, which the next line finds
            raw = np.where(np.isfinite(found), found, np.iinfo(np.int32).min).astype(np.int64)
        if (wrong := raw != found).any():
            point = int(wrong.argmax())
            hint = "; data.nan drop ignores NaN" if np.isnan(found[point]) else ""
            raise BadMask(f"{where}: label {found[point]} at point {point}, expected whole numbers{hint}")
        if self.label_map is not None:
            return np.where(missing, IGNORE, self._mapped(raw))
        first = int(self.reduce_zero_label)
        ignored = (raw == IGNORE) | (raw == self.ignore_index) | (raw < first) & (raw >= 0)
        wrong = ~ignored & ((raw < first) | (raw >= first + self.num_classes))
        if wrong.any():
            point, last = int(wrong.argmax()), first + self.num_classes - 1
            raise BadMask(
                f"{where}: label {raw[point]} at point {point} (and {wrong.sum() - 1} more points), expected {first} "
                f"to {last}, {self.ignore_index} or -1; data.label_map says what other labels mean"
            )
        return np.where(ignored | missing, IGNORE, raw - first)

    def _mapped(self, raw: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        values, place = np.unique(raw, return_inverse=True)
        return np.array([(self.label_map or {}).get(value, IGNORE) for value in values.tolist()], np.int64)[place]
