"""Triton kernels of clustering, forward and backward: a program a window and head, see `pointmix.ops.clustering`.

A window's points are a stretch of a row: all of row s or, where `ptr` is given, places ptr[s] to ptr[s + 1] of row 0.
They are taken BL at a time, so a window may have any number of them. Centers, aggregates and their gradients stay on
the chip, and so do the first BL points of the forward pass; what is read twice comes from the cache. Every sum over
points is one program's, in one order, so that runs do not differ.

M centers and D channels are padded to MP and DP. Products take numbers of type DOT; all else, sums too, is of type F.
The strides of heads, HEADS, are constants, because what they are multiples of says how many numbers one load can take.
Loops are written with `while`: Triton's interpreter cannot take a range over a value under NumPy 2.4.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pointmix.ops.fast.triton_similarity import scale, scale_backward, similarity, similarity_backward, squares


@triton.jit
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
    while start < size:  # the points that the first block has no room for
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


@triton.jit
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
            dlogit = a * (1 - a) * da  # the weight's slope is zero where the weight is
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


@triton.jit
def block(
    points, start, n, centers, exists, numbers, m, d,
    D: tl.constexpr, KIND: tl.constexpr, F: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Of BL points: weights and memberships (BL, MP), which are real, product, similarity, and what describes them."""
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
        near = raw * (alpha * s_c)[None, :]  # neither |q| nor beta nor the sigmoid changes which is largest
        # what is not a number is the largest, as in torch, and must not be lost
        key = tl.where(exists[None, :], tl.where(near == near, near, float("inf")), float("-inf"))
        best = tl.argmax(key, 1)[:, None] == m[None, :]  # of equal ones the first
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


@triton.jit
def describe(x, d, kappa, KIND: tl.constexpr):
    """Vectors, their squares, those of coordinate 0, their scales, and their squares once scaled."""
    square, first = squares(x, d, KIND)
    s = scale(square, first, kappa, KIND)
    return x, square, first, s, (square - first) * s * s


@triton.jit
def multiplied(vectors, d, KIND: tl.constexpr):
    """What enters the product."""
    x, _, _, s, _ = vectors
    x = x * s[:, None]
    if KIND == "released":
        x = tl.where((d == 0)[None, :], 0.0, x)
    return x


@triton.jit
def spread(dx, x, dsquare, dfirst, d, KIND: tl.constexpr):
    """The gradient of vectors from those of what was multiplied and of their squares."""
    if KIND == "released":
        dx += tl.where((d == 0)[None, :], 2 * x * dfirst[:, None], 0.0)
    return dx + 2 * x * dsquare[:, None]


@triton.jit
def window(ptr, s, L):
    """The row of a window, where it begins there, and its length."""
    if ptr is None:
        row, begin, size = s.to(tl.int64), 0, L
    else:
        row, begin = (s * 0).to(tl.int64), tl.load(ptr + s)
        size = (tl.load(ptr + s + 1) - begin).to(tl.int32)
    return row, begin, size


@triton.jit
def living(center_valid, s, m, M: tl.constexpr):
    exists = m < M
    if center_valid is not None:
        exists = exists & tl.load(center_valid + s * M + m, mask=exists, other=0).to(tl.int1)
    return exists


@triton.jit
def number(x, F: tl.constexpr):
    return tl.load(x).to(F) if x is not None else 0.0


@triton.jit
def tile(x, strides, row, n, head, d, there, D: tl.constexpr, F: tl.constexpr):
    """Vectors n of a row and head, zero where none is."""
    x += row.to(tl.int64) * strides[0] + head
    return tl.load(x + (n[:, None] * strides[1] + d[None, :]), mask=there[:, None] & (d < D)[None, :], other=0.0).to(F)


@triton.jit
def put(out, x, row, n, L, e, d, there, E: tl.constexpr, D: tl.constexpr):
    """Vectors n of a row and head of a contiguous tensor."""
    out += (row.to(tl.int64) * L * E + e) * D
    mask = there[:, None] & (d < D)[None, :]
    tl.store(out + (n[:, None] * (E * D) + d[None, :]), x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def dot(x, y, F: tl.constexpr, DOT: tl.constexpr):
    """A product in the precision of its operands: never by way of TF32, which would change who is nearest."""
    return tl.dot(x.to(DOT), y.to(DOT), input_precision="ieee", out_dtype=F)
