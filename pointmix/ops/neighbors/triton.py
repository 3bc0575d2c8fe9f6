"""`knn` on a GPU by a Triton kernel.

Additions are not fused with products, so that they round as in the reference form.
Loops are `while` loops: Triton's interpreter cannot take a range over a value under NumPy 2.4.
"""

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.kernels.triton_jit import jit

LAST = tl.constexpr(0x7FFFFFFFFFFFFFFF)  # sorts after every key


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> Int[Tensor, "M k"]:
    """Each program compares some queries with all points of their set and keeps the k nearest so far, sorted."""
    kept = max(triton.next_power_of_2(k), 16)
    if kept > 512:
        raise ValueError(f"knn: backend 'triton' takes k of up to 512, got {k}")
    index = ptr.new_zeros(len(query_pos), k)
    rows = max(1024 // kept, 2)
    axes, queries = pos.t().contiguous(), query_pos.t().contiguous()  # (D, N), (D, M)
    _knn[(triton.cdiv(int(query_ptr.diff().max()), rows), len(ptr) - 1)](
        axes, ptr, queries, query_ptr, index, len(pos), len(query_pos), k, len(axes), kept, rows,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return index


@jit
def _knn(
    axes, ptr, queries, query_ptr, index, total, asked, k, D: tl.constexpr, KEPT: tl.constexpr, ROWS: tl.constexpr
):
    s = tl.program_id(1)
    begin = tl.load(ptr + s)
    size = tl.load(ptr + s + 1) - begin
    row = tl.load(query_ptr + s) + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mine = row < tl.load(query_ptr + s + 1)
    # A key holds the bits of a distance, which sort as the distance does, and below them the point's index in its set.
    best = tl.full([ROWS, KEPT], LAST, tl.int64)
    place = tl.arange(0, KEPT)
    while tl.min(place, 0) < size:
        real = place < size
        d = tl.zeros([ROWS, KEPT], tl.float32)
        for axis in tl.static_range(D):
            x = tl.load(axes + axis * total + begin + place, mask=real, other=0.0)
            q = tl.load(queries + axis * asked + row, mask=mine, other=0.0)
            away = q[:, None] - x[None, :]
            d += away * away
        key = (d.to(tl.int32, bitcast=True).to(tl.int64) << 32) | place.to(tl.int64)[None, :]
        key = tl.where(real[None, :] & mine[:, None], key, LAST)
        nearer = tl.min(key, 1) < tl.max(best, 1)
        if tl.max(nearer.to(tl.int32), 0) > 0:
            # bitonic merge: one is sorted up, one down, so the smaller of each pair are the smallest of both
            best = tl.sort(tl.minimum(best, tl.sort(key, descending=True)))
        place += KEPT
    slot = tl.arange(0, KEPT)
    near = begin + (best & 0xFFFFFFFF)
    there = mine[:, None] & ((slot < k) & (slot < size))[None, :]
    tl.store(index + row[:, None] * k + slot[None, :], near, mask=there)
