"""Farthest points and nearest neighbors of one set by a k-d tree, compiled by numba.

The tree is balanced, so it needs no pointers: node 1 is the root, 2 i and 2 i + 1 are the children of i, and the
leaves, all on one level, are blocks of up to LEAF points, padded with points at infinity. Each node has the bounding
box of its points. Distances are rounded as in `pointmix.ops.ragged.squared_distance`, and so are those to boxes:
rounding is monotonic, so the distance to a box never exceeds that to a point inside, and the results are exact.

Everything is in one file, because numba recompiles what it has cached only when a function's own file changes.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from pointmix.ops.kernels.jit import compiled

Tree = tuple[Float[ndarray, "leaves D LEAF"], Int[ndarray, "leaves LEAF"], Float[ndarray, "nodes 2 D"]]
LEAF = 32
NONE = np.iinfo(np.int64).max  # index of padding, sorts after all points


@compiled
def build(x: Float[ndarray, "N D"]) -> Tree:
    """Blocks (leaves, D, LEAF), the index of their points in x (leaves, LEAF), and the boxes (nodes, 2, D)."""
    total, dims = x.shape
    levels = 0
    while total > LEAF << levels:
        levels += 1
    leaves = 1 << levels
    points, x, order = x, x.copy(), np.arange(total)
    boxes = np.empty((2 * leaves, 2, dims), x.dtype)
    for level in range(levels + 1):
        for i in range(1 << level):
            begin, end = (i * total) >> level, ((i + 1) * total) >> level
            box, widest = boxes[(1 << level) + i], 0
            for a in range(dims):
                low = high = x[begin, a]
                for n in range(begin + 1, end):
                    low, high = min(low, x[n, a]), max(high, x[n, a])
                box[0, a], box[1, a] = low, high
                if high - low > box[1, widest] - box[0, widest]:
                    widest = a
            if level < levels:
                split(x, order, begin, end, ((2 * i + 1) * total) >> (level + 1), widest)
    blocks, index = np.full((leaves, dims, LEAF), np.inf, x.dtype), np.full((leaves, LEAF), NONE)
    for leaf in range(leaves):
        begin, end = (leaf * total) >> levels, ((leaf + 1) * total) >> levels
        for i in range(end - begin):
            slot = i
            while slot > 0 and index[leaf, slot - 1] > order[begin + i]:  # the lower index first
                index[leaf, slot] = index[leaf, slot - 1]
                slot -= 1
            index[leaf, slot] = order[begin + i]
        for slot in range(end - begin):
            for a in range(dims):
                blocks[leaf, a, slot] = points[index[leaf, slot], a]
    return blocks, index, boxes


@compiled
def split(x: Float[ndarray, "N D"], order: Int[ndarray, "N"], begin: int, end: int, middle: int, axis: int) -> None:
    """Order the points from begin to end so that none before the middle is above one from there on."""
    end -= 1
    while begin < end:
        pivot, i, j = x[(begin + end) >> 1, axis], begin, end
        while i <= j:
            while x[i, axis] < pivot:
                i += 1
            while x[j, axis] > pivot:
                j -= 1
            if i <= j:
                for a in range(x.shape[1]):
                    x[i, a], x[j, a] = x[j, a], x[i, a]
                order[i], order[j] = order[j], order[i]
                i, j = i + 1, j - 1
        if middle <= j:
            end = j
        elif middle >= i:
            begin = i
        else:
            return


@compiled
def to_box(x, n, boxes, node):
    """Squared distance of point n of x (N, D) to a box."""
    t = x[n, 0] - min(max(x[n, 0], boxes[node, 0, 0]), boxes[node, 1, 0])
    d = t * t
    for a in range(1, x.shape[1]):
        t = x[n, a] - min(max(x[n, a], boxes[node, 0, a]), boxes[node, 1, a])
        d += t * t
    return d


@compiled
def to_point(x, n, y, m):
    """Squared distance of point n of x (N, D) to point m of y (M, D)."""
    t = x[n, 0] - y[m, 0]
    d = t * t
    for a in range(1, x.shape[1]):
        t = x[n, a] - y[m, a]
        d += t * t
    return d


@compiled
def to_block(x, n, blocks, leaf, d):
    """Squared distances of point n of x (N, D) to those of a block, written to d (LEAF,)."""
    for slot in range(LEAF):
        t = x[n, 0] - blocks[leaf, 0, slot]
        d[slot] = t * t
    for a in range(1, x.shape[1]):
        for slot in range(LEAF):
            t = x[n, a] - blocks[leaf, a, slot]
            d[slot] += t * t


@compiled
def farthest(x: Float[ndarray, "N D"], number: int, start: int) -> Int[ndarray, "number"]:
    """Indices of farthest points, as `pointmix.ops.sampling.farthest_points_reference` picks them.

    Each node stores which of its points is farthest from all picks. A node whose box is at least that far from a new
    pick is not visited.
    """
    blocks, index, boxes = build(x)
    leaves, dims, picked = len(blocks), x.shape[1], x.dtype.type(-1)
    cells = np.empty((leaves, dims + 1, LEAF), x.dtype)  # a block with the distances to the nearest pick
    pick = 0  # its position in the leaves
    for leaf in range(leaves):
        for slot in range(LEAF):
            for a in range(dims):
                cells[leaf, a, slot] = blocks[leaf, a, slot]
            cells[leaf, dims, slot] = picked if index[leaf, slot] == NONE else np.inf
            if index[leaf, slot] == start:
                pick = leaf * LEAF + slot
    far, which = np.full(2 * leaves, np.inf, x.dtype), np.empty(2 * leaves, np.int64)  # of each node
    stack, opened = np.empty(64, np.int64), np.empty(leaves, np.int64)
    point, near = np.empty((1, dims), x.dtype), np.empty(LEAF, x.dtype)
    picks = np.empty(number, np.int64)
    for count in range(number):
        picks[count] = index[pick // LEAF, pick % LEAF]
        if count and far[1] == 0:
            rest(cells[:, dims], index, picks, count)
            break
        for a in range(dims):
            point[0, a] = cells[pick // LEAF, a, pick % LEAF]
        depth, many, stack[0] = 1, 0, 1
        while depth:
            depth -= 1
            node = stack[depth]
            if count and to_box(point, 0, boxes, node) >= far[node]:  # the first pick updates all nodes
                continue
            if node < leaves:
                opened[many] = node
                many += 1
                stack[depth], stack[depth + 1] = 2 * node, 2 * node + 1
                depth += 2
                continue
            leaf, most, best = node - leaves, picked, 0
            to_block(point, 0, cells, leaf, near)
            for slot in range(LEAF):
                here = min(cells[leaf, dims, slot], near[slot])
                if leaf * LEAF + slot == pick:
                    here = picked
                cells[leaf, dims, slot] = here
                if here > most:
                    most, best = here, slot
            far[node], which[node] = most, leaf * LEAF + best
        for n in range(many - 1, -1, -1):  # children before their parents
            node, best = opened[n], 2 * opened[n]
            if far[best + 1] > far[best] or (far[best + 1] == far[best] and lower(index, which[best + 1], which[best])):
                best += 1
            far[node], which[node] = far[best], which[best]
        pick = which[1]
    return picks


@compiled
def lower(index, one, other):
    """Whether the first of two positions in the leaves holds the point of lower index."""
    return index[one // LEAF, one % LEAF] < index[other // LEAF, other % LEAF]


@compiled
def rest(d, index, picks, count):
    """Fill the picks from count on with the points that coincide with picks, whose distance is zero, by index."""
    left = np.zeros(index.size, np.bool_)
    for leaf in range(len(index)):
        for slot in range(LEAF):
            if d[leaf, slot] == 0:
                left[index[leaf, slot]] = True
    for i in range(len(left)):
        if left[i] and count < len(picks):
            picks[count] = i
            count += 1


@compiled
def nearest(
    x: Float[ndarray, "N D"],
    tree: Tree,
    queries: Float[ndarray, "M D"],
    order: Int[ndarray, "Q"],
    k: int,
    out: Int[ndarray, "M k"],
) -> None:
    """Write the k nearest points, or all if there are fewer, of some queries into their rows of out.

    `order` lists the queries, with close ones together, so that the neighbors of one bound those of the next.
    """
    blocks, index, boxes = tree
    leaves, k = len(blocks), min(k, len(x))
    d, found, count = np.empty(k, x.dtype), np.empty(k, np.int64), 0  # of one query, by distance, then index
    near = np.empty(LEAF, x.dtype)
    stack, bounds = np.empty(64, np.int64), np.empty(64, x.dtype)
    for query in order:
        worst, tie = x.dtype.type(np.inf), NONE  # distance and index of the k-th neighbor, or an upper bound of it
        if count:
            worst = x.dtype.type(0)
            for n in range(k):
                worst = max(worst, to_point(queries, query, x, found[n]))
        depth, count, stack[0], bounds[0] = 1, 0, 1, 0
        while depth:
            depth -= 1
            node = stack[depth]
            if bounds[depth] > worst:
                continue
            if node < leaves:
                left, right = to_box(queries, query, boxes, 2 * node), to_box(queries, query, boxes, 2 * node + 1)
                first = left < right  # the nearer child is visited first
                stack[depth], bounds[depth] = 2 * node + first, max(left, right)
                stack[depth + 1], bounds[depth + 1] = 2 * node + 1 - first, min(left, right)
                depth += 2
                continue
            leaf = node - leaves
            to_block(queries, query, blocks, leaf, near)
            for slot in range(LEAF):
                here, i = near[slot], index[leaf, slot]
                if here > worst or (here == worst and i >= tie):
                    continue
                n = min(count, k - 1)
                while n > 0 and d[n - 1] > here:
                    d[n], found[n] = d[n - 1], found[n - 1]
                    n -= 1
                while n > 0 and d[n - 1] == here and found[n - 1] > i:
                    d[n], found[n] = d[n - 1], found[n - 1]
                    n -= 1
                d[n], found[n] = here, i
                count = min(count + 1, k)
                if count == k:
                    worst, tie = d[k - 1], found[k - 1]
        out[query, :k] = found
