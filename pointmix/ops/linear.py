"""A linear map fused with what follows it: one pass over the result if oneDNN computes the product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.kernels.operators import count_operations
from pointmix.utils.tracing import traced


def linear(
    x: Float[Tensor, "N C"],
    w: Float[Tensor, "K C"],
    b: Float[Tensor, "K"],
    *,
    gelu: bool = False,
    plus: Float[Tensor, "N K"] | None = None,
) -> Float[Tensor, "N K"]:
    """w x + b, then the exact (erf) GELU if asked for, then `plus` if given. Without gradients.

    `F.linear` writes the bias, adds the product to it, and leaves the rest to further passes, which together take as
    long as the product if x is narrow.
    """
    if not (torch.backends.mkldnn.enabled and _one_pass(x.device.type, x.dtype)) or traced(x) or not x.is_contiguous():
        y = F.linear(x, w, b)
        y = F.gelu(y) if gelu else y
    elif plus is None or gelu or plus.dtype != x.dtype or plus.shape != (len(x), len(w)):  # oneDNN reads any shape
        y = torch.ops.mkldnn._linear_pointwise(x, w, b, "gelu" if gelu else "none", [], "none")
    else:
        return torch.ops.mkldnn._linear_pointwise.binary(x, plus, w, b, "add")
    return y if plus is None else y + plus


@cache
def _one_pass(device: str, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this dtype on this machine."""
    if device != "cpu" or not _AVAILABLE:
        return False
    bfloat16 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bfloat16)


def _flops(x_shape: Sequence[int], *args: object, out_shape: Sequence[int], **kwargs: object) -> int:
    return 2 * math.prod(x_shape) * out_shape[-1]


# The operator that torch's own compiler uses for a linear map and the GELU after it. No public function does the same;
# builds of torch without the operator use `F.linear`.
_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
if _AVAILABLE:
    count_operations(torch.ops.mkldnn._linear_pointwise, _flops)
