"""Functions of numbers that numba compiles to vector instructions, which it does not do with calls of `math`."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from pointmix.ops.kernels.intrinsics import float_bits, float_of_bits
from pointmix.ops.kernels.jit import inlined

F32 = np.float32
# 2^r for |r| <= 1/2: minimax polynomial, relative error 7.5e-8
E0, E1, E2, E3, E4, E5 = map(F32, (1.00000007, 0.693146967, 0.240221197, 0.0555071327, 0.00967554148, 0.0013276472))
SMALLEST = F32(-126)  # 2^-126 is the smallest normal number
ROUND = F32(1.5 * 2**23)  # y + ROUND has no digits behind the point; its last bits are the nearest integer of y


@inlined
def exp2(y: float) -> float:
    """2^y in float32 for -126 <= y <= 127."""
    shifted = y + ROUND
    r = y - (shifted - ROUND)
    power = E0 + r * (E1 + r * (E2 + r * (E3 + r * (E4 + r * E5))))
    bits = float_bits(power) + np.int32(float_bits(shifted) << np.int32(23))  # adds to the exponent
    return float_of_bits(np.int32(bits))
