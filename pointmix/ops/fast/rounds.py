"""Farthest points of one set in a number of rounds that grows with the logarithm of the picks.

A pick only changes the distances of points near it, so the picks of one greedy step after the other can be found many
at a time, and still be the same ones in the same order:

* Let t be a little less than the largest distance. As long as some distance is above t, the next pick is one of the
  candidates, the points with a distance above t, and only picks among them can change their distances.
* A candidate is certain to be picked with the distance that it has now, if no candidate that comes before it (of
  larger distance, or equal and lower index) is near enough to lower that distance.
* Distances never grow, so the greedy order of the picks is that of their distances when picked, then of their index.

A k-d tree finds the pairs that are near enough. All comparisons are between distances as the plain form rounds them;
the tree only has to find at least the pairs that matter.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial import cKDTree

FIRST = 4  # times 4^D, picks taken one by one before the first round: until then most points are near most picks
BELOW = 0.75  # t as a share of the largest distance
PAIRS = 2**22  # held at a time, by each thread
SHARED = 256  # picks from which on threads share them


def farthest(x: Float[ndarray, "N D"], number: int, start: int, threads: int = 1) -> Int[ndarray, "number"]:
    """Indices of `number` farthest points, as `pointmix.ops.sampling.farthest_points_plain` picks them."""
    axes = np.ascontiguousarray(x.T)  # (D, N)
    d = np.full(len(x), np.inf, x.dtype)  # to the nearest pick; -1 for a pick
    picks = np.empty(number, np.int64)
    cached = [slice(i, i + 2**14) for i in range(0, len(x), 2**14)]  # so many at a time stay in the processor's cache
    tree, first = None, FIRST * 4 ** len(axes)
    count, pick = 0, start
    while True:
        picks[count] = pick
        for part in cached:
            np.minimum(d[part], squared(axes[:, part], axes[:, pick, None]), out=d[part])
        d[pick] = -1
        count += 1
        while count < number:
            pick = d.argmax()
            if d[pick] == 0:  # the rest coincides with picks
                picks[count:] = np.flatnonzero(d == 0)[: number - count]
                return picks
            new = None if count < first else one_round(axes, d, d[pick], 16 * count + 1024)
            if new is None:
                break
            new = new[: number - count]
            picks[count : count + len(new)] = new
            count += len(new)
            if count == number:
                return picks
            if tree is None:
                order = cKDTree(x).indices
                tree = cKDTree(x[order], leafsize=16)  # with neighbors side by side in memory
            lower(axes, d, tree, order, new, reach(d[pick], len(axes)), threads)
        if count == number:
            return picks


def one_round(axes: Float[ndarray, "D N"], d: Float[ndarray, "N"], top: float, most: int) -> ndarray | None:
    """The next picks in order, or None if too many points compete for a round to be worth it."""
    below = top * d.dtype.type(BELOW)
    candidates = np.flatnonzero(d > below)
    if len(candidates) > most:
        below = np.partition(d[candidates], -most)[-most]
        candidates = candidates[d[candidates] > below]
    if len(candidates) == 0:
        return None  # more than `most` are at the same largest distance
    x, value = axes[:, candidates], d[candidates]
    tree, radius = cKDTree(x.T), reach(top, len(axes))
    if len(candidates) ** 2 > PAIRS and 16 * tree.count_neighbors(cKDTree(x.T[::16]), radius) > PAIRS:
        return None
    a, b = tree.query_pairs(radius, output_type="ndarray").T
    near = squared(x[:, a], x[:, b])
    picked_at, open_ = np.zeros_like(value), np.ones(len(value), bool)
    while True:
        useful = open_[a] & open_[b] & (near < np.maximum(value[a], value[b]))
        a, b, near = a[useful], b[useful], near[useful]
        a_first = (value[a] > value[b]) | ((value[a] == value[b]) & (a < b))
        after = np.where(a_first, b, a)
        waiting = np.zeros(len(value), bool)
        waiting[after[near < value[after]]] = True
        now = open_ & ~waiting
        picked_at[now] = value[now]
        open_ &= waiting
        for pick, other in ((a, b), (b, a)):
            lowers = near < picked_at[pick]  # what is as far away was picked before it, or is lowered by another
            lowers &= now[pick]
            np.minimum.at(value, other[lowers], near[lowers])
        open_ &= value > below
        if not open_.any():
            break
    order = np.argsort(-picked_at, kind="stable")[: np.count_nonzero(picked_at)]
    return candidates[order]


def lower(
    axes: Float[ndarray, "D N"],
    d: Float[ndarray, "N"],
    tree: cKDTree,
    order: Int[ndarray, "N"],
    new: Int[ndarray, "K"],
    radius: float,
    threads: int,
) -> None:
    """Take the new picks into account in the distances of all points, in place; the tree holds these in an order."""

    def near(part: Int[ndarray, "K"]) -> tuple[Int[ndarray, "P"], Float[ndarray, "P"]]:
        """Points near some of the picks, and the distances of these pairs."""
        picked = cKDTree(axes[:, part].T, leafsize=8)
        pairs = tree.sparse_distance_matrix(picked, radius, output_type="ndarray")
        point, pick = order[pairs["i"]], part[pairs["j"]]
        return point, squared(axes[:, point], axes[:, pick])

    # These picks lie about a radius apart, so each point is near few of them: up to about 2^D.
    parts = -(-len(d) * 2 ** min(len(axes), 20) // PAIRS)
    if threads == 1 or len(new) < SHARED:
        found = map(near, np.array_split(new, min(parts, len(new))))
    else:
        parts = -(-parts // threads) * threads
        with ThreadPoolExecutor(threads) as pool:  # SciPy searches without the interpreter's lock
            found = list(pool.map(near, np.array_split(new, min(parts, len(new)))))
    for point, distance in found:
        np.minimum.at(d, point, distance)
    d[new] = -1


def squared(x: Float[ndarray, "D K"], y: Float[ndarray, "D K"]) -> Float[ndarray, "K"]:
    """|x - y|^2, rounded as `pointmix.ops.ragged.squared_distance` does."""
    d = np.square(x[0] - y[0])
    for a, b in zip(x[1:], y[1:], strict=True):
        d += np.square(a - b)
    return d


def reach(distance: float, dims: int) -> float:
    """A radius that holds every pair whose squared distance, as rounded, is below this one."""
    info = np.finfo(type(distance))
    return float(distance) ** 0.5 * (1 + (dims + 8) * float(info.eps)) + 4 * float(info.tiny) ** 0.5
