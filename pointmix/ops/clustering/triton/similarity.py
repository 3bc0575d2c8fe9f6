"""The similarities of `pointmix.ops.similarity` and their gradients, as parts of the Triton kernels.

Both are functions of one product of scaled vectors, p = (s_q q) . (s_c c):

    cosine     s = 1 / |x|, and the similarity is p
    distance   s maps to the hyperboloid: s = w sinhc(kappa w^2 |x|^2), w = min(1, 1 / |x|), sinhc(r^2) = sinh(r) / r
               u = kappa (c_t q_a - p) + sqrt(kappa) c_a,    similarity = -log(1 + u + sqrt(u (u + 2))) / sqrt(kappa)

with the times of `lorentz.pairwise_distance`. The product is of the unscaled vectors, so nothing is rounded in half
precision, and scaling takes a few operations on each length. With "released", coordinate 0 is taken for the time: it
counts in w, is subtracted twice in the argument of sinhc, and is left out of the product.

KIND is "hard" or "cosine", which have one similarity, "lorentz" or "released". L points are rows, M centers columns.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl

from pointmix.ops import lorentz
from pointmix.ops.kernels.triton_jit import jit

MAX_RADIUS = tl.constexpr(lorentz.MAX_RADIUS)


@jit
def squares(x, d, KIND: tl.constexpr):
    """|x|^2 of each row and, if released, the square of its coordinate 0."""
    square = x * x
    first = tl.where((d == 0)[None, :], square, 0.0) if KIND == "released" else square * 0.0
    return tl.sum(square, 1), tl.sum(first, 1)


@jit
def scale(square, first, kappa, KIND: tl.constexpr):
    """The factor of each vector in the product."""
    if KIND == "lorentz" or KIND == "released":
        w, stretch = clipped(square, first, KIND)
        s = w * sinhc(kappa * stretch)
    else:
        length = tl.sqrt(square)
        s = 1.0 / tl.where(length < 1e-12, 1e-12, length)  # not a maximum, which would hide NaN
    return s


@jit
def scale_backward(r, dlifted, square, first, s, kappa, KIND: tl.constexpr):
    """The gradients of the squares and of kappa.

    r is the product times its gradient, summed over the other vectors, which is s times the gradient of s; dlifted is
    the gradient of the squared length after scaling.
    """
    if KIND == "lorentz" or KIND == "released":
        w, stretch = clipped(square, first, KIND)
        ds = r / s + 2 * dlifted * (square - first) * s
        slope = ds * w * sinhc_slope(kappa * stretch)
        long = square > 1
        bound = tl.where(long, square, 1.0)
        live = tl.where(long, 2 * (first / bound) / bound, 1.0) if KIND == "released" else tl.where(long, 0.0, 1.0)
        dstretch = kappa * slope
        if KIND == "released":
            dstretch = tl.where(stretch > 1e-8, dstretch, 0.0)
        dsquare = tl.where(long, -0.5 * ds * s / bound, 0.0) + dstretch * live + dlifted * s * s
        dfirst = -2 * w * w * dstretch - dlifted * s * s
        dkappa = slope * stretch
    else:
        dsquare = tl.where(square < 1e-24, 0.0, -0.5 * r * s * s)
        dfirst, dkappa = dsquare * 0.0, dsquare * 0.0
    return dsquare, dfirst, dkappa


@jit
def clipped(square, first, KIND: tl.constexpr):
    """The factor that clips a vector to norm 1, and the argument of sinhc divided by kappa."""
    w = tl.where(square > 1, 1.0 / tl.sqrt(tl.where(square > 1, square, 1.0)), 1.0)
    stretch = w * w * (square - 2 * first)
    if KIND == "released":
        stretch = tl.where(stretch < 1e-8, 1e-8, stretch)
    return w, stretch


@jit
def sinhc(s):
    """sinh(r) / r of s = r^2, bounded as in `lorentz.expmap0`; near zero by a series, accurate in float64."""
    near = 1 + s / 42 * (1 + s / 72 * (1 + s / 110 * (1 + s / 156 * (1 + s / 210))))
    near = 1 + s / 6 * (1 + s / 20 * near)
    r = tl.sqrt(tl.where(s < 1, 1.0, s))
    top = tl.where(r > MAX_RADIUS, MAX_RADIUS, r)
    return tl.where(s < 1, near, 0.5 * (tl.exp(top) - tl.exp(-top)) / r)


@jit
def sinhc_slope(s):
    """The derivative of sinhc by s, (cosh(r) - sinhc) / (2 s)."""
    near = 1 + s / 54 * (1 + s / 88 * (1 + s / 130 * (1 + s / 180 * (1 + s / 238))))
    near = (1 + s / 10 * (1 + s / 28 * near)) / 6
    big = tl.where(s < 1, 1.0, s)
    r = tl.sqrt(big)
    cosh = tl.where(r > MAX_RADIUS, 0.0, 0.5 * (tl.exp(r) + tl.exp(-r)))
    return tl.where(s < 1, near, 0.5 * (cosh - sinhc(big)) / big)


@jit
def similarity(p, q2, c2, kappa, KIND: tl.constexpr):
    """The similarity (L, M) from the product and the squared lengths after scaling."""
    if KIND == "lorentz" or KIND == "released":
        u = chord(p, q2, c2, kappa)
        u = tl.where(u < 1e-6, 1e-6, u)
        p = -tl.log(1 + u + tl.sqrt(u * (u + 2))) / tl.sqrt(kappa)
    return p


@jit
def similarity_backward(dsim, sim, p, q2, c2, kappa, KIND: tl.constexpr):
    """The gradients of the product (L, M), of the squared lengths (L,) and (M,), and of kappa (L,)."""
    if KIND == "lorentz" or KIND == "released":
        root = tl.sqrt(kappa)
        qt, ct = tl.sqrt(1 / kappa + q2), tl.sqrt(1 / kappa + c2)
        qa, ca = q2 / (qt + 1 / root), c2 / (ct + 1 / root)
        u = chord(p, q2, c2, kappa)
        near = u < 1e-6
        u = tl.where(near, 1e-6, u)
        du = tl.where(near, 0.0, -dsim / (root * tl.sqrt(u * (u + 2))))
        dp = -kappa * du
        dqa, dct = kappa * tl.sum(du * ct[None, :], 1), kappa * tl.sum(du * qa[:, None], 0)
        dca = root * tl.sum(du, 0)
        dq2, dc2 = 0.5 * dqa / qt, 0.5 * (dct + dca) / ct
        # by kappa itself and through the times, whose derivatives are written without cancellation
        by_kappa = qa[:, None] * ct[None, :] - p + (0.5 * ca / root)[None, :]
        by_kappa += (ca[None, :] - qa[:, None]) * (0.5 / (kappa * ct))[None, :]
        dkappa = tl.sum(du * by_kappa, 1) + 0.5 * dqa * qa / (kappa * root * qt) - 0.5 * tl.sum(dsim * sim, 1) / kappa
    else:
        dp = dsim
        dq2, dc2 = q2 * 0.0, c2 * 0.0
        dkappa = dq2
    return dp, dq2, dc2, dkappa


@jit
def chord(p, q2, c2, kappa):
    """u of `lorentz.pairwise_distance`, -kappa <c, q>_L - 1."""
    root = tl.sqrt(kappa)
    ct = tl.sqrt(1 / kappa + c2)
    qa, ca = q2 / (tl.sqrt(1 / kappa + q2) + 1 / root), c2 / (ct + 1 / root)
    return kappa * (qa[:, None] * ct[None, :] - p) + (root * ca)[None, :]
