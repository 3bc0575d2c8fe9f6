"""The compiled forms of the MLP as operators of torch. They are defined before what they call is imported, so that
whoever counts operations knows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pointmix.ops.kernels.operators import count_operations, operator

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


for _dtype in ("float32", "bfloat16"):
    define(_dtype)
