"""Whether code runs on plain tensors, or somebody writes down what it does."""

from __future__ import annotations

import torch
from torch import Tensor

_KEYS = getattr(torch._C, "_TorchDispatchModeKey", None)
_MODES = [getattr(_KEYS, name) for name in ("FAKE", "PROXY", "FUNCTIONAL") if hasattr(_KEYS, name)]


def traced(x: Tensor) -> bool:
    """True while a graph is compiled, exported, traced or captured, within transforms of torch.func, and for tensors
    that are more than plain ones."""
    return (
        torch.compiler.is_compiling()  # first, as a compiler knows none of the others
        or type(x) not in (Tensor, torch.nn.Parameter)
        or torch.jit.is_tracing()
        or any(torch._C._get_dispatch_mode(key) is not None for key in _MODES)
        or torch._C._functorch.peek_interpreter_stack() is not None
        or (x.is_cuda and torch.cuda.is_current_stream_capturing())
    )
