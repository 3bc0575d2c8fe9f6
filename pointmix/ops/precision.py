"""Computes in float32 what half precision cannot represent.

float16 overflows at 65504 and has 11 significant bits: sums over the points of a cluster overflow, and rounding decides
between centers that are nearly equally near. So clustering in float16 is computed in float32, whether autocast or the
tensors ask for float16; sums over segments are computed in float32 for bfloat16 too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=nn.Module)
HALF = (torch.float16, torch.bfloat16)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype in which autocast computes a product of `x`; None if it is off. It does not change float64."""
    device = x.device.type
    casts = x.dtype != torch.float64 and device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if casts else None


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which products of `x` keep its dtype."""
    return nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False)


def emulates_bfloat16() -> bool:
    """Whether the processor lacks instructions for products of bfloat16, which then take longer than in float32. False
    where torch does not say."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    x86 = str(found.get("architecture")).startswith("x86")
    return x86 and not (found.get("avx512_bf16") or found.get("amx_bf16"))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, any other dtype as it is."""
    return torch.float32 if dtype in HALF else dtype


def in_float32(op: Callable[P, R]) -> Callable[P, R]:
    """`op`, computed in float32 if its first argument would be computed in float16; results keep its dtype."""

    @functools.wraps(op)
    def run(*args: P.args, **named: P.kwargs) -> R:
        x = cast(Tensor, args[0] if args else next(iter(named.values())))
        if (autocast_dtype(x) or x.dtype) != torch.float16:
            return op(*args, **named)
        with torch.autocast(x.device.type, enabled=False):
            named_float32 = {name: _to_float32(a) for name, a in named.items()}
            out: object = op(*map(_to_float32, args), **named_float32)  # type: ignore[arg-type]
        return cast(R, tuple(_to_dtype(t, x) for t in out) if isinstance(out, tuple) else _to_dtype(out, x))

    return run


def sums_in_float32(op: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """`op`, computed in float32 if its first tensor is of half precision, which is also the dtype of the result."""

    @functools.wraps(op)
    def run(x: Tensor, *args: P.args, **named: P.kwargs) -> Tensor:
        dtype = at_least_float32(x.dtype)
        return op(x, *args, **named) if dtype == x.dtype else op(x.to(dtype), *args, **named).to(x.dtype)

    return run


def without_float16(method: Callable[Concatenate[M, Tensor, P], R]) -> Callable[Concatenate[M, Tensor, P], R]:
    """A module's method of features, without autocast to float16."""

    @functools.wraps(method)
    def run(module: M, x: Tensor, *args: P.args, **named: P.kwargs) -> R:
        if autocast_dtype(x) != torch.float16 or next(module.parameters()).dtype == torch.float16:
            return method(module, x, *args, **named)
        with torch.autocast(x.device.type, enabled=False):
            return method(module, x.float(), *args, **named)

    return run


def _to_float32(x: object) -> object:
    return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x


def _to_dtype(x: object, like: Tensor) -> object:
    return x.to(like.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
