"""The content of a page: dataclasses of arrays and plain values, and their JSON.

N points are shown. A block has S points of its own, in windows of M centers each, K centers in all; every shown point
has the cluster of the block's nearest point.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt16

from pointmix.utils.json_values import Json

VERSION = 1
DTYPES = {"uint8": "u8", "uint16": "u16", "uint32": "u32", "float32": "f32"}
Index = np.ndarray  # uint16 or uint32


@dataclass(frozen=True)
class Lattice:
    """Points on a lattice: the pixels of an image, of a partial image, or of an RGB-D frame.

    Args:
        count, given: points that are shown, and points of the input.
        color: of the points, 0 to 255.
        height, width: of the shown lattice.
        step: it has every step-th row and column of the input.
        pixel: (N,) row * width + column of each point; other pixels have no point.
    """

    count: int
    given: int
    color: UInt8[np.ndarray, "N 3"]
    height: int
    width: int
    step: int
    pixel: Index


@dataclass(frozen=True)
class Scattered:
    """Points of a cloud.

    Args:
        count, given, color: as of a `Lattice`.
        position: in a right-handed frame whose third axis is up: low + scale * position, in the units of the input.
        low, scale: of the positions.
        light: brightness of each point by the slope of its surface, 255 is full.
    """

    count: int
    given: int
    color: UInt8[np.ndarray, "N 3"]
    position: UInt16[np.ndarray, "N 3"]
    low: tuple[float, float, float]
    scale: float
    light: UInt8[np.ndarray, "N"]


@dataclass(frozen=True)
class Guess:
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class BlockView:
    """The clusters of one block.

    Args:
        name: such as "stage 1, block 2".
        stage, block: their numbers, from 0.
        kind: "hard": a point exchanges with its center alone; "soft": with several, the one of the largest weight is
            shown.
        points, windows, centers: S, the number of windows, and M.
        trivial: there are at least as many centers as points, so that nothing is grouped.
        nearest: (N,) the block's point nearest to each shown point.
        window: (S,) of each point of the block.
        center: (S, E) of each point in each head.
        weight: (S, E) of the point there; 255 is 1.
        center_position: (K, 2) float32 row and column in pixels of the lattice, or (K, 3) uint16 in the box of a cloud.
        color: of each cluster in each head; neighbors differ.
    """

    name: str
    stage: int
    block: int
    kind: Literal["hard", "soft"]
    points: int
    windows: int
    centers: int
    trivial: bool
    nearest: Index
    window: Index
    center: Index
    weight: UInt8[np.ndarray, "S E"]
    center_position: Float[np.ndarray, "K 2"] | UInt16[np.ndarray, "K 3"]
    color: UInt8[np.ndarray, "E K 3"]


@dataclass(frozen=True)
class Reduced:
    """Clusters of several blocks reduced to a few.

    Args:
        name: what was reduced, and how.
        label: of P points, from 0.
        nearest: (N,) of these the one nearest to each shown point.
        color: of each label.
    """

    name: str
    label: UInt8[np.ndarray, "P"]
    nearest: Index | None
    color: UInt8[np.ndarray, "k 3"]


@dataclass(frozen=True)
class ValueMap:
    """One number for each point.

    Args:
        name: what it is.
        value: of P points, 0 for `low` to 255 for `high`.
        nearest: (N,) of these the one nearest to each shown point; None: P = N.
        low, high: the range of the numbers.
    """

    name: str
    value: UInt8[np.ndarray, "P"]
    nearest: Index | None
    low: float
    high: float


@dataclass(frozen=True)
class Epoch:
    """What the network does with one set of weights: an epoch of its training, or the weights of a run."""

    label: str
    guess: Sequence[Guess]
    blocks: Sequence[BlockView]
    reduced: Reduced | None
    maps: Sequence[ValueMap]


@dataclass(frozen=True)
class View:
    """All of a page.

    Args:
        title, subtitle: of the page.
        notes: sentences on what is left out.
        truth: name of the true class, if it is known.
        kind: which of the two kinds `points` is.
        points: what is shown.
        epochs: one or more, in the order of training.
    """

    title: str
    subtitle: str
    notes: Sequence[str]
    truth: str | None
    kind: Literal["lattice", "cloud"]
    points: Lattice | Scattered
    epochs: Sequence[Epoch]


def to_json(view: View) -> dict[str, Json]:
    """The content of a page as JSON values. `arrays` has each different array once, little endian in base64; elsewhere
    an array is an index into it."""
    arrays: list[Json] = []
    known: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def plain(value: object) -> Json:
        if isinstance(value, np.ndarray):
            little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
            key = DTYPES[value.dtype.name], value.shape, little.tobytes()
            if key not in known:
                known[key] = len(arrays)
                data = base64.b64encode(key[2]).decode()
                arrays.append({"dtype": key[0], "shape": list(key[1]), "data": data})
            return known[key]
        if is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return {"version": VERSION, **plain(view), "arrays": arrays}


def index(values: Int[np.ndarray, "..."]) -> Index:
    """Indices in the smaller of the two types that holds them."""
    return values.astype(np.uint16 if values.max(initial=0) < 2**16 else np.uint32)


def as_bytes(values: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Values from 0 to 1 as bytes."""
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
