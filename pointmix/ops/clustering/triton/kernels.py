"""Triton kernels of clustering, forward and backward, with one program per window and head.

The equations are in `pointmix.ops.clustering`. The points of window s are row s or, with `ptr`, points ptr[s] to
ptr[s + 1] of row 0. They are processed BL at a time, so a window may have any number of points. Centers, aggregates and
their gradients stay on the chip, and so do the first BL points of the forward pass; other points are read again from
the cache. Each sum over points is computed by one program in a fixed order, so results are deterministic.

M centers and D channels are padded to MP and DP. Operands of products have type DOT; everything else, including sums,
has type F. The strides of heads, HEADS, are constants, because their alignment decides the width of loads. Loops are
`while` loops: Triton's interpreter cannot take a range over a value under NumPy 2.4.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl

from pointmix.ops.clustering.triton.parts import (
    block,
    describe,
    dot,
    living,
    multiplied,
    number,
    put,
    spread,
    tile,
    window,
)
from pointmix.ops.clustering.triton.similarity import scale_backward, similarity_backward
from pointmix.ops.kernels.triton_jit import jit


@jit
def forward(
    q, v, c, cv, alpha, beta, bias, kappa, ptr, valid, center_valid, o, qs, vs, cs, us, bs, L, bias_rows,
    HEADS: tl.constexpr, E: tl.constexpr, M: tl.constexpr, D: tl.constexpr, MP: tl.constexpr, DP: tl.constexpr,
    BL: tl.constexpr, KIND: tl.constexpr, COUNT: tl.constexpr, UNWEIGHTED: tl.constexpr,
    F: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    s, e = tl.program_id(0) // E, tl.program_id(0) % E
    row, begin, size = window(ptr, s, L)
    m, d, n = tl.arange(0, MP), tl.arange(0, DP), tl.arange(0, BL)
    numbers = (number(alpha, F), number(beta, F), number(kappa, F))
    exists = living(center_valid, s, m, M)
    centers = describe(tile(c, cs, s, m, e * HEADS[2], d, exists, D, F), d, numbers[2], KIND)
    points = (q, qs, e * HEADS[0], valid, bias, bs, row, row % bias_rows, begin, size, L, e)

    first, member, real, _, _, _ = block(points, 0, n, centers, exists, numbers, m, d, D, KIND, F, DOT)
    v_n = tile(v, vs, row, begin + n, e * HEADS[1], d, real, D, F)
    top = dot(tl.trans(member if UNWEIGHTED else first), v_n, F, DOT)
    total = tl.sum(member if COUNT else first, 0)
    start = BL
    while start < size:  # the points beyond the first block
        a, member, real, _, _, _ = block(points, start, n, centers, exists, numbers, m, d, D, KIND, F, DOT)
        v_n = tile(v, vs, row, begin + start + n, e * HEADS[1], d, real, D, F)
        top += dot(tl.trans(member if UNWEIGHTED else a), v_n, F, DOT)
        total += tl.sum(member if COUNT else a, 0)
        start += BL
    g = (tile(cv, us, s, m, e * HEADS[3], d, exists, D, F) + top) / (1 + total)[:, None]

    put(o, dot(first, g, F, DOT), row, begin + n, L, e, d, n < size, E, D)
    start = BL
    while start < size:
        a, _, _, _, _, _ = block(points, start, n, centers, exists, numbers, m, d, D, KIND, F, DOT)
        put(o, dot(a, g, F, DOT), row, begin + start + n, L, e, d, start + n < size, E, D)
        start += BL


@jit
def backward(
    do, q, v, c, cv, alpha, beta, bias, kappa, ptr, valid, center_valid,
    dq, dv, dc, dcv, dalpha, dbeta, dbias, dkappa, qs, vs, cs, us, os, bs, L, bias_rows,
    HEADS: tl.constexpr, E: tl.constexpr, M: tl.constexpr, D: tl.constexpr, MP: tl.constexpr, DP: tl.constexpr,
    BL: tl.constexpr, KIND: tl.constexpr, COUNT: tl.constexpr, UNWEIGHTED: tl.constexpr,
    F: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    s, e = tl.program_id(0) // E, tl.program_id(0) % E
    row, begin, size = window(ptr, s, L)
    m, d, n = tl.arange(0, MP), tl.arange(0, DP), tl.arange(0, BL)
    numbers = (number(alpha, F), number(beta, F), number(kappa, F))
    exists = living(center_valid, s, m, M)
    c_m = tile(c, cs, s, m, e * HEADS[2], d, exists, D, F)
    centers = describe(c_m, d, numbers[2], KIND)
    points = (q, qs, e * HEADS[0], valid, bias, bs, row, row % bias_rows, begin, size, L, e)

    # first pass: the aggregates again, and their gradients
    top, dg = tl.zeros([MP, DP], F), tl.zeros([MP, DP], F)
    total = tl.zeros([MP], F)
    start = 0
    while start < size:
        a, member, real, _, _, _ = block(points, start, n, centers, exists, numbers, m, d, D, KIND, F, DOT)
        v_n = tile(v, vs, row, begin + start + n, e * HEADS[1], d, real, D, F)
        top += dot(tl.trans(member if UNWEIGHTED else a), v_n, F, DOT)
        total += tl.sum(member if COUNT else a, 0)
        dg += dot(tl.trans(a), tile(do, os, row, begin + start + n, e * HEADS[4], d, real, D, F), F, DOT)
        start += BL
    g = (tile(cv, us, s, m, e * HEADS[3], d, exists, D, F) + top) / (1 + total)[:, None]
    dtop = dg / (1 + total)[:, None]  # and of cv
    dtotal = -tl.sum(dtop * g, 1)
    put(dcv, dtop, s, m, M, e, d, m < M, E, D)

    # second pass: through the weights to queries, centers and numbers
    dy, dc2, r_m = tl.zeros([MP, DP], F), tl.zeros([MP], F), tl.zeros([MP], F)
    sum_alpha, sum_beta, sum_kappa = tl.zeros([BL], F), tl.zeros([BL], F), tl.zeros([BL], F)
    start = 0
    while start < size:
        a, member, real, p, sim, query = block(points, start, n, centers, exists, numbers, m, d, D, KIND, F, DOT)
        here, inside = begin + start + n, start + n < size
        da = dot(tile(do, os, row, here, e * HEADS[4], d, real, D, F), tl.trans(g), F, DOT)  # (BL, MP)
        if not UNWEIGHTED:
            da += dot(tile(v, vs, row, here, e * HEADS[1], d, real, D, F), tl.trans(dtop), F, DOT)
        if not COUNT:
            da += dtotal[None, :]
        put(dv, dot(member if UNWEIGHTED else a, dtop, F, DOT), row, here, L, e, d, inside, E, D)
        if KIND == "hard":
            dlogit = a * (1 - a) * da  # zero wherever the weight is zero
            sum_beta += tl.sum(dlogit, 1)
        else:
            dlogit = a * (da - tl.sum(a * da, 1)[:, None])
            if dbias is not None:
                out = dbias + (row.to(tl.int64) * M * E + e) * L
                at = m[None, :] * (E * L) + here[:, None]
                tl.store(out + at, dlogit, mask=inside[:, None] & (m < M)[None, :])
        sum_alpha += tl.sum(dlogit * sim, 1)
        x, q2, q0, s_q, lifted = query
        dp, dq2, dc2_n, k = similarity_backward(numbers[0] * dlogit, sim, p, lifted, centers[4], numbers[2], KIND)
        dsquare, dfirst, k_q = scale_backward(tl.sum(dp * p, 1), dq2, q2, q0, s_q, numbers[2], KIND)
        dx = dot(dp, multiplied(centers, d, KIND), F, DOT) * s_q[:, None]
        put(dq, spread(dx, x, dsquare, dfirst, d, KIND), row, here, L, e, d, inside, E, D)
        dy += dot(tl.trans(dp), multiplied(query, d, KIND), F, DOT)
        r_m, dc2 = r_m + tl.sum(dp * p, 0), dc2 + dc2_n
        sum_kappa += k + k_q
        start += BL
    _, c2, c0, s_c, _ = centers
    dsquare, dfirst, k_m = scale_backward(r_m, dc2, c2, c0, s_c, numbers[2], KIND)
    put(dc, spread(dy * s_c[:, None], c_m, dsquare, dfirst, d, KIND), s, m, M, e, d, m < M, E, D)
    tl.store(dalpha + tl.program_id(0), tl.sum(sum_alpha, 0))
    if KIND == "hard":
        tl.store(dbeta + tl.program_id(0), tl.sum(sum_beta, 0))
    if dkappa is not None:
        tl.store(dkappa + tl.program_id(0), tl.sum(sum_kappa, 0) + tl.sum(k_m, 0))
