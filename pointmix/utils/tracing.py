"""Whether code runs on plain tensors, or its operations are being recorded or transformed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode


def traced(x: Tensor) -> bool:
    """True while a graph is compiled, exported, traced or captured, for tensors inside transforms of torch.func, and
    for tensor subclasses such as fake tensors."""
    return (
        torch.compiler.is_compiling()  # first: a compiler cannot look into the rest
        or type(x) not in (Tensor, torch.nn.Parameter)
        or torch.jit.is_tracing()
        or (x.is_cuda and torch.cuda.is_current_stream_capturing())
        or not has_memory(x)
        or get_proxy_mode() is not None  # `make_fx`
    )


def exported() -> bool:
    """True while a graph is recorded that may run elsewhere."""
    return torch.compiler.is_exporting() if torch.compiler.is_compiling() else torch.jit.is_tracing()


def has_memory(x: Tensor) -> bool:
    """False for tensors that wrap others, as in transforms of torch.func, and for fake tensors."""
    if type(x) not in (Tensor, torch.nn.Parameter):
        return False
    try:
        x.untyped_storage().data_ptr()
    except RuntimeError:
        return False
    return True
