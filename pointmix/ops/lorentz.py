"""The Lorentz model of hyperbolic space, with points given by their space coordinates alone.

A point in the space of curvature -kappa (kappa > 0) is x in R^D. Its time coordinate is x_t = sqrt(1/kappa + |x|^2), so

    <x, y>_L = x.y - x_t y_t,    <x, x>_L = -1/kappa

Every op ignores autocast: half precision is computed and returned in float32, float64 stays float64. `kappa` is a
number or a tensor without dimensions. A number that is not positive raises ValueError; the value of a tensor is not
checked, because the host would have to wait for the device.

Sources: Nickel & Kiela, "Learning Continuous Hierarchies in the Lorentz Model of Hyperbolic Geometry", ICML 2018;
Desai et al., "Hyperbolic Image-Text Representations" (MERU), ICML 2023.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import ParamSpec

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_RADIUS = math.asinh(2.0**15)  # of sqrt(kappa) |v| in `expmap0`, as in MERU: squares of points fit float32
P = ParamSpec("P")


def _without_autocast(op: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """`op` without autocast, in float64 if its points (tensors with dimensions) are, else in float32."""

    @functools.wraps(op)
    def run(*args: P.args, **named: P.kwargs) -> Tensor:
        tensors = [a for a in (*args, *named.values()) if isinstance(a, Tensor)]
        double = any(t.dtype == torch.float64 for t in tensors if t.ndim)
        dtype = torch.float64 if double else torch.float32
        cast_args = [a.to(dtype) if isinstance(a, Tensor) else a for a in args]
        cast_named = {name: a.to(dtype) if isinstance(a, Tensor) else a for name, a in named.items()}
        device = next(t.device.type for t in tensors if t.ndim)
        casts = device != "meta" and torch.is_autocast_enabled(device)  # exporters split graphs at every such context
        with torch.amp.autocast(device, enabled=False) if casts else nullcontext():
            return op(*cast_args, **cast_named)  # type: ignore[arg-type]

    return run


@_without_autocast
def clip_norm(v: Float[Tensor, "*N D"], longest: float = 1.0) -> Float[Tensor, "*N D"]:
    """v * min(1, longest / |v|): vectors clipped to a norm of at most `longest`.

    The value and its gradient are finite at zero. Raises ValueError if `longest` is not positive.
    """
    if not 0 < longest < math.inf:
        raise ValueError(f"longest must be a positive number, got {longest}")
    return v * (longest / v.norm(dim=-1, keepdim=True).clamp(min=1e-6 * longest)).clamp(max=1)


@_without_autocast
def expmap0(v: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N D"]:
    """The exponential map at the origin: x = v sinh(r) / r, r = sqrt(kappa) |v|.

    The geodesic from the origin to x has length |v| for any curvature. r is limited to asinh(2^15) = 11.09: longer
    vectors keep their direction and are mapped to that radius. Source: MERU.
    """
    return v * _sinhc(_check_kappa(kappa) * _square(v))


@_without_autocast
def expmap0_released(v: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N D-1"]:
    """`expmap0` as in HCFormer's released code: coordinate 0 of v is taken for the time, only the others are mapped.

    With u = v_1.., r = sqrt(kappa) sqrt(max(|u|^2 - v_0^2, 1e-8)): x = u sinh(r) / r, with one coordinate less than v.
    Tangent vectors at the origin have no time, so this is not an exponential map; for comparison with that code only.
    """
    if v.shape[-1] < 2:
        raise ValueError(f"expmap0_released: needs a time and at least one space coordinate, got {v.shape[-1]} in all")
    u = v[..., 1:]
    return u * _sinhc(_check_kappa(kappa) * (_square(u) - v[..., :1].square()).clamp(min=1e-8))


@_without_autocast
def time(x: Float[Tensor, "*N D"], kappa: float | Float[Tensor, ""]) -> Float[Tensor, "*N"]:
    """The time coordinate, sqrt(1 / kappa + |x|^2). Source: Nickel & Kiela."""
    return (1 / _check_kappa(kappa) + _square(x)[..., 0]).sqrt()


@_without_autocast
def inner(
    x: Float[Tensor, "*#N D"], y: Float[Tensor, "*#N D"], kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*#N"]:
    """The Lorentz product of points with broadcasting, <x, y>_L = x.y - x_t y_t <= -1/kappa. Source: Nickel & Kiela."""
    return (x * y).sum(-1) - time(x, kappa) * time(y, kappa)


@_without_autocast
def distance(
    x: Float[Tensor, "*#N D"], y: Float[Tensor, "*#N D"], kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*#N"]:
    """The geodesic distance of points with broadcasting, acosh(-kappa <x, y>_L) / sqrt(kappa), from their chord:

        q = <x - y, x - y>_L = |dx|^2 - dt^2,    dx = x - y,    dt = x_t - y_t = (x + y).dx / (x_t + y_t)
        d = 2 / sqrt(kappa) asinh(sqrt(kappa) / 2 sqrt(q))

    This follows from -kappa <x, y>_L = 1 + kappa q / 2 and cosh(2a) = 1 + 2 sinh(a)^2. Unlike acosh it is accurate for
    close points. Far from the origin |dx|^2 and dt^2 are nearly equal, so both are computed in float64 and the result
    is rounded back: for float32 points of norm up to 100 the relative error is that rounding, 6e-8. For float64
    points, and for float32 on a device without float64 (MPS), it is about eps kappa x_t^2. Value and gradient are zero
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


@_without_autocast
def distance_reference(
    x: Float[Tensor, "*#N D"], y: Float[Tensor, "*#N D"], kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*#N"]:
    """The reference form of `distance`, acosh(-kappa <x, y>_L) / sqrt(kappa).

    It is inaccurate for close points, and its gradient is not finite where x = y. Source: Nickel & Kiela.
    """
    return torch.acosh((-kappa * inner(x, y, kappa)).clamp(min=1)) / kappa**0.5


@_without_autocast
def pairwise_distance(
    c: Float[Tensor, "*N M D"], x: Float[Tensor, "*N L D"], kappa: float | Float[Tensor, ""]
) -> Float[Tensor, "*N M L"]:
    """The distances of all c to all x by one batched product, without a tensor of M x L x D.

        u = max(-kappa <c, x>_L - 1, 1e-6),    d = log1p(u + sqrt(u (u + 2))) / sqrt(kappa) = acosh(1 + u) / sqrt(kappa)

    With x_t = x_a + 1 / sqrt(kappa), u = kappa (c_t x_a - c.x) + sqrt(kappa) c_a, which avoids subtracting 1 near the
    origin. In float32 the error of u is 3e-7 (1 + kappa c_t x_t). Distances below 1.4e-3 / sqrt(kappa) are returned
    as that, without a gradient, which is harmless for logits; `distance` resolves them. Source: Nickel & Kiela.
    """
    root = _check_kappa(kappa) ** 0.5
    c2, x2 = _square(c), _square(x)
    ct, xt = (1 / kappa + c2).sqrt(), (1 / kappa + x2).sqrt()  # (*N, M, 1), (*N, L, 1)
    ca, xa = c2 / (ct + 1 / root), x2 / (xt + 1 / root)
    product = torch.cat([-c, ct], -1) @ torch.cat([x, xa], -1).transpose(-1, -2)  # (*N, M, L)
    u = (kappa * product + root * ca).clamp(min=1e-6)
    return torch.log1p(u + (u * (u + 2)).sqrt()) / root


def _check_kappa(kappa: float | Float[Tensor, ""]) -> float | Float[Tensor, ""]:
    if not isinstance(kappa, Tensor) and not 0 < kappa < math.inf:
        raise ValueError(f"kappa must be a positive number (the curvature is -kappa), got {kappa}")
    return kappa


def _square(x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N 1"]:
    return x.square().sum(-1, keepdim=True)


def _sinhc(square: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 1"]:
    """sinh(r) / r as a function of r^2; sinh(MAX_RADIUS) / r beyond MAX_RADIUS."""
    small, r = _radius(square)
    series = 1 + square / 6 * (1 + square / 20 * (1 + square / 42))
    return torch.where(small, series, r.clamp(max=MAX_RADIUS).sinh() / r)


def _radius(square: Float[Tensor, "*N 1"]) -> tuple[Bool[Tensor, "*N 1"], Float[Tensor, "*N 1"]]:
    """Where r^2 is so small that four terms of a series are exact, and r, replaced by 1 there so that neither the value
    nor the gradient takes the root of zero."""
    small = square < 1e-3
    return small, torch.where(small, 1, square).sqrt()


def _precise(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()
