"""The MLP of a block, in pieces of the points whose hidden layer fits the cache.

The hidden layer is up to eight times as wide as the input, and writing it to memory and reading it back takes longer
than computing it. On a CPU it is therefore formed for one piece of the points at a time: by torch's products (`pieces`)
or, if the input is narrow, in tiles that each core computes by itself (`float32`, `bfloat16`). The backward pass
recomputes it, which takes no longer and saves most of the memory of training; for wide inputs it is kept (before the
GELU).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, has_tangent, register
from pointmix.ops.mlp import operators  # noqa: F401, defines the operators
from pointmix.ops.precision import autocast_dtype
from pointmix.utils.tracing import traced

NARROW = 128  # up to this many channels, recomputing the hidden layer is faster than reading it back

TILES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}  # the modules of the compiled form

for _dtype, _name in TILES.items():
    register(
        f"mlp_{_name}",
        Implementation(
            NUMBA, f"pointmix.ops.mlp.{_name}:forward", default=("cpu",), devices=("cpu",), dtypes=(_dtype,)
        ),
    )


def mlp_reference(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    scale: Float[Tensor, "K"],
    plus: Float[Tensor, "N K"] | None = None,
) -> Float[Tensor, "N K"]:
    """y = scale * (w2 gelu(w1 x + b1) + b2) + plus, with the exact (erf) GELU."""
    y = F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2) * scale
    return y if plus is None else plus + y


def mlp(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    scale: Float[Tensor, "K"],
    plus: Float[Tensor, "N K"] | None = None,
) -> Float[Tensor, "N K"]:
    """`mlp_reference` in tiles or pieces. Follows autocast; float16, forward-mode derivatives, exporters and, for a
    GPU, compilers get the reference form."""
    dtype = autocast_dtype(x)

    def cast(t: Tensor) -> Tensor:
        return t if dtype is None else t.to(dtype)

    def reference() -> Tensor:
        return mlp_reference(cast(x), cast(w1), cast(b1), cast(w2), cast(b2), scale, plus)

    given, compiling = (x, w1, b1, w2, b2, scale, plus), torch.compiler.is_compiling()
    if (dtype or x.dtype) == torch.float16:  # sums that are formed before the scale would overflow
        return reference()
    if not compiling and has_tangent(*(t for t in given if t is not None)):  # kernels would drop the derivatives
        return reference()
    scaled = (w2 * scale[:, None]).to(dtype or w2.dtype), (b2 * scale).to(dtype or b2.dtype)
    args = cast(x), cast(w1), cast(b1), *scaled
    result = torch.promote_types(args[0].dtype, scale.dtype)
    result = result if plus is None else torch.promote_types(result, plus.dtype)
    tiles = _tiles(*args, result, plus)
    y: Tensor
    if tiles is not None:
        y = tiles(*args, plus)
        return y
    if compiling and (torch.compiler.is_exporting() or x.device.type != "cpu"):  # it fuses and recomputes by itself
        return reference()
    trained = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*args, plus))
    y, _ = torch.ops.pointmix.mlp_pieces(*args, plus, result, trained and x.shape[1] > NARROW)
    return y


def _tiles(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    result: torch.dtype,
    plus: Float[Tensor, "N K"] | None,
) -> Callable[..., Any] | None:
    """The compiled form, if there is one for these tensors."""
    floats = result == torch.float32 and (plus is None or plus.dtype == torch.float32)
    if not floats or x.dtype not in TILES or x.shape[1] > NARROW:
        return None
    compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    if not compiling and traced(x):
        return None
    hidden, channels, out = sizes = len(w1), x.shape[1], len(w2)
    shapes = (hidden, channels), (hidden,), (out, hidden), (out,)  # the kernels read memory without any check
    weights = zip((w1, b1, w2, b2), shapes, strict=True)
    fits = all(t.dtype == x.dtype and t.shape == shape for t, shape in weights) and 0 not in sizes
    if not fits or (plus is not None and plus.shape != (len(x), out)):  # torch broadcasts or says what is wrong
        return None
    if x.dtype == torch.bfloat16 and (max(sizes) > sizes[0] or any(n % 2 for n in sizes)):  # pairs, and room for dx
        return None
    return choose(f"mlp_{TILES[x.dtype]}", x)
