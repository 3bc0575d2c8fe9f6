"""The kernel of packed windows as operators of torch. They are defined before what they call is imported, so that
whoever counts operations knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pointmix.ops.kernels.operators import count_operations, operator
from pointmix.ops.precision import without_autocast

Shape = Sequence[int]


def _of_module(name: str) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        with without_autocast(arguments[0]):  # it would form products in another dtype
            return getattr(import_module("pointmix.ops.context.packed"), name)(*arguments)

    return run


def _fake_forward(
    x: Tensor,
    ptr: Tensor,
    members: Tensor,
    exists: Tensor,
    wqv: Tensor,
    bqv: Tensor,
    wp: Tensor,
    bp: Tensor,
    alpha: Tensor,
    beta: Tensor,
    heads: int,
    by_count: bool,
    unweighted: bool,
    keep: bool,
) -> tuple[Tensor, ...]:
    points, (out_channels, width) = x.shape[0], wp.shape
    center = x.new_empty(points, heads, dtype=torch.int32)
    kept = x.new_empty(points if keep else 0, width)
    return x.new_empty(points, out_channels), wqv.new_empty(points, heads), center, kept


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, ptr, members, exists, wqv, bqv, wp, _, alpha, _, *ctx.rules, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, ptr, members, exists, wqv, bqv, wp, alpha, *output[1:])


def _gradients(ctx: Any, dout: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
    if dout is None:
        return (None,) * 14
    dx, *dweights = _backward(dout, *ctx.saved_tensors, *ctx.rules)
    return dx, None, None, None, *dweights, None, None, None, None


def _forward_flops(
    x: Shape, ptr: Shape, members: Shape, exists: Shape, wqv: Shape, bqv: Shape, wp: Shape, *rest: Any, **kwargs: object
) -> int:
    """Floating-point operations of the products, given the shapes: queries of points, their similarities to centers,
    sums over clusters; queries of centers, values, and projection."""
    (points, channels), (windows, centers), (out_channels, width) = x, exists, wp
    heads = rest[3]
    at_points = channels * width + centers * width + heads * (channels + out_channels)
    at_centers = 2 * channels * width + width * out_channels
    return 2 * (points * at_points + windows * centers * at_centers)


def _backward_flops(
    dout: Shape, x: Shape, ptr: Shape, members: Shape, exists: Shape, wqv: Shape, bqv: Shape, wp: Shape, *rest: Any,
    **kwargs: object,
) -> int:  # fmt: skip
    """Queries of points are computed again unless they were kept, and all products of centers, then two products for
    each one of the forward pass; only the similarity to the center that a point joined counts."""
    (points, channels), (windows, centers), (out_channels, width) = x, exists, wp
    *_, kept, heads, _, _ = rest
    at_points = (2 if kept[0] else 3) * channels * width + 3 * width + heads * (3 * channels + 2 * out_channels)
    at_centers = 6 * channels * width + 3 * width * out_channels
    return 2 * (points * at_points + windows * centers * at_centers)


_backward = operator(
    "context_cluster_backward(Tensor dout, Tensor x, Tensor ptr, Tensor members, Tensor exists, Tensor wqv, "
    "Tensor bqv, Tensor wp, Tensor alpha, Tensor weight, Tensor center, Tensor kept, int heads, bool by_count, "
    "bool unweighted) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _of_module("run_backward"),
    lambda dout, x, ptr, members, exists, wqv, bqv, wp, alpha, *rest: (
        *(t.new_empty(t.shape) for t in (x, wqv, bqv, wp)),
        wp.new_empty(len(wp)),
        alpha.new_empty(1),
        alpha.new_empty(1),
    ),
    floating=True,
)
# The results after the first are what the backward pass needs.
operator(
    "context_cluster(Tensor x, Tensor ptr, Tensor members, Tensor exists, Tensor wqv, Tensor bqv, Tensor wp, "
    "Tensor bp, Tensor alpha, Tensor beta, int heads, bool by_count, bool unweighted, bool keep) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _of_module("run_forward"),
    _fake_forward,
    backward=(_setup, _gradients),
)
count_operations(torch.ops.pointmix.context_cluster, _forward_flops)
count_operations(torch.ops.pointmix.context_cluster_backward, _backward_flops)
