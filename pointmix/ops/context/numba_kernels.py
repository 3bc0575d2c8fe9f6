"""Context clustering of packed windows, one after the other, compiled by numba.

Points (N, ...) lie window by window, those of window s from ptr[s] to ptr[s + 1], without padding, and only the one
nonzero weight of each point is multiplied. Linear maps of points and centers and the sigmoid are left to torch.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import carray, njit, types
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add

# fastmath allows sums in any order, as in products, but keeps NaN. Inlining fixes one order: a separate function is
# compiled twice, by itself and as part of its caller; the process that compiles would run the former, and processes
# that read the cache the latter.
_njit = njit(error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}, forceinline=True)
POOL, ASSIGN, AGGREGATE, DISPATCH = range(4)


def compiled(function: Callable) -> Callable:
    return _njit(unwrap(function))


class Sizes(ctypes.Structure):
    """The phase to run, the range of windows and how many to take at a time; numbers of points, windows, centers and
    heads; channels of heads, features and results; rules; and a counter of the chunks of windows taken."""

    _fields_ = [
        (name, ctypes.c_int64) for name in "phase first last step N S M E D C K count unweighted counter".split()
    ]


class Arrays(ctypes.Structure):
    """Addresses of `Sizes` and of contiguous arrays: ptr int64, center int32, members and exists bool, all others with
    the dtype of the features."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in "sizes ptr members exists alpha beta x mean q c center weight y bias_scale p bias out".split()
    ]


@compiled
def pool(
    s: int, x: Float[ndarray, "N C"], ptr: Int[ndarray, "S1"], members: Bool[ndarray, "N M"],
    mean: Float[ndarray, "S M C"],
) -> None:  # fmt: skip
    """Mean features of a window's points around each center, zero where there are none."""
    for m in range(mean.shape[1]):
        count = 0
        for k in range(x.shape[1]):
            mean[s, m, k] = 0
        for n in range(ptr[s], ptr[s + 1]):
            if members[n, m]:
                count += 1
                for k in range(x.shape[1]):
                    mean[s, m, k] += x[n, k]
        for k in range(x.shape[1]):
            mean[s, m, k] *= 1 / x.dtype.type(max(count, 1))


@compiled
def assign(
    s: int, ptr: Int[ndarray, "S1"], q: Float[ndarray, "K E D"], begin: int, c: Float[ndarray, "S M E D"],
    exists: Bool[ndarray, "S M"], alpha: float, beta: float, least: float, center: Int[ndarray, "N E"],
    logit: Float[ndarray, "N E"],
) -> None:  # fmt: skip
    """The center that each point joins, the first of equals, and the logit of its weight there.

    q holds the queries from point `begin` on; c is scaled to length alpha in place. Lengths are at least `least`.
    """
    _, centers, heads, dim = c.shape
    for m in range(centers):
        for e in range(heads):
            square = c.dtype.type(0)
            for d in range(dim):
                square += c[s, m, e, d] * c[s, m, e, d]
            scale = alpha / max(np.sqrt(square), least)
            for d in range(dim):
                c[s, m, e, d] *= scale
    for n in range(ptr[s], ptr[s + 1]):
        for e in range(heads):
            square, best, at = c.dtype.type(0), c.dtype.type(-np.inf), 0
            for d in range(dim):
                square += q[n - begin, e, d] * q[n - begin, e, d]
            for m in range(centers):
                near = c.dtype.type(0)
                for d in range(dim):
                    near += q[n - begin, e, d] * c[s, m, e, d]
                if exists[s, m] and (near > best or near != near):  # NaN must not be lost
                    best, at = near, m
            center[n, e], logit[n, e] = at, best / max(np.sqrt(square), least) + beta


@compiled
def aggregate(
    s: int, x: Float[ndarray, "N C"], ptr: Int[ndarray, "S1"], mean: Float[ndarray, "S M C"], count: bool,
    unweighted: bool, center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"], y: Float[ndarray, "E S M C"],
    bias_scale: Float[ndarray, "E S M"],
) -> None:  # fmt: skip
    """Each center's own features plus those of its points, over a divisor: one plus the sum or number of their weights.

    `bias_scale` is one plus the sum of the weights with which points entered, over the same divisor.
    """
    heads, _, centers, channels = y.shape
    one = x.dtype.type(1)
    divisor = np.empty((heads, centers), x.dtype)
    for e in range(heads):
        for m in range(centers):
            bias_scale[e, s, m] = divisor[e, m] = one
            for k in range(channels):
                y[e, s, m, k] = mean[s, m, k]
    for n in range(ptr[s], ptr[s + 1]):
        for e in range(heads):
            m = center[n, e]
            entry = one if unweighted else weight[n, e]
            bias_scale[e, s, m] += entry
            divisor[e, m] += one if count else entry
            for k in range(channels):
                y[e, s, m, k] += entry * x[n, k]
    for e in range(heads):
        for m in range(centers):
            scale = one / divisor[e, m]
            bias_scale[e, s, m] *= scale
            for k in range(channels):
                y[e, s, m, k] *= scale


@compiled
def dispatch(
    s: int, ptr: Int[ndarray, "S1"], center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"],
    p: Float[ndarray, "E S M K"], bias: Float[ndarray, "K"], out: Float[ndarray, "N K"],
) -> None:  # fmt: skip
    """The weighted sum over the centers of each point of a window, plus the bias."""
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(out.shape[1]):
            out[n, k] = bias[k]
        for e in range(weight.shape[1]):
            a, m = weight[n, e], center[n, e]
            for k in range(out.shape[1]):
                out[n, k] += a * p[e, s, m, k]


def work_for(dtype: type[np.floating], least: float) -> Callable:
    """A function for numba to compile, which each thread runs until all windows are done.

    It takes a pointer to `Arrays`.

    Args:
        dtype: of the features.
        least: lengths of vectors are at least this.
    """
    least, fields = dtype(least), len(Sizes._fields_)

    def work(at) -> None:  # addresses in the order of `Arrays`
        sizes = carray(at[0], (fields,), np.int64)
        phase, first, last, step, N, S, M, E, D, C, K, count, unweighted, _ = sizes
        ptr = carray(at[1], (S + 1,), np.int64)
        members, exists = carray(at[2], (N, M), np.bool_), carray(at[3], (S, M), np.bool_)
        alpha, beta = carray(at[4], (1,), dtype)[0], carray(at[5], (1,), dtype)[0]
        x, mean = carray(at[6], (N, C), dtype), carray(at[7], (S, M, C), dtype)
        begin = ptr[first]
        q, c = carray(at[8], (ptr[last] - begin, E, D), dtype), carray(at[9], (S, M, E, D), dtype)
        center, weight = carray(at[10], (N, E), np.int32), carray(at[11], (N, E), dtype)
        y, bias_scale = carray(at[12], (E, S, M, C), dtype), carray(at[13], (E, S, M), dtype)
        p, bias, out = carray(at[14], (E, S, M, K), dtype), carray(at[15], (K,), dtype), carray(at[16], (N, K), dtype)
        while True:
            start = first + fetch_add(sizes[fields - 1 :]) * step
            for s in range(start, min(start + step, last)):
                if phase == POOL:
                    pool(s, x, ptr, members, mean)
                elif phase == ASSIGN:
                    assign(s, ptr, q, begin, c, exists, alpha, beta, least, center, weight)
                elif phase == AGGREGATE:
                    aggregate(s, x, ptr, mean, count != 0, unweighted != 0, center, weight, y, bias_scale)
                else:
                    dispatch(s, ptr, center, weight, p, bias, out)
            if start + step >= last:
                break

    return unwrap(work)


SIGNATURE = types.void(types.CPointer(types.voidptr))
