"""Integer work on cells of lattices, compiled by numba; the reference forms are in `pointmix.layouts.cells`.

Cells of all lattices are numbered consecutively, row-major, and looked up in tables, so callers must make sure that
there are not many more cells than points.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from pointmix.ops.kernels.jit import compiled

Cells = Int[ndarray, "N 2"]


@compiled
def check_ptr(ptr: Int[ndarray, "B1"], sets: int, points: int) -> None:
    """Raise ValueError unless ptr rises from 0 to the number of points, so that no other memory is read."""
    rises = len(ptr) == sets + 1 and ptr[0] == 0 and ptr[-1] == points
    for b in range(sets):
        rises = rises and ptr[b] <= ptr[b + 1]
    if not rises:
        raise ValueError("ptr must rise from 0 to the number of points")


@compiled
def check(cell: Cells, ptr: Int[ndarray, "B1"], size: Int[ndarray, "B 2"]) -> None:
    """Raise ValueError unless ptr is one of these points and every cell lies in its lattice."""
    check_ptr(ptr, len(size), len(cell))
    for b in range(len(size)):
        for n in range(ptr[b], ptr[b + 1]):
            if not (0 <= cell[n, 0] < size[b, 0] and 0 <= cell[n, 1] < size[b, 1]):
                raise ValueError("a point lies on no cell of its lattice")


@compiled
def starts(size: Int[ndarray, "B 2"]) -> Int[ndarray, "B1"]:
    """The number of the first cell of each lattice, and that of all cells."""
    first = np.zeros(len(size) + 1, np.int64)
    for b in range(len(size)):
        first[b + 1] = first[b] + size[b, 0] * size[b, 1]
    return first


@compiled
def coarse_cells(
    cell: Cells, ptr: Int[ndarray, "B1"], size: Int[ndarray, "B 2"], stride: int, whole: int
) -> tuple[Cells, Int[ndarray, "B1"], Int[ndarray, "N'"], Int[ndarray, "N"]]:
    """Kept coarse cells, their ptr, the number of points in each, and the index of each point's kept cell or -1.

    All cells that hold a point are kept, or with `whole` (the value of a full cell) the fullest, as many as the points
    would fill.
    """
    check(cell, ptr, size)
    coarse, side = np.empty_like(size), 0
    for b in range(len(size)):
        for axis in range(2):
            coarse[b, axis], side = (size[b, axis] + stride - 1) // stride, max(side, size[b, axis])
    first, block = starts(coarse), np.empty(side, np.int64)
    for i in range(side):
        block[i] = i // stride
    held, parent = np.zeros(first[-1], np.int64), np.empty(len(cell), np.int64)
    for b in range(len(size)):
        for n in range(ptr[b], ptr[b + 1]):
            parent[n] = first[b] + block[cell[n, 0]] * coarse[b, 1] + block[cell[n, 1]]
            held[parent[n]] += 1
    place, new_ptr = np.empty(first[-1], np.int64), np.zeros(len(ptr), np.int64)  # place: -1 for dropped cells
    for b in range(len(size)):
        cells, lacking = np.empty((2, first[b + 1] - first[b]), np.int64)
        number = total = 0
        for key in range(first[b], first[b + 1]):
            place[key] = 0 if held[key] > 0 and whole == 0 else -1
            if held[key] > 0 and whole > 0:
                row = (key - first[b]) // coarse[b, 1]
                col = key - first[b] - row * coarse[b, 1]
                room = min(size[b, 0] - row * stride, stride) * min(size[b, 1] - col * stride, stride)
                filled, cells[number] = held[key] * (whole // room), key
                total += filled
                # ties are broken in a scrambled order, to spread over the lattice
                spread = (((key - cells[0]) * 0x9E3779B1) % 2**32) >> 12
                lacking[number] = ((whole - filled) * 2**20) // whole * 2**20 + spread
                number += 1
        if number > 0:
            room = min((total + whole - 1) // whole, number)
            last, high = np.int64(0), np.int64(2**41)  # what the last kept cell lacks, by bisection
            while last < high:
                middle, ahead = (last + high) // 2, 0
                for i in range(number):
                    ahead += lacking[i] <= middle
                if ahead < room:
                    last = middle + 1
                else:
                    high = middle
            ahead = 0
            for i in range(number):
                ahead += lacking[i] < last
            for i in range(number):  # the first of those that lack as much as the last kept cell
                equal = lacking[i] == last and ahead < room
                if lacking[i] < last or equal:
                    place[cells[i]] = 0
                    ahead += equal
        new_ptr[b + 1] = new_ptr[b]
        for key in range(first[b], first[b + 1]):
            if place[key] == 0:
                place[key] = new_ptr[b + 1]
                new_ptr[b + 1] += 1
    new, count = np.empty((new_ptr[-1], 2), np.int64), np.empty(new_ptr[-1], np.int64)
    for b in range(len(size)):
        for key in range(first[b], first[b + 1]):
            at = place[key]
            if at >= 0:
                row = (key - first[b]) // coarse[b, 1]
                new[at, 0], new[at, 1], count[at] = row, key - first[b] - row * coarse[b, 1], held[key]
    for n in range(len(cell)):
        parent[n] = place[parent[n]]
    return new, new_ptr, count, parent


@compiled
def adopted(
    cell: Cells, ptr: Int[ndarray, "B1"], size: Int[ndarray, "B 2"], stride: int,
    new: Cells, new_ptr: Int[ndarray, "B1"], count: Int[ndarray, "N'"], parent: Int[ndarray, "N"],
) -> tuple[Int[ndarray, "N'"], Int[ndarray, "N"]]:  # fmt: skip
    """`count` and `parent` of `coarse_cells` after points of dropped cells have moved to the nearest kept cell.

    In each lattice: the nearest kept cell in each column, in two sweeps; then, for each dropped cell, the nearest of
    these along its row, searched from its own column outwards. Ties go to the first in row-major order.
    """
    check(cell, ptr, size)
    check_ptr(new_ptr, len(size), len(new))
    if len(count) != len(new) or len(parent) != len(cell):
        raise ValueError("count and parent must be of these cells and points")
    count, parent = count.copy(), parent.copy()
    for b in range(len(size)):
        height, width = (size[b, 0] + stride - 1) // stride, (size[b, 1] + stride - 1) // stride
        kept, row_of = np.full((height, width), -1), np.full((height, width), -1)
        for i in range(new_ptr[b], new_ptr[b + 1]):
            if not (0 <= new[i, 0] < height and 0 <= new[i, 1] < width):
                raise ValueError("a kept cell lies outside its lattice")
            kept[new[i, 0], new[i, 1]] = i
            row_of[new[i, 0], new[i, 1]] = new[i, 0]
        for row in range(1, height):  # from above
            for col in range(width):
                if row_of[row, col] < 0:
                    row_of[row, col] = row_of[row - 1, col]
        for row in range(height - 2, -1, -1):  # from below, where that is nearer
            for col in range(width):
                below, above = row_of[row + 1, col], row_of[row, col]
                if below > row and (above < 0 or below - row < row - above):
                    row_of[row, col] = below
        taken = np.full((height, width), -1)  # of dropped cells: the index of the nearest kept cell
        for n in range(ptr[b], ptr[b + 1]):
            if parent[n] >= 0:
                continue
            row, col = cell[n, 0] // stride, cell[n, 1] // stride
            if taken[row, col] < 0:
                nearest, least = np.int64(-1), np.int64(2**62)
                step = 0
                while step < width and step * step <= least:
                    for side in (col - step, col + step):
                        if 0 <= side < width and row_of[row, side] >= 0:
                            far = (row_of[row, side] - row) ** 2 + step * step
                            at = kept[row_of[row, side], side]
                            if far < least or (far == least and at < nearest):
                                nearest, least = at, far
                    step += 1
                taken[row, col] = nearest
            parent[n] = taken[row, col]
            if parent[n] < 0:
                raise ValueError("a set keeps no cell")
            count[parent[n]] += 1
    return count, parent


@compiled
def kernel_cells(
    cell: Cells, ptr: Int[ndarray, "B1"], size: Int[ndarray, "B 2"],
    new: Cells, new_ptr: Int[ndarray, "B1"], stride: int, kernel: int, padding: int,
) -> Int[ndarray, "N' K"]:  # fmt: skip
    """The point on each cell under the kernel of each coarse cell; the number of points where there is none."""
    check(cell, ptr, size)
    check_ptr(new_ptr, len(size), len(new))
    first = starts(size)
    table = np.full(first[-1], len(cell))
    for b in range(len(size)):
        for n in range(ptr[b], ptr[b + 1]):
            table[first[b] + cell[n, 0] * size[b, 1] + cell[n, 1]] = n
    index = np.full((len(new), kernel * kernel), len(cell))
    for b in range(len(size)):
        for n in range(new_ptr[b], new_ptr[b + 1]):
            top, left = new[n, 0] * stride - padding, new[n, 1] * stride - padding
            for i in range(max(-top, 0), min(size[b, 0] - top, kernel)):
                for j in range(max(-left, 0), min(size[b, 1] - left, kernel)):
                    index[n, i * kernel + j] = table[first[b] + (top + i) * size[b, 1] + left + j]
    return index


@compiled
def kernel_slots(cell: Cells, new: Cells, parent: Int[ndarray, "N"], kernel: int) -> Int[ndarray, "N"]:
    """The position of each point in the kernels of the coarse cells, of `kernel` cells a side and without overlap."""
    if len(parent) != len(cell):
        raise ValueError("parent must be of these points")
    slot = np.empty(len(cell), np.int64)
    for n in range(len(cell)):
        at = parent[n]
        if not 0 <= at < len(new):
            raise ValueError("a point has no coarse cell")
        row = min(max(cell[n, 0] - new[at, 0] * kernel, 0), kernel - 1)
        col = min(max(cell[n, 1] - new[at, 1] * kernel, 0), kernel - 1)
        slot[n] = (at * kernel + row) * kernel + col
    return slot


@compiled
def window_order(
    cell: Cells, ptr: Int[ndarray, "B1"], size: Int[ndarray, "B 2"], windows_per_side: int, centers_per_side: int
) -> tuple[Int[ndarray, "N"], Int[ndarray, "S"], Bool[ndarray, "N M"]]:
    """Points window by window, the number of points of each window, and the centers around which each point lies."""
    check(cell, ptr, size)
    window, counts = np.empty(len(cell), np.int64), np.zeros(len(size) * windows_per_side * windows_per_side, np.int64)
    for b in range(len(size)):
        down, right = min(size[b, 0], windows_per_side), min(size[b, 1], windows_per_side)
        for n in range(ptr[b], ptr[b + 1]):
            row, col = cell[n, 0] * down // size[b, 0], cell[n, 1] * right // size[b, 1]
            window[n] = (b * windows_per_side + row) * windows_per_side + col
            counts[window[n]] += 1
    at, windows, begin = np.empty_like(counts), 0, 0
    for key in range(len(counts)):
        at[key], begin = begin, begin + counts[key]
        if counts[key] > 0:
            counts[windows], windows = counts[key], windows + 1
    order, members = np.empty(len(cell), np.int64), np.empty((len(cell), centers_per_side * centers_per_side), np.bool_)
    around = np.empty((2, centers_per_side), np.bool_)
    for b in range(len(size)):
        for n in range(ptr[b], ptr[b + 1]):
            place = at[window[n]]
            at[window[n]] += 1
            order[place] = n
            for axis in range(2):
                side, x = size[b, axis], cell[n, axis]
                parts = min(side, windows_per_side)
                part = x * parts // side
                start, end = -(-part * side // parts), -(-(part + 1) * side // parts)
                for i in range(centers_per_side):
                    low, high = i * (end - start) // centers_per_side, -(-(i + 1) * (end - start) // centers_per_side)
                    around[axis, i] = low <= x - start < high
            for i in range(centers_per_side):
                for j in range(centers_per_side):
                    members[place, i * centers_per_side + j] = around[0, i] and around[1, j]
    return order, counts[:windows].copy(), members


@compiled
def window_rows(
    counts: Int[ndarray, "S"], members: Bool[ndarray, "N M"], distinct: bool, like: Float[ndarray, "0"]
) -> tuple[ndarray, ...]:
    """slot, valid, place, pooling (with the dtype of `like`), row_window and center_valid of an `IndexPlan`, with the
    window of each place before the last."""
    points, windows, centers = len(members), len(counts), members.shape[1]
    mean, longest, number = (points + windows - 1) // windows, 0, 0
    for s in range(windows):
        longest = max(longest, counts[s])
    longest = longest if longest <= 2 * mean else mean
    for s in range(windows):
        number += (counts[s] + longest - 1) // longest
    slot, valid = np.empty((number, longest), np.int64), np.zeros((number, longest), np.bool_)
    place, window, row_window = np.empty(points, np.int64), np.empty(points, np.int64), np.empty(number, np.int64)
    pooling = np.zeros((number, centers, longest), like.dtype)
    exists = np.zeros((windows, centers), np.bool_)
    row, begin = 0, 0
    for s in range(windows):
        end = begin + counts[s]
        for m in range(centers):
            around = 0
            for n in range(begin, end):
                around += members[n, m]
            exists[s, m] = around > 0
            for other in range(m if distinct else 0):
                n = begin
                while n < end and members[n, m] == members[n, other]:
                    n += 1
                if n == end:  # the same points as around an earlier center
                    exists[s, m] = False
            for n in range(begin, end):
                if members[n, m]:
                    i = n - begin
                    pooling[row + i // longest, m, i % longest] = 1 / around
        for i in range(-(-counts[s] // longest) * longest):
            n = min(begin + i, end - 1)
            slot[row + i // longest, i % longest] = n
            if begin + i < end:
                valid[row + i // longest, i % longest] = True
                place[n], window[n] = row * longest + i, s
        for r in range(row, row + -(-counts[s] // longest)):
            row_window[r] = s
        row, begin = row + -(-counts[s] // longest), end
    return slot, valid, place, pooling, row_window, window, exists
