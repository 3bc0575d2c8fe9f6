"""The Lorentz model of hyperbolic space, on space coordinates alone.

A point of curvature -kappa (kappa > 0) is x in R^D; its time coordinate follows, x_t = sqrt(1/kappa + |x|^2), as

    <x, y>_L = x.y - x_t y_t,    <x, x>_L = -1/kappa

Every op runs without autocast: half precision is computed in float32 and comes back in float32, float64 stays float64.
`kappa` is a number or a tensor without dimensions. A number that is not positive is a ValueError; the value of a
tensor is not looked at, as that would make the host wait for the device.

Sources: Nickel & Kiela, "Learning Continuous Hierarchies in the Lorentz Model of Hyperbolic Geometry", ICML 2018;
Desai et al., "Hyperbolic Image-Text Representations" (MERU), ICML 2023.
"""

from __future__ import annotations

import functools
import math
from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LONGEST = math.asinh(2.0**15)  # of sqrt(kappa) |v| in a lift, as MERU has it: squares of its points stay in float32


def _island(op):
    """`op` without autocast, in float64 if its points are (they have dimensions, kappa has none), else in float32."""

    @functools.wraps(op)
    def island(*args, **named):
        tensors = [a for a in (*args, *named.values()) if isinstance(a, Tensor)]
        double = any(t.dtype == torch.float64 for t in tensors if t.ndim)
        dtype = torch.float64 if double else torch.float32
        args = [a.to(dtype) if isinstance(a, Tensor) else a for a in args]
        named = {name: a.to(dtype) if isinstance(a, Tensor) else a for name, a in named.items()}
        device = next(t.device.type for t in tensors if t.ndim)
        with nullcontext() if device == "meta" else torch.amp.autocast(device, enabled=False):
            return op(*args, **named)

    return island


@_island
def clip_norm(v: Float[Tensor, "*N D"], longest: float = 1.0) -> Float[Tensor, "*N D"]:
    """v * min(1, longest / |v|): vectors no longer than `longest`, which are then close enough to lift.

    Finite with its gradient at zero. Raises ValueError if `longest` is not positive.
    """
    if not 0 < longest < math.inf:
        raise ValueError(f"longest must be a positive number, got {longest}")
    return v * (longest / v.norm(dim=-1, keepdim=True).clamp(min=1e-6 * longest)).clamp(max=1)


@_island
def expmap0(v: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N D"]:
    """The exponential map at the origin: x = v sinh(r) / r, r = sqrt(kappa) |v|.

    The geodesic from the origin to x has length |v|, whatever the curvature. r stops at asinh(2^15) = 11.09: longer
    vectors keep their direction and lift to that radius. Source: MERU.
    """
    return v * _sinhc(_positive(kappa) * _square(v))


@_island
def expmap0_released(v: Float[Tensor, "*N D+1"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N D"]:
    """`expmap0` as HCFormer's released code has it: coordinate 0 of v passes for a time, only the others are lifted.

    With u = v_1.., r = sqrt(kappa) sqrt(max(|u|^2 - v_0^2, 1e-8)): x = u sinh(r) / r, of one coordinate less than v.
    No tangent vector at the origin has a time, so this is no exponential map; for comparison with that code only.
    """
    if v.shape[-1] < 2:
        raise ValueError(f"the released lift takes a time and at least one space coordinate, got {v.shape[-1]} in all")
    u = v[..., 1:]
    return u * _sinhc(_positive(kappa) * (_square(u) - v[..., :1].square()).clamp(min=1e-8))


@_island
def logmap0(x: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N D"]:
    """The inverse of `expmap0`: v = x asinh(r) / r, r = sqrt(kappa) |x|. Source: MERU."""
    square = _positive(kappa) * _square(x)
    small, r = _radius(square)
    series = 1 - square / 6 * (1 - square * 9 / 20 * (1 - square * 25 / 42 * (1 - square * 49 / 72)))
    return x * torch.where(small, series, r.asinh() / r)


@_island
def time(x: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N"]:
    """The time coordinate, sqrt(1 / kappa + |x|^2). Source: Nickel & Kiela."""
    return (1 / _positive(kappa) + _square(x)[..., 0]).sqrt()


@_island
def inner(x: Float[Tensor, "*N D"], y: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N"]:
    """The Lorentz product of points with broadcasting, <x, y>_L = x.y - x_t y_t <= -1/kappa. Source: Nickel & Kiela."""
    return (x * y).sum(-1) - time(x, kappa) * time(y, kappa)


@_island
def distance(
    x: Float[Tensor, "*N D"], y: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """The geodesic distance of points with broadcasting, acosh(-kappa <x, y>_L) / sqrt(kappa), from their chord:

        q = <x - y, x - y>_L = |dx|^2 - dt^2,    dx = x - y,    dt = x_t - y_t = (x + y).dx / (x_t + y_t)
        d = 2 / sqrt(kappa) asinh(sqrt(kappa) / 2 sqrt(q))

    The identity is -kappa <x, y>_L = 1 + kappa q / 2 and cosh(2a) = 1 + 2 sinh(a)^2. Unlike acosh it keeps the digits
    of close points. Far from the origin |dx|^2 and dt^2 are nearly equal, so both are computed in float64 and the
    result is rounded back: for float32 points of norm up to 100 the relative error is that rounding, 6e-8. Of float64
    points, and of float32 on a device without float64 (MPS), it is about eps kappa x_t^2. Value and gradient are zero
    where x = y.

    Source: Nickel & Kiela. HCFormer's equation 9 leaves out the kappa inside acosh.
    """
    dtype = torch.promote_types(x.dtype, y.dtype)
    x, y = _precise(x), _precise(y)
    dx = x - y
    dt = ((x + y) * dx).sum(-1) / (time(x, kappa) + time(y, kappa))
    q = (dx * dx).sum(-1) - dt * dt
    same = q <= 0
    chord = torch.where(same, 1, q).sqrt()  # the root has no gradient at zero
    root = kappa**0.5
    return torch.where(same, 0, 2 / root * torch.asinh(root / 2 * chord)).to(dtype)


@_island
def distance_reference(
    x: Float[Tensor, "*N D"], y: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """The reference form of `distance`, acosh(-kappa <x, y>_L) / sqrt(kappa).

    Close points lose their digits, and the gradient where x = y is not finite. Source: Nickel & Kiela.
    """
    return torch.acosh((-kappa * inner(x, y, kappa)).clamp(min=1)) / kappa**0.5


@_island
def pairwise_distance(
    c: Float[Tensor, "*N M D"], x: Float[Tensor, "*N L D"], kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*N M L"]:
    """The distances of all c to all x by one batched product, without a tensor of M x L x D.

        u = max(-kappa <c, x>_L - 1, 1e-6),    d = log1p(u + sqrt(u (u + 2))) / sqrt(kappa) = acosh(1 + u) / sqrt(kappa)

    With x_t = x_a + 1 / sqrt(kappa), u = kappa (c_t x_a - c.x) + sqrt(kappa) c_a: near the origin no 1 is taken off.
    In float32 u is right to 3e-7 (1 + kappa c_t x_t). Distances below 1.4e-3 / sqrt(kappa) come back as that,
    without a gradient: harmless for logits; `distance` tells them apart. Source: Nickel & Kiela.
    """
    root = _positive(kappa) ** 0.5
    c2, x2 = _square(c), _square(x)
    ct, xt = (1 / kappa + c2).sqrt(), (1 / kappa + x2).sqrt()  # (*N, M, 1), (*N, L, 1)
    ca, xa = c2 / (ct + 1 / root), x2 / (xt + 1 / root)
    product = torch.cat([-c, ct], -1) @ torch.cat([x, xa], -1).transpose(-1, -2)  # (*N, M, L)
    u = (kappa * product + root * ca).clamp(min=1e-6)
    return torch.log1p(u + (u * (u + 2)).sqrt()) / root


@_island
def centroid(
    x: Float[Tensor, "*N P D"], weight: Float[Tensor, "*N P"] | None, kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*N D"]:
    """The weighted mean of each set of P points: their sum with times, scaled back to the hyperboloid.

        s = sum_i w_i (x_i, x_it),    mean = s / sqrt(-kappa <s, s>_L)

    It minimizes sum_i w_i (-2/kappa - 2 <x_i, mean>_L). Weights are not negative and need not sum to one; None weighs
    all points alike, and a set without weight, or without points, has its mean at the origin. In float64 as `distance`.

    Source: Law et al., "Lorentzian Distance Learning for Hyperbolic Representations", ICML 2019.
    """
    dtype = x.dtype
    x = _precise(x)
    weight = x.new_ones(x.shape[:-1]) if weight is None else weight.to(x.dtype)
    points = torch.cat([x, time(x, kappa)[..., None]], -1)  # (*N, P, D + 1)
    s = (weight[..., None, :] @ points)[..., 0, :]  # (*N, D + 1)
    square = kappa * (s[..., -1:].square() - _square(s[..., :-1]))
    square = torch.maximum(square, weight.sum(-1, keepdim=True).square())  # never less, but for rounding
    return (s[..., :-1] / torch.where(square > 0, square, 1).sqrt()).to(dtype)


def _positive(kappa):
    if not isinstance(kappa, Tensor) and not 0 < kappa < math.inf:
        raise ValueError(f"kappa must be a positive number (the curvature is -kappa), got {kappa}")
    return kappa


def _square(x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N 1"]:
    return x.square().sum(-1, keepdim=True)


def _sinhc(square: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 1"]:
    """sinh(r) / r of r^2, for r up to LONGEST; beyond it sinh(LONGEST) / r."""
    small, r = _radius(square)
    series = 1 + square / 6 * (1 + square / 20 * (1 + square / 42))
    return torch.where(small, series, r.clamp(max=LONGEST).sinh() / r)


def _radius(square: Float[Tensor, "*N 1"]) -> tuple[Bool[Tensor, "*N 1"], Float[Tensor, "*N 1"]]:
    """Where r^2 is so small that four terms of a series in it are exact, and r, or 1 there: no root at zero, neither in
    the value nor in the gradient."""
    small = square < 1e-3
    return small, torch.where(small, 1, square).sqrt()


def _precise(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()
