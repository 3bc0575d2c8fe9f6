"""Bilinear up-sampling of maps whose channels are last."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.utils.tracing import traced


def upsample_reference(x: Float[Tensor, "B H W C"], stride: int) -> Float[Tensor, "B sH sW C"]:
    """`torch.nn.functional.interpolate`, bilinear, with `align_corners=False`."""
    y = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=float(stride), mode="bilinear", align_corners=False)
    return y.permute(0, 2, 3, 1)


def upsample(x: Float[Tensor, "B H W C"], stride: int) -> Float[Tensor, "B sH sW C"]:
    """`upsample_reference`, one axis after the other: on a CPU torch copies such maps to another memory format and
    back, which takes several times as long."""
    if traced(x):
        return upsample_reference(x, stride)
    b, h, w, c = x.shape
    x = _Up.apply(x.reshape(b, h, w * c), stride)  # (B, sH, W C)
    return _Up.apply(x.view(b * h * stride, w, c), stride).view(b, h * stride, w * stride, c)


def _weights(stride: int) -> list[tuple[int, float]]:
    """For each of the `stride` new cells of an old cell: the offset of the lower neighbor, and the other's weight."""
    places = [(p + 0.5) / stride - 0.5 for p in range(stride)]
    return [(math.floor(t), t - math.floor(t)) for t in places]


def _up(x: Tensor, stride: int) -> Tensor:
    """(A, n, R) to (A, n * stride, R)."""
    a, n, r = x.shape
    y = x.new_empty(a, n, stride, r)
    for p, (low, weight) in enumerate(_weights(stride)):
        torch.lerp(x[:, :-1], x[:, 1:], weight, out=y[:, -low : n - 1 - low, p])
        end = 0 if low < 0 else n - 1  # the border cell, which has one neighbor
        y[:, end, p] = x[:, end]
    return y.view(a, n * stride, r)


def _down(g: Tensor, stride: int) -> Tensor:
    """The adjoint of `_up`, (A, n * stride, R) to (A, n, R)."""
    a, m, r = g.shape
    n = m // stride
    g, x = g.view(a, n, stride, r), g.new_zeros(a, n, r)
    for p, (low, weight) in enumerate(_weights(stride)):
        inner = g[:, -low : n - 1 - low, p]
        x[:, :-1].add_(inner, alpha=1 - weight)
        x[:, 1:].add_(inner, alpha=weight)
        end = 0 if low < 0 else n - 1
        x[:, end].add_(g[:, end, p])
    return x


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, stride: int) -> Tensor:
        ctx.stride = stride  # type: ignore[attr-defined]
        return _up(x.contiguous(), stride)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        return _Down.apply(g, ctx.stride), None  # type: ignore[attr-defined]


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, g: Tensor, stride: int) -> Tensor:
        ctx.stride = stride  # type: ignore[attr-defined]
        return _down(g.contiguous(), stride)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> tuple[Tensor, None]:
        return _Up.apply(x, ctx.stride), None  # type: ignore[attr-defined]
