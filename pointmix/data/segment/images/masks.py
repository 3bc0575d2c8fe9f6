"""Label masks in files: from their values or colors to classes.

Three things can be wrong with a mask. One that cannot be decoded, or labels no pixel, is skipped and counted as a
damaged image is (`UnreadableSample`). One that contradicts its image or the settings would go wrong for every other
file too, so it stops the run (`BadMask`): another size, colors where labels are expected or the reverse, a value
without a class. A missing one is an error when the source is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Int, Int64, Integer, UInt8

from pointmix.data.images.mask_values import read_values
from pointmix.data.segment.images.palettes import Palette
from pointmix.data.segment.sample import IGNORE, ignored_label
from pointmix.io.errors import BadMask, UnreadableSample

VALUES = 1 << 16  # masks have 16 bits at most
HINT = "; for a mask in color, name its colors in a file with a line `R G B name` a class: --data.palette_file FILE"
UNKNOWN = -2  # in tables: a value without a class


@dataclass(frozen=True)
class MaskReader:
    """Reads label masks.

    Args:
        table: class of each value of the files, `IGNORE` or UNKNOWN.
        rule: where the table comes from, for messages.
        palette: instead, colors of the classes in the files.
    """

    table: Int[np.ndarray, " V"]
    rule: str
    palette: Palette | None = None

    def read(self, path: str | Path, size: tuple[int, int]) -> Int64[np.ndarray, "H W"]:
        """The classes in a mask file for an image of `size` (rows, columns).

        Raises:
            BadMask: if it has another size, colors where values are expected or the reverse, or a value or color that
                has no class.
            UnreadableSample: if it cannot be decoded, or every pixel is ignored.
        """
        values = read_values(Path(path), size, colors=self.palette is not None, hint=HINT)
        label = self._of_colors(path, values) if values.ndim == 3 else self._of_values(path, values)
        if (label == IGNORE).all():
            raise UnreadableSample(f"mask {path}: every pixel is ignored ({self.rule})")
        return label

    def _of_values(self, path: str | Path, values: Integer[np.ndarray, "H W"]) -> Int64[np.ndarray, "H W"]:
        outside = (values < 0) | (values >= VALUES)
        label = self.table[np.where(outside, 0, values)]
        unknown = outside | (label == UNKNOWN)
        if unknown.any():
            self._refuse(path, values, unknown)
        return label.astype(np.int64)

    def _of_colors(self, path: str | Path, values: UInt8[np.ndarray, "H W 3"]) -> Int64[np.ndarray, "H W"]:
        codes, label_of = self._codes
        code = values.astype(np.int64) @ (1 << 16, 1 << 8, 1)  # (H, W)
        place = np.searchsorted(codes, code).clip(max=len(codes) - 1)
        unknown = codes[place] != code
        if unknown.any():
            self._refuse(path, values, unknown)
        return label_of[place]

    @cached_property
    def _codes(self) -> tuple[Int64[np.ndarray, " C"], Int64[np.ndarray, " C"]]:
        """Sorted codes of all colors, and the class of each."""
        assert self.palette is not None
        colors = np.array([*self.palette.colors, *self.palette.ignored], dtype=np.int64)
        label = np.append(np.arange(len(self.palette.colors)), np.full(len(self.palette.ignored), IGNORE))
        codes = colors @ (1 << 16, 1 << 8, 1)
        order = codes.argsort()
        return codes[order], label[order]

    def _refuse(self, path: str | Path, values: np.ndarray, unknown: np.ndarray) -> NoReturn:
        row, col = np.argwhere(unknown)[0].tolist()
        found = values[row, col].tolist()
        what = f"label {found}" if values.ndim == 2 else f"color {tuple(found)}"
        more = int(unknown.sum())
        raise BadMask(
            f"mask {path}: {what} at row {row}, column {col} (and {more - 1} more pixels) has no class: {self.rule}"
        )


def mask_reader(
    num_classes: int,
    *,
    label_map: Mapping[int, int] | None = None,
    label_starts: Sequence[int] | None = None,
    reduce_zero_label: bool | None = None,
    ignore_index: int | None = None,
    palette: Palette | None = None,
) -> MaskReader:
    """The reader for these settings, see `pointmix.data.segment.config.SegmentDataConfig`.

    Args:
        num_classes: K, classes are 0 to K - 1.
        palette: of masks in color, see `pointmix.data.segment.images.palettes.read_palette`.

    Raises:
        ValueError: if settings contradict each other, or name a class beyond K.
    """
    chosen = {
        "data.palette_file": palette is not None,
        "data.label_map": label_map is not None,
        "data.label_starts": label_starts is not None,
        "data.reduce_zero_label": bool(reduce_zero_label),
    }
    if sum(chosen.values()) > 1:
        raise ValueError(f"{' and '.join(name for name in chosen if chosen[name])} are set; expected one of them")
    if palette is not None:
        return MaskReader(np.empty(0, dtype=np.int64), f"data.palette_file has {num_classes} classes", palette)
    if label_map is not None:
        table, rule = _mapped(label_map, num_classes), "no label of data.label_map occurs"
    elif label_starts is not None:
        table, rule = _ranges(label_starts, num_classes), "no label reaches data.label_starts"
    else:
        first = int(bool(reduce_zero_label))
        ignored = ignored_label(ignore_index, num_classes, first=first)
        table = np.full(VALUES, UNKNOWN)
        table[first : first + num_classes] = np.arange(num_classes)
        table[:first] = IGNORE
        if ignored < VALUES:
            table[ignored] = IGNORE
        rule = f"labels are {first} to {first + num_classes - 1}, {'0 and ' * first}{ignored} ignored"
    return MaskReader(table, rule)


def _mapped(label_map: Mapping[int, int], num_classes: int) -> Int64[np.ndarray, " V"]:
    table = np.full(VALUES, IGNORE)
    for value, label in label_map.items():
        if not 0 <= int(value) < VALUES or not IGNORE <= int(label) < num_classes:
            raise ValueError(
                f"data.label_map {value}: {label}; expected labels from 0 to {VALUES - 1} and classes from -1 to "
                f"{num_classes - 1}"
            )
        table[int(value)] = int(label)
    return table


def _ranges(starts: Sequence[int], num_classes: int) -> Int64[np.ndarray, " V"]:
    if len(starts) != num_classes or list(starts) != sorted(set(starts)):
        raise ValueError(
            f"data.label_starts {tuple(starts)}: expected {num_classes} rising numbers, one for each class"
        )
    return np.searchsorted(starts, np.arange(VALUES), side="right") - 1
