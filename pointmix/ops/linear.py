"""Linear maps whose products oneDNN computes: it fuses them with what follows.

In float32 torch itself multiplies with MKL, which on processors of AMD uses half of the width of vectors: oneDNN is
there faster by a fifth, and for narrow matrices by up to three quarters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.dispatch import has_tangent
from pointmix.ops.kernels.operators import count_operations
from pointmix.ops.precision import autocast_dtype
from pointmix.utils.tracing import traced

IMAGE_WIDTHS = 64, 49  # points as images of one row; torch leaves fewer than 16 images to other convolutions
# Without AVX-512, oneDNN's GELU and its gradients of weights are slower than torch's passes by a fifth and more.
AVX512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def linear(
    x: Float[Tensor, "N C"],
    w: Float[Tensor, "K C"],
    b: Float[Tensor, "K"] | None = None,
    *,
    gelu: bool = False,
    plus: Float[Tensor, "N K"] | None = None,
) -> Float[Tensor, "N K"]:
    """w x + b, then the exact (erf) GELU if asked for, then `plus` if given. Without gradients.

    `F.linear` writes the bias, adds the product to it, and leaves the rest to further passes, which together take as
    long as the product if x is narrow.
    """
    # traced first: a compiler cannot look into the rest
    plain = traced(x) or (gelu and not AVX512) or not (torch.backends.mkldnn.enabled and x.is_contiguous())
    if plain or not _one_pass(x.device.type, x.dtype):
        y = F.linear(x, w, b)
        y = F.gelu(y) if gelu else y
        return y if plus is None else y + plus
    w = w if w.is_contiguous() or w.t().is_contiguous() else w.contiguous()  # other views take 1000 times as long
    if plus is None or gelu or plus.dtype != x.dtype or plus.shape != (len(x), len(w)):  # oneDNN reads any shape
        y = torch.ops.mkldnn._linear_pointwise(x, w, b, "gelu" if gelu else "none", [], "none")
    else:
        return torch.ops.mkldnn._linear_pointwise.binary(x, plus, w, b, "add")
    return y if plus is None else y + plus


def linear_trained(
    x: Float[Tensor, "N C"], w: Float[Tensor, "K C"], b: Float[Tensor, "K"] | None = None
) -> Float[Tensor, "N K"]:
    """`F.linear` with gradients; in float32 on a CPU oneDNN computes the products."""
    given = (x, w) if b is None else (x, w, b)
    if any(map(traced, given)) or has_tangent(*given) or autocast_dtype(x) is not None:
        return F.linear(x, w, b)
    if not (all(t.dtype == torch.float32 for t in given) and _one_pass(x.device.type, x.dtype)):
        return F.linear(x, w, b)
    y: Tensor = _Linear.apply(x, w, b)
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        return linear(x, w, b)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        dx = linear_trained(dy, w.t()) if ctx.needs_input_grad[0] else None
        dw = rows_product(dy, x) if ctx.needs_input_grad[1] else None
        # several times faster than a sum over rows
        db = (dy.t() @ dy.new_ones(len(dy), 1)).squeeze(1) if ctx.needs_input_grad[2] else None
        return dx, dw, db


def rows_product(a: Float[Tensor, "N A"], b: Float[Tensor, "N B"]) -> Float[Tensor, "A B"]:
    """a' b, the gradient of a weight. In float32 on a CPU it is that of a convolution of width one, which oneDNN
    computes without transposing a; its product of a' and b would."""
    width, wider = _image_width(a, b), a.shape[1] - b.shape[1]
    if (wider < 0 and width) or (wider > 0 and a.dtype == torch.bfloat16):  # up to a third faster
        return rows_product(b, a).t()
    if not width:
        return a.t() @ b
    images = [t.view(-1, 1, width, t.shape[1]).permute(0, 3, 1, 2) for t in (a.contiguous(), b.contiguous())]
    weight = a.new_empty(a.shape[1], b.shape[1], 1, 1)  # of which only the shape is read
    geometry = [1, 1], [0, 0], [1, 1], False, [0, 0], 1  # stride, padding, dilation, not transposed, one group
    product = torch.ops.aten.convolution_backward(*images, weight, None, *geometry, [False, True, False])[1]
    return product.flatten(1)


def _image_width(a: Float[Tensor, "N A"], b: Float[Tensor, "N B"]) -> int:
    """The width of the images as which oneDNN multiplies the rows, 0 if torch's product is taken."""
    onednn = AVX512 and torch.backends.mkldnn.enabled and _one_pass(a.device.type, a.dtype)
    if not (onednn and a.dtype == b.dtype == torch.float32) or traced(a) or traced(b):
        return 0
    return next((n for n in IMAGE_WIDTHS if len(a) >= 16 * n and len(a) % n == 0), 0)


@cache
def _one_pass(device: str, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this dtype on this machine."""
    if device != "cpu" or not _AVAILABLE:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and AVX512)


def _flops(x_shape: Sequence[int], *args: object, out_shape: Sequence[int], **kwargs: object) -> int:
    return 2 * math.prod(x_shape) * out_shape[-1]


# The operator that torch's own compiler uses for a linear map and the GELU after it. No public function does the same;
# builds of torch without the operator use `F.linear`.
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
if _AVAILABLE:
    count_operations(torch.ops.mkldnn._linear_pointwise, _flops)
