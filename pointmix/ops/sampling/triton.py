"""Farthest points on a GPU by a Triton kernel.

Additions are not fused with products, so that they round as in the reference form.
Loops are `while` loops: Triton's interpreter cannot take a range over a value under NumPy 2.4.
"""

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.kernels.triton_jit import jit

ON_CHIP = 16384  # points of a set whose distances one program holds in registers


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], out_ptr: Int[Tensor, "B1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    """One program per set: distances stay in registers from the first pick to the last, coordinates in the cache."""
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


@jit
def _farthest_points(axes, ptr, out_ptr, start, index, total, D: tl.constexpr, BLOCK: tl.constexpr):
    s = tl.program_id(0)
    begin, first = tl.load(ptr + s), tl.load(out_ptr + s)
    size, last = tl.load(ptr + s + 1) - begin, tl.load(out_ptr + s + 1)
    point = tl.arange(0, BLOCK)
    real = point < size
    d = tl.where(real, float("inf"), -2.0)  # padding is never picked
    pick = tl.load(start + s).to(tl.int32)
    while first < last:
        tl.store(index + first, begin + pick)
        here = tl.zeros([BLOCK], tl.float32)
        for axis in tl.static_range(D):
            row = axes + axis * total + begin
            away = tl.load(row + point, mask=real, other=0.0) - tl.load(row + pick)
            here += away * away
        d = tl.where(point == pick, -1.0, tl.minimum(d, here))  # not picked again
        pick = tl.argmax(d, 0).to(tl.int32)  # ties go to the first
        first += 1
