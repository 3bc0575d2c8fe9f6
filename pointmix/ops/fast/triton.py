"""Triton kernels for GPUs. Additions are kept apart from products, so that they round as the reference forms do.

Loops are written with `while`: Triton's interpreter cannot take a range over a value under NumPy 2.4.
"""

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.fast.triton_cluster import cluster_hard, cluster_soft

__all__ = ["cluster_hard", "cluster_soft", "farthest_points", "knn"]

ON_CHIP = 16384  # points of a set whose distances one program keeps in registers
LAST = tl.constexpr(0x7FFFFFFFFFFFFFFF)  # after every key


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    """One program a set: the distances stay on chip from the first pick to the last, the coordinates in its cache."""
    most = int(ptr.diff().max())
    if most > ON_CHIP:
        raise ValueError(f"farthest_point_sampling: backend 'triton' takes sets of up to {ON_CHIP} points, got {most}")
    block = max(triton.next_power_of_2(most), 64)
    index = ptr.new_empty(int(out_ptr[-1]))
    axes = pos.t().contiguous()  # (D, N)
    _farthest_points[(len(start),)](
        axes, ptr, out_ptr, start, index, len(pos), len(axes), block,
        num_warps=min(max(block // 512, 1), 16), enable_fp_fusion=False,
    )  # fmt: skip
    return index


@triton.jit
def _farthest_points(axes, ptr, out_ptr, start, index, total, D: tl.constexpr, BLOCK: tl.constexpr):
    s = tl.program_id(0)
    begin, first = tl.load(ptr + s), tl.load(out_ptr + s)
    size, last = tl.load(ptr + s + 1) - begin, tl.load(out_ptr + s + 1)
    point = tl.arange(0, BLOCK)
    real = point < size
    d = tl.where(real, float("inf"), -2.0)  # below every pick where there is no point
    pick = tl.load(start + s).to(tl.int32)
    while first < last:
        tl.store(index + first, begin + pick)
        here = tl.zeros([BLOCK], tl.float32)
        for axis in tl.static_range(D):
            row = axes + axis * total + begin
            away = tl.load(row + point, mask=real, other=0.0) - tl.load(row + pick)
            here += away * away
        d = tl.where(point == pick, -1.0, tl.minimum(d, here))  # not again
        pick = tl.argmax(d, 0).to(tl.int32)  # of equal ones the first
        first += 1


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    """A program takes some queries past all points of their set and keeps the nearest k so far, in order."""
    keep = max(triton.next_power_of_2(k), 16)
    if keep > 512:
        raise ValueError(f"knn: backend 'triton' takes k of up to 512, got {k}")
    index = ptr.new_zeros(len(query_pos), k)
    rows = max(1024 // keep, 2)
    axes, queries = pos.t().contiguous(), query_pos.t().contiguous()  # (D, N), (D, M)
    _knn[(triton.cdiv(int(query_ptr.diff().max()), rows), len(ptr) - 1)](
        axes, ptr, queries, query_ptr, index, len(pos), len(query_pos), k, len(axes), keep, rows,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return index


@triton.jit
def _knn(
    axes, ptr, queries, query_ptr, index, total, asked, k, D: tl.constexpr, KEEP: tl.constexpr, ROWS: tl.constexpr
):
    s = tl.program_id(1)
    begin = tl.load(ptr + s)
    size = tl.load(ptr + s + 1) - begin
    row = tl.load(query_ptr + s) + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mine = row < tl.load(query_ptr + s + 1)
    # A key is the bits of a distance, which order as the distance does, and below them the point's place in its set.
    best = tl.full([ROWS, KEEP], LAST, tl.int64)
    place = tl.arange(0, KEEP)
    while tl.min(place, 0) < size:
        real = place < size
        d = tl.zeros([ROWS, KEEP], tl.float32)
        for axis in tl.static_range(D):
            x = tl.load(axes + axis * total + begin + place, mask=real, other=0.0)
            q = tl.load(queries + axis * asked + row, mask=mine, other=0.0)
            away = q[:, None] - x[None, :]
            d += away * away
        key = (d.to(tl.int32, bitcast=True).to(tl.int64) << 32) | place.to(tl.int64)[None, :]
        key = tl.where(real[None, :] & mine[:, None], key, LAST)
        nearer = tl.min(key, 1) < tl.max(best, 1)
        if tl.max(nearer.to(tl.int32), 0) > 0:
            # one rising, one falling: of each pair the smaller gives the smallest of both
            best = tl.sort(tl.minimum(best, tl.sort(key, descending=True)))
        place += KEEP
    slot = tl.arange(0, KEEP)
    near = begin + (best & 0xFFFFFFFF)
    there = mine[:, None] & ((slot < k) & (slot < size))[None, :]
    tl.store(index + row[:, None] * k + slot[None, :], near, mask=there)
