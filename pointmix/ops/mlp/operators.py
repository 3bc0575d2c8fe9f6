"""The forms of the MLP as operators of torch. They are defined before what they call is imported, so that
whoever counts operations knows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pointmix.ops.kernels.operators import ALL, count_operations, operator
from pointmix.ops.mlp import pieces
from pointmix.ops.precision import without_autocast

Shape = Sequence[int]


def define(dtype: str) -> None:
    """Define `pointmix::mlp_{dtype}`, which is differentiable once, and its backward pass."""
    backward = operator(
        f"mlp_{dtype}_backward(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor dy) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _of_module(dtype, "run_backward"),
        lambda x, w1, b1, w2, dy: tuple(t.new_empty(t.shape) for t in (x, w1, b1, w2, w2[:, 0])),
        floating=True,
    )

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.plus = inputs[5] is not None

    def gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return *backward(*ctx.saved_tensors, dy.contiguous()), dy if ctx.plus else None

    operator(
        f"mlp_{dtype}(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? plus) -> Tensor",
        _of_module(dtype, "run_forward"),
        lambda x, w1, b1, w2, b2, plus: x.new_empty(x.shape[0], w2.shape[0], dtype=torch.float32),
        backward=(setup, gradients),
    )
    count_operations(getattr(torch.ops.pointmix, f"mlp_{dtype}"), _forward_flops)
    count_operations(getattr(torch.ops.pointmix, f"mlp_{dtype}_backward"), _backward_flops)


def _of_module(dtype: str, name: str) -> Callable[..., Any]:
    return lambda *arguments: getattr(import_module(f"pointmix.ops.mlp.{dtype}"), name)(*arguments)


def _forward_flops(x: Shape, w1: Shape, b1: Shape, w2: Shape, *rest: object, **kwargs: object) -> int:
    return 2 * x[0] * (math.prod(w1) + math.prod(w2))


def _backward_flops(x: Shape, w1: Shape, b1: Shape, w2: Shape, *rest: object, **kwargs: object) -> int:
    return 2 * x[0] * (3 * math.prod(w1) + 2 * math.prod(w2))


def define_pieces() -> None:
    """Define `pointmix::mlp_pieces`, which is differentiable once, and its backward pass. See `pieces`."""
    backward = operator(
        "mlp_pieces_backward(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor dy, Tensor? hidden) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        _pieces_backward,
        lambda x, w1, b1, w2, dy, hidden: tuple(t.new_empty(t.shape) for t in (x, w1, b1, w2, w2[:, 0])),
        floating=True,
        devices=ALL,
    )

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *given, _, plus, _, ctx.keep = inputs
        hidden = output[1]
        ctx.mark_non_differentiable(hidden)
        ctx.set_materialize_grads(False)  # no zeros for the hidden layer
        ctx.save_for_backward(*given, *([hidden] if ctx.keep else []))
        ctx.plus = None if plus is None else plus.dtype

    def gradients(ctx: Any, dy: Tensor | None, unused: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 8
        x, w1, b1, w2, *hidden = ctx.saved_tensors
        found = backward(x, w1, b1, w2, dy, hidden[0] if hidden else None)
        return *found, None if ctx.plus is None else dy.to(ctx.plus), None, None

    operator(
        "mlp_pieces(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? plus, ScalarType dtype, bool keep) "
        "-> (Tensor, Tensor)",
        _pieces_forward,
        lambda x, w1, b1, w2, b2, plus, dtype, keep: (
            x.new_empty(x.shape[0], w2.shape[0], dtype=dtype),
            x.new_empty(x.shape[0] if keep else 0, w1.shape[0]),
        ),
        backward=(setup, gradients),
        devices=ALL,
    )
    count_operations(torch.ops.pointmix.mlp_pieces, _forward_flops)
    count_operations(torch.ops.pointmix.mlp_pieces_backward, _backward_flops)


def _pieces_forward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, plus: Tensor | None, dtype: torch.dtype, keep: bool
) -> tuple[Tensor, Tensor]:
    hidden = x.new_empty(len(x) if keep else 0, len(w1))
    return pieces.forward(x, w1, b1, w2, b2, plus, dtype, hidden if keep else None), hidden


def _pieces_backward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, dy: Tensor, hidden: Tensor | None
) -> tuple[Tensor, ...]:
    with without_autocast(x):  # it would form products in another dtype
        found = pieces.backward(x, w1, b1, w2, dy, hidden)
    return tuple(g.to(t.dtype).contiguous() for g, t in zip(found, (x, w1, b1, w2, w2), strict=True))


for _dtype in ("float32", "bfloat16"):
    define(_dtype)
define_pieces()
