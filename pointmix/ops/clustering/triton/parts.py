"""Parts of the Triton kernels: weights of a block of points, loads and stores of vectors."""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl

from pointmix.ops.clustering.triton.similarity import scale, similarity, squares
from pointmix.ops.kernels.triton_jit import jit


@jit
def block(
    points, start, n, centers, exists, numbers, m, d,
    D: tl.constexpr, KIND: tl.constexpr, F: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """For BL points: weights and memberships (BL, MP), which exist, product, similarity, and `describe` of them."""
    q, qs, head, valid, bias, bs, row, bias_row, begin, size, L, e = points
    alpha, beta, kappa = numbers
    here = begin + start + n
    real = start + n < size
    if valid is not None:
        real = real & tl.load(valid + row * L + here, mask=real, other=0).to(tl.int1)
    query = describe(tile(q, qs, row, here, head, d, real, D, F), d, kappa, KIND)
    x, _, _, s_q, lifted = query
    c_m, _, _, s_c, c_lifted = centers
    if KIND == "released":
        c_m = tl.where((d == 0)[None, :], 0.0, c_m)
    raw = dot(x, tl.trans(c_m), F, DOT)
    p = raw * s_q[:, None] * s_c[None, :]
    there = real[:, None] & exists[None, :]
    if KIND == "hard":
        sim = p
        near = raw * (alpha * s_c)[None, :]  # |q|, beta and the sigmoid do not change the argmax
        # NaN counts as the largest, as in torch, and must not be lost
        key = tl.where(exists[None, :], tl.where(near == near, near, float("inf")), float("-inf"))
        best = tl.argmax(key, 1)[:, None] == m[None, :]  # ties go to the first
        z = tl.sum(tl.where(best, near, 0.0), 1) * s_q + beta
        member = tl.where(best & there, 1.0, 0.0).to(F)
        a = tl.where(best & there, (1 / (1 + tl.exp(-z)))[:, None], 0.0)
    else:
        sim = similarity(p, lifted, c_lifted, kappa, KIND)
        logit = alpha * sim
        if bias is not None:
            of_head = bias + (bias_row.to(tl.int64) * bs[0] + e * bs[2])
            logit += tl.load(of_head + (m[None, :] * bs[1] + here[:, None] * bs[3]), mask=there, other=0.0).to(F)
        logit = tl.where(exists[None, :], logit, float("-inf"))
        power = tl.exp(logit - tl.max(logit, 1)[:, None])
        a = tl.where(there, power / tl.sum(power, 1)[:, None], 0.0)
        member = a
    return a, member, real, p, sim, query


@jit
def describe(x, d, kappa, KIND: tl.constexpr):
    """Vectors, squared lengths, squares of coordinate 0, scales, and squared lengths after scaling."""
    square, first = squares(x, d, KIND)
    s = scale(square, first, kappa, KIND)
    return x, square, first, s, (square - first) * s * s


@jit
def multiplied(vectors, d, KIND: tl.constexpr):
    """The scaled vectors that are multiplied."""
    x, _, _, s, _ = vectors
    x = x * s[:, None]
    if KIND == "released":
        x = tl.where((d == 0)[None, :], 0.0, x)
    return x


@jit
def spread(dx, x, dsquare, dfirst, d, KIND: tl.constexpr):
    """The gradient of vectors from that of the scaled vectors and of the squared lengths."""
    if KIND == "released":
        dx += tl.where((d == 0)[None, :], 2 * x * dfirst[:, None], 0.0)
    return dx + 2 * x * dsquare[:, None]


@jit
def window(ptr, s, L):
    """The row of a window, its first point there, and its number of points."""
    if ptr is None:
        row, begin, size = s.to(tl.int64), 0, L
    else:
        row, begin = (s * 0).to(tl.int64), tl.load(ptr + s)
        size = (tl.load(ptr + s + 1) - begin).to(tl.int32)
    return row, begin, size


@jit
def living(center_valid, s, m, M: tl.constexpr):
    exists = m < M
    if center_valid is not None:
        exists = exists & tl.load(center_valid + s * M + m, mask=exists, other=0).to(tl.int1)
    return exists


@jit
def number(x, F: tl.constexpr):
    return tl.load(x).to(F) if x is not None else 0.0


@jit
def tile(x, strides, row, n, head, d, there, D: tl.constexpr, F: tl.constexpr):
    """Load vectors n of a row and head, zero where there is none."""
    x += row.to(tl.int64) * strides[0] + head
    return tl.load(x + (n[:, None] * strides[1] + d[None, :]), mask=there[:, None] & (d < D)[None, :], other=0.0).to(F)


@jit
def put(out, x, row, n, L, e, d, there, E: tl.constexpr, D: tl.constexpr):
    """Store vectors n of a row and head in a contiguous tensor."""
    out += (row.to(tl.int64) * L * E + e) * D
    mask = there[:, None] & (d < D)[None, :]
    tl.store(out + (n[:, None] * (E * D) + d[None, :]), x.to(out.dtype.element_ty), mask=mask)


@jit
def dot(x, y, F: tl.constexpr, DOT: tl.constexpr):
    """A product in the precision of its operands, without TF32, which would change the nearest center."""
    return tl.dot(x.to(DOT), y.to(DOT), input_precision="ieee", out_dtype=F)
