"""What half precision is too small for.

float16 ends at 65504 and has 11 digits: a sum over the points of a cluster overflows, and near centers are told apart
by their rounding. So clustering of float16 is done in float32, whoever asked for it, autocast or the tensors; sums over
segments are float32 in bfloat16 too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The type that autocast gives `x` in a product, None where it is off; it leaves float64 alone."""
    device = x.device.type
    casts = x.dtype != torch.float64 and device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if casts else None


def widened(dtype: torch.dtype) -> torch.dtype:
    """float32 in place of a half precision."""
    return torch.float32 if dtype in HALF else dtype


def in_float32(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` in float32 where its first tensor would be computed in float16; what is returned has that tensor's type."""

    @functools.wraps(op)
    def run(*args, **named):
        x = args[0] if args else next(iter(named.values()))
        if (autocast_dtype(x) or x.dtype) != torch.float16:
            return op(*args, **named)
        with torch.autocast(x.device.type, enabled=False):
            out = op(*map(_single, args), **{name: _single(a) for name, a in named.items()})
        return tuple(_back(t, x) for t in out) if isinstance(out, tuple) else _back(out, x)

    return run


def sums_in_float32(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` in float32 where its first tensor is of a half precision, which is what it returns then."""

    @functools.wraps(op)
    def run(x, *args, **named):
        wide = widened(x.dtype)
        return op(x, *args, **named) if wide == x.dtype else op(x.to(wide), *args, **named).to(x.dtype)

    return run


def without_float16(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A module's method on features as if autocast were off where it would choose float16."""

    @functools.wraps(method)
    def run(module, x, *args, **named):
        if autocast_dtype(x) != torch.float16 or next(module.parameters()).dtype == torch.float16:
            return method(module, x, *args, **named)
        with torch.autocast(x.device.type, enabled=False):
            return method(module, x.float(), *args, **named)

    return run


def _single(x: object) -> object:
    return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x


def _back(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype) if x.is_floating_point() else x
