"""The Triton kernels as operators of torch, so that they can be compiled, exported and trained.

These are torch.ops.pointmix.cluster_hard and cluster_soft, with their gradients as separate operators. Points are
(R, L, E, D): each row is a window, or with `ptr` there is one row and window s is ptr[s] to ptr[s + 1] of it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointmix.ops.clustering.triton.kernels import backward, forward

MaybeTensor = Tensor | None


def settings(q: Tensor, v: Tensor, c: Tensor, *, gradients: bool) -> dict[str, object]:
    """Sizes and types that a kernel is compiled for. They depend on the model, not on the points, so that the rounding
    of a window's sums does not depend on other windows."""
    _, centers, heads, dim = c.shape
    dtype = torch.promote_types(torch.promote_types(q.dtype, v.dtype), c.dtype)
    F = tl.float64 if dtype == torch.float64 else tl.float32
    # the interpreter stores bfloat16 as raw bits, which it cannot multiply
    DOT = tl.bfloat16 if dtype == torch.bfloat16 and not triton.knobs.runtime.interpret else F
    padded = {"MP": max(triton.next_power_of_2(centers), 16), "DP": max(triton.next_power_of_2(dim), 16)}
    # Blocks of points and warps with which ptxas spills few or no registers on sm_90, for the most expensive
    # similarity; not tuned for speed.
    size = padded["MP"] * padded["DP"]
    room = size * DOT.primitive_bitwidth // 8
    points = (32 if room <= 2048 else 16) if gradients else (64 if room <= 4096 else 32)
    sizes = {"E": heads, "M": centers, "D": dim, **padded, "BL": points, "F": F, "DOT": DOT}
    return sizes | {"num_warps": 4 if size <= 512 else 8, "enable_fp_fusion": True}


def contiguous_channels(x: Tensor) -> Tensor:
    """A tensor whose channels are contiguous, as the kernels read them."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def strides_of(*points: Tensor) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """The strides of rows and points, and those of heads."""
    return [t.stride()[:2] for t in points], tuple(t.stride(2) for t in points)


def bias_strides(bias: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if bias is None else bias.stride()


def run(
    q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, beta: MaybeTensor, bias: MaybeTensor,
    kappa: MaybeTensor, ptr: MaybeTensor, valid: MaybeTensor, center_valid: MaybeTensor, **rules: object,
) -> Tensor:  # fmt: skip
    o = v.new_empty(v.shape)
    q, v, c, cv = (contiguous_channels(t) for t in (q, v, c, cv))
    valid, center_valid = (t if t is None else t.contiguous() for t in (valid, center_valid))
    strides, heads = strides_of(q, v, c, cv)
    if o.numel() and c.numel():
        forward[(len(c) * c.shape[2],)](
            q, v, c, cv, alpha, beta, bias, kappa, ptr, valid, center_valid, o, *strides, bias_strides(bias),
            q.shape[1], 1 if bias is None else len(bias), heads, **settings(q, v, c, gradients=False), **rules,
        )  # fmt: skip
    return o


def run_backward(
    do: Tensor, q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, beta: MaybeTensor, bias: MaybeTensor,
    kappa: MaybeTensor, ptr: MaybeTensor, valid: MaybeTensor, center_valid: MaybeTensor, *, dbias: bool,
    **rules: object,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of q, v, c, cv, alpha, beta, bias and kappa; empty for those that are absent or not needed."""
    dq, dv, dc, dcv = (like(t) for t in (q, v, c, cv))
    size = settings(q, v, c, gradients=True)
    programs = len(c) * c.shape[2]
    F = torch.float64 if size["F"] == tl.float64 else torch.float32
    parts = [q.new_zeros(programs if t is not None else 0, dtype=F) for t in (alpha, beta, kappa)]
    # per window, then summed over the windows that share a bias
    by_window = q.new_zeros(len(q), *c.shape[1:3], q.shape[1], dtype=F) if dbias else None
    do, q, v, c, cv = (contiguous_channels(t) for t in (do, q, v, c, cv))
    valid, center_valid = (t if t is None else t.contiguous() for t in (valid, center_valid))
    strides, heads = strides_of(q, v, c, cv, do)
    if programs and c.numel():
        backward[(programs,)](
            do, q, v, c, cv, alpha, beta, bias, kappa, ptr, valid, center_valid, dq, dv, dc, dcv, parts[0],
            parts[1] if beta is not None else None, by_window, parts[2] if kappa is not None else None, *strides,
            bias_strides(bias), q.shape[1], 1 if bias is None else len(bias), heads, **size, **rules,
        )  # fmt: skip
    sums = [
        t.new_empty(0) if of is None else t.sum().to(of.dtype).view(of.shape)
        for t, of in zip(parts, (alpha, beta, kappa), strict=True)
    ]
    db = q.new_empty(0)
    if by_window is not None and bias is not None:
        db = by_window.unflatten(0, (-1, len(bias))).sum(0).to(bias.dtype)
    return dq, dv, dc, dcv, *sums[:2], db, sums[2]


GIVEN = "Tensor q, Tensor v, Tensor c, Tensor cv, Tensor alpha"
WINDOWS = "Tensor? ptr, Tensor? valid, Tensor? center_valid"
HARD = f"{GIVEN}, Tensor beta, {WINDOWS}, bool count, bool unweighted"
SOFT = f"{GIVEN}, Tensor? bias, Tensor? kappa, {WINDOWS}, bool released"


@torch.library.custom_op("pointmix::cluster_hard", mutates_args=(), schema=f"({HARD}) -> Tensor")
def hard(
    q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, beta: Tensor, ptr: MaybeTensor, valid: MaybeTensor,
    center_valid: MaybeTensor, count: bool, unweighted: bool,
) -> Tensor:  # fmt: skip
    rules: dict[str, Any] = {"KIND": "hard", "COUNT": count, "UNWEIGHTED": unweighted}
    return run(q, v, c, cv, alpha, beta, None, None, ptr, valid, center_valid, **rules)


@torch.library.custom_op("pointmix::cluster_soft", mutates_args=(), schema=f"({SOFT}) -> Tensor")
def soft(
    q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, bias: MaybeTensor, kappa: MaybeTensor, ptr: MaybeTensor,
    valid: MaybeTensor, center_valid: MaybeTensor, released: bool,
) -> Tensor:  # fmt: skip
    return run(q, v, c, cv, alpha, None, bias, kappa, ptr, valid, center_valid, **soft_rules(kappa, released))


@torch.library.custom_op(
    "pointmix::cluster_hard_backward",
    mutates_args=(),
    schema=f"(Tensor do, {HARD}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def hard_backward(
    do: Tensor, q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, beta: Tensor, ptr: MaybeTensor,
    valid: MaybeTensor, center_valid: MaybeTensor, count: bool, unweighted: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    rules: dict[str, Any] = {"KIND": "hard", "COUNT": count, "UNWEIGHTED": unweighted}
    windows = ptr, valid, center_valid
    return run_backward(do, q, v, c, cv, alpha, beta, None, None, *windows, dbias=False, **rules)[:6]


@torch.library.custom_op(
    "pointmix::cluster_soft_backward",
    mutates_args=(),
    schema=f"(Tensor do, {SOFT}, bool dbias) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def soft_backward(
    do: Tensor, q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, bias: MaybeTensor, kappa: MaybeTensor,
    ptr: MaybeTensor, valid: MaybeTensor, center_valid: MaybeTensor, released: bool, dbias: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    windows, rules = (ptr, valid, center_valid), soft_rules(kappa, released)
    *found, _, db, dk = run_backward(do, q, v, c, cv, alpha, None, bias, kappa, *windows, dbias=dbias, **rules)
    return *found, db, dk


def soft_rules(kappa: Tensor | None, released: bool) -> dict[str, Any]:
    kind = "cosine" if kappa is None else "released" if released else "lorentz"
    return {"KIND": kind, "COUNT": False, "UNWEIGHTED": False}


@hard.register_fake
@soft.register_fake
def _(q: Tensor, v: Tensor, *_: object) -> Tensor:
    return v.new_empty(v.shape)


def like(t: Tensor) -> Tensor:
    """An empty contiguous tensor like t, whatever its strides."""
    return torch.empty(t.shape, dtype=t.dtype, device=t.device)


@hard_backward.register_fake
def _(
    do: Tensor, q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, beta: Tensor, *_: object
) -> tuple[Tensor, ...]:
    return tuple(like(t) for t in (q, v, c, cv, alpha, beta))


@soft_backward.register_fake
def _(
    do: Tensor, q: Tensor, v: Tensor, c: Tensor, cv: Tensor, alpha: Tensor, bias: MaybeTensor, kappa: MaybeTensor,
    ptr: MaybeTensor, valid: MaybeTensor, center_valid: MaybeTensor, released: bool, dbias: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    last = (bias if dbias else None, kappa)
    return *(like(t) for t in (q, v, c, cv, alpha)), *(q.new_empty(0) if t is None else like(t) for t in last)


def hard_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.count, ctx.unweighted = inputs
    ctx.save_for_backward(*tensors)


def hard_gradient(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.pointmix.cluster_hard_backward(do, *ctx.saved_tensors, ctx.count, ctx.unweighted)
    return *found, None, None, None, None, None


def soft_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.released = inputs
    ctx.save_for_backward(*tensors)


def soft_gradient(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
    dbias, dkappa = ctx.needs_input_grad[5:7]
    *found, db, dk = torch.ops.pointmix.cluster_soft_backward(do, *ctx.saved_tensors, ctx.released, dbias)
    return *found, db if dbias else None, dk if dkappa else None, None, None, None, None


hard.register_autograd(hard_gradient, setup_context=hard_context)
soft.register_autograd(soft_gradient, setup_context=soft_context)
