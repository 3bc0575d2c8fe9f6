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
BAND = 0.95  # squared distances of the points that are picked in one pass, relative to the largest
NONE = np.iinfo(np.int64).max  # index of padding, sorts after all points


@compiled
def build(x: Float[ndarray, "N D"]) -> Tree:
    """Blocks (leaves, D, LEAF), the index of their points in x (leaves, LEAF), and the boxes (nodes, 2, D).

    Nodes are split depth first, so that most of the work is on points that lie in the caches.
    """
    total, dims = x.shape
    levels = 0
    while total > LEAF << levels:
        levels += 1
    leaves = 1 << levels
    x, order, place = x.copy(), np.arange(total), np.empty(LEAF, np.int64)
    boxes = np.empty((2 * leaves, 2, dims), x.dtype)
    blocks, index = np.full((leaves, dims, LEAF), np.inf, x.dtype), np.full((leaves, LEAF), NONE)
    for leaf in range(leaves):
        begin = end = 0
        for level in range(levels + 1):
            i = leaf >> (levels - level)
            if i << (levels - level) != leaf:  # only at the first leaf of a node
                continue
            begin, end = (i * total) >> level, ((i + 1) * total) >> level
            box, widest = boxes[(1 << level) + i], 0
            for a in range(dims):
                low = high = x[begin, a]
                for n in range(begin + 1, end):
                    low, high = (x[n, a] if x[n, a] < low else low), (x[n, a] if x[n, a] > high else high)
                box[0, a], box[1, a] = low, high
                if high - low > box[1, widest] - box[0, widest]:
                    widest = a
            if level < levels:
                split(x, order, begin, end, ((2 * i + 1) * total) >> (level + 1), widest)
        for i in range(end - begin):
            slot = i
            while slot > 0 and index[leaf, slot - 1] > order[begin + i]:  # the lower index first
                index[leaf, slot], place[slot] = index[leaf, slot - 1], place[slot - 1]
                slot -= 1
            index[leaf, slot], place[slot] = order[begin + i], begin + i
        for slot in range(end - begin):
            for a in range(dims):
                blocks[leaf, a, slot] = x[place[slot], a]
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
    d = x.dtype.type(0)
    for a in range(x.shape[1]):
        below, above = boxes[node, 0, a] - x[n, a], x[n, a] - boxes[node, 1, a]
        t = below if below > above else above
        d += t * t if t > 0 else x.dtype.type(0)
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
def farthest(x: Float[ndarray, "N D"], number: int, start: int) -> tuple[Int[ndarray, "K"], Float[ndarray, "K"]]:
    """At least `number` farthest points, and their squared distances from the picks before them.

    Sorted by distance, the largest first, and then by index, they are those that
    `pointmix.ops.sampling.farthest_points_reference` picks, in its order.

    A point can be picked before its turn if no point whose turn comes earlier is so near that the pick of one changes
    the distance of the other. This allows to walk from leaf to leaf and to pick all points beyond some distance on the
    way, then those beyond a smaller one. One pick then finds in the caches what the one before it has read, while
    picks in order lie anywhere.
    """
    blocks, index, boxes = build(x)
    leaves, dims, picked = len(blocks), x.shape[1], x.dtype.type(-1)
    cells = np.empty((leaves, dims + 1, LEAF), x.dtype)  # a block with the distances to the nearest pick
    for leaf in range(leaves):
        for slot in range(LEAF):
            for d in range(dims):
                cells[leaf, d, slot] = blocks[leaf, d, slot]
            cells[leaf, dims, slot] = picked if index[leaf, slot] in (start, NONE) else np.inf
    far = np.empty(2 * leaves, x.dtype)  # the largest distance in each node
    point, near = x[start : start + 1].copy(), np.empty(LEAF, x.dtype)
    for leaf in range(leaves):
        far[leaves + leaf] = update(cells, leaf, point, near)
    for node in range(leaves - 1, 0, -1):
        far[node] = max(far[2 * node], far[2 * node + 1])
    walk, stack, opened = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(2 * leaves, np.int64)
    picks, away, count = np.empty(len(x), np.int64), np.empty(len(x), x.dtype), 1
    picks[0], away[0] = start, np.inf
    while count < number and far[1] > 0:
        least = far[1] * x.dtype.type(BAND)
        depth, walk[0] = 1, 1
        while depth:
            depth -= 1
            node = walk[depth]
            if node < leaves and far[node] >= least:
                walk[depth], walk[depth + 1] = 2 * node + 1, 2 * node
                depth += 2
            while node >= leaves and far[node] >= least:
                leaf, slot, inner, outer = next_pick(
                    cells, index, boxes, far, node - leaves, point, near, stack, opened
                )
                picks[count], away[count] = index[leaf, slot], cells[leaf, dims, slot]
                cells[leaf, dims, slot] = picked
                count += 1
                for n in range(outer, len(opened)):
                    far[opened[n]] = update(cells, opened[n] - leaves, point, near)
                for n in range(inner - 1, -1, -1):  # children before their parents
                    one, other = far[2 * opened[n]], far[2 * opened[n] + 1]
                    far[opened[n]] = one if one > other else other
    if count < number:
        count = rest(cells[:, dims], index, picks, away, count, number)
    return picks[:count], away[:count]


@compiled
def update(cells, leaf, point, near):
    """Lower the distances of a block's points to those from a new pick; returns the largest."""
    dims, most = cells.shape[1] - 1, cells.dtype.type(-1)
    to_block(point, 0, cells, leaf, near)
    for slot in range(LEAF):
        d = cells[leaf, dims, slot]
        d = near[slot] if near[slot] < d else d
        cells[leaf, dims, slot], most = d, d if d > most else most
    return most


@compiled
def next_pick(cells, index, boxes, far, leaf, point, near, stack, opened):
    """Leaf and slot of a point that can be picked, and how many nodes its pick may change.

    Starts from the farthest point of the leaf and goes over to one before it in the order of picks while one of the two
    would change the other's distance. Of the nodes, those with children stand at the beginning of `opened`, parents
    first, and leaves at its end. The coordinates of the pick are written to `point`.
    """
    leaves, dims = len(cells), cells.shape[1] - 1
    slot = 0
    while cells[leaf, dims, slot] != far[leaves + leaf]:
        slot += 1
    while True:
        d, which = cells[leaf, dims, slot], index[leaf, slot]
        for a in range(dims):
            point[0, a] = cells[leaf, a, slot]
        node, depth, inner, outer = leaves + leaf, 0, 0, len(opened)
        while node > 1:  # the siblings of the nodes above
            stack[depth + 1] = node ^ 1
            node, depth = node >> 1, depth + 1
        for n in range(depth):
            opened[n] = (leaves + leaf) >> (depth - n)
        stack[0], inner, depth = leaves + leaf, depth, depth + 1
        moved = False
        while depth and not moved:
            depth -= 1
            node = stack[depth]
            if to_box(point, 0, boxes, node) >= far[node]:
                continue
            if node < leaves:
                opened[inner] = node
                stack[depth], stack[depth + 1] = 2 * node, 2 * node + 1
                inner, depth = inner + 1, depth + 2
                continue
            outer -= 1
            opened[outer] = node
            if far[node] < d:
                continue
            to_block(point, 0, cells, node - leaves, near)
            for s in range(LEAF):
                here = cells[node - leaves, dims, s]
                if here >= d and near[s] < here and (here > d or index[node - leaves, s] < which):
                    d, which, leaf, slot, moved = here, index[node - leaves, s], node - leaves, s, True
        if not moved:
            return leaf, slot, inner, outer


@compiled
def rest(d, index, picks, away, count, number):
    """Add points that coincide with picks, whose distance is zero, by index; returns the new count."""
    left = np.zeros(index.size, np.bool_)
    for leaf in range(len(index)):
        for slot in range(LEAF):
            if d[leaf, slot] == 0:
                left[index[leaf, slot]] = True
    for i in range(len(left)):
        if left[i] and count < number:
            picks[count], away[count] = i, 0
            count += 1
    return count


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
        for n in range(k):
            out[query, n] = found[n]
