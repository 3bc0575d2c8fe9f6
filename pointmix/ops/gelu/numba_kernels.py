"""GELU and its gradient in one pass, compiled by numba.

The distribution function is computed as

    Phi(-|x|) = exp(-x^2 / 2) (a1 t + ... + a5 t^5) / 2,   t = 1 / (1 + p |x| / sqrt(2))

with an error below 7.5e-8. Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26. It shares the
exponential with the density, and every step compiles to vector instructions, which calls of erf and exp do not.
"""

# mypy: ignore-errors
from __future__ import annotations

import math
from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add, narrow, widen
from pointmix.ops.kernels.jit import inlined
from pointmix.ops.kernels.vector_math import SMALLEST, exp2

F32 = np.float32
A1, A2, A3, A4, A5 = (F32(a / 2) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
P = F32(0.3275911 / math.sqrt(2))
LOG2_OF_E_HALF = F32(0.5 / math.log(2))
PDF0, ZERO, ONE = F32(1 / math.sqrt(2 * math.pi)), F32(0), F32(1)


@inlined
def normal(x: float) -> tuple[float, float]:
    """Phi(x) and phi(x)."""
    e = exp2(max(-LOG2_OF_E_HALF * x * x, SMALLEST))  # exp(-x^2 / 2)
    t = ONE / (ONE + P * abs(x))
    tail = e * t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5))))
    return tail if x < ZERO else ONE - tail, e * PDF0


@inlined
def backward(
    x: Float[ndarray, "N H"], dy: Float[ndarray, "N H"], total: Float[ndarray, "H"], y: Float[ndarray, "N H"]
) -> None:
    """`pointmix.ops.gelu.gelu_backward_`."""
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            here = widen(x[n, k])
            cdf, pdf = normal(here)
            dx = widen(dy[n, k]) * (cdf + here * pdf)
            y[n, k], dy[n, k] = narrow(here * cdf, y[n, k]), narrow(dx, dy[n, k])
            total[k] += dx


def work_for(dtype: type) -> Callable:
    """A function for numba to compile, which each thread runs until all chunks of the points are done.

    It takes a pointer to the addresses of the sizes (points, channels, chunks, counter of the chunks taken), x, dy, one
    total for each chunk, and y.

    Args:
        dtype: of x, dy and y: float32, or uint16 for the bits of bfloat16.
    """

    def work(at) -> None:
        sizes = carray(at[0], (4,), np.int64)
        points, channels, chunks, _ = sizes
        x, dy = carray(at[1], (points, channels), dtype), carray(at[2], (points, channels), dtype)
        total, y = carray(at[3], (chunks, channels), np.float32), carray(at[4], (points, channels), dtype)
        while True:
            chunk = fetch_add(sizes[3:])
            if chunk >= chunks:
                break
            first, last = points * chunk // chunks, points * (chunk + 1) // chunks
            backward(x[first:last], dy[first:last], total[chunk], y[first:last])

    return unwrap(work)
