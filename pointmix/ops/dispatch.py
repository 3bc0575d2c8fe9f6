"""Dispatch: which backend computes an operation.

An operation has a reference form in torch and any number of other implementations, one per backend, with the same
results. `register` adds implementations, `choose` picks one for given tensors, and `pointmix.ops.explain.backends` says
why the others were not picked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from pointmix.ops.precision import autocast_dtype
from pointmix.utils.lazy import when_imported
from pointmix.utils.tracing import traced

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Function = Callable[..., Any]  # signatures differ between operations


@dataclass(frozen=True)
class Backend:
    """A library that computes operations.

    Args:
        name: of the library and its module.
        install: how to install it.
        submodule: what to import to see whether it loads, such as "pytorch3d.ops"; by default the module.
    """

    name: str
    install: str
    submodule: str = ""

    @property
    def problem(self) -> str:
        """Why the backend cannot be used here; empty if it can."""
        fault = _fault(self.name, self.submodule)
        return f"not installed: {self.install}" if fault is None else fault and f"does not load: {fault}"

    @property
    def installed(self) -> bool:
        return not self.problem


TORCH = Backend("torch", "pip install torch")
NUMBA = Backend("numba", "pip install numba")
TRITON = Backend("triton", "pip install triton")
TORCH_CLUSTER = Backend(
    "torch_cluster", "pip install --no-build-isolation torch-cluster (compiles for several minutes)"
)
TORCH_SCATTER = Backend(
    "torch_scatter", "pip install --no-build-isolation torch-scatter (compiles for several minutes)"
)
PYTORCH3D = Backend(
    "pytorch3d", "see https://github.com/facebookresearch/pytorch3d/blob/main/INSTALL.md", "pytorch3d.ops"
)


@dataclass(frozen=True)
class Implementation:
    """How one backend computes one operation.

    Args:
        backend: the library it needs.
        function: "module:function", imported at its first use; arguments and results are those of the reference form.
        default: devices on which it is picked without `use_backend`, if it comes first among those registered.
        devices, dtypes: what it takes; dtypes of the first tensor.
        limit: largest size up to which it is picked without `use_backend`.
        unit: what the size counts, such as "neighbors".
        hard_limit: the limit holds within `use_backend` too; the reference form computes what is larger.
        note: why it is not a default.
    """

    backend: Backend
    function: str
    default: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    limit: float = math.inf
    unit: str = ""
    hard_limit: bool = False
    note: str = ""

    def refusal(self, device: str, dtype: torch.dtype) -> str:
        """Why it does not take tensors of this device and dtype; empty if it does."""
        devices = self.devices
        if self.backend is TRITON and os.environ.get("TRITON_INTERPRET") == "1":
            devices = (*devices, "cpu")
        if device not in devices:
            return f"runs on {' and '.join(devices)}, but the input is on {device}"
        if dtype not in self.dtypes:
            return f"takes {' and '.join(map(str, self.dtypes))}, got {dtype}"
        return ""


@dataclass
class Operation:
    """The implementations of an operation, in the order in which they are tried, and what was imported so far."""

    implementations: dict[str, Implementation] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)  # why a module of an implementation does not load


BACKENDS: dict[str, Backend] = {TORCH.name: TORCH}
OPERATIONS: dict[str, Operation] = {}
requested_backend: ContextVar[str | None] = ContextVar("backend", default=None)


def register(op: str, *implementations: Implementation) -> None:
    """Add implementations of an operation. They are tried in this order, after those that were registered before."""
    operation = OPERATIONS.setdefault(op, Operation())
    for implementation in implementations:
        operation.implementations[implementation.backend.name] = implementation
        operation.functions.pop(implementation.backend.name, None)
        operation.faults.pop(implementation.backend.name, None)
        BACKENDS.setdefault(implementation.backend.name, implementation.backend)


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block, one backend computes every operation that it has; "torch" stands for all reference forms.

    None restores the default choice. `torch.compile` keeps the choice made while tracing, so compile within the block.

    Raises:
        ValueError: if there is no backend of that name, or at an operation whose tensors it does not take.
        ModuleNotFoundError: if its library is not installed.
        ImportError: if its library does not load.
    """
    if name is not None:
        if name not in BACKENDS:
            raise ValueError(f"unknown backend '{name}', expected one of {', '.join(BACKENDS)}")
        backend = BACKENDS[name]
        if backend.problem.startswith("not installed"):
            raise ModuleNotFoundError(f"backend '{name}' is not installed: {backend.install}", name=name)
        if not backend.installed:
            raise ImportError(f"backend '{name}' is installed but {backend.problem}", name=name)
    token = requested_backend.set(name)
    try:
        yield
    finally:
        requested_backend.reset(token)


def traced_as_constant(function: Callable[..., object]) -> None:
    """Let torch's compiler call a function of constants instead of tracing it.

    This marks it once the compiler is imported, because importing it takes seconds.
    """
    when_imported("torch._dynamo", lambda _: torch.compiler.assume_constant_result(function))


def choose(op: str, *tensors: Tensor, size: float = 0) -> Function | None:
    """The function that computes an operation for these tensors; None for its reference form.

    Args:
        op: name of a registered operation.
        tensors: what it will be given. The first decides about device and dtype.
        size: what the limits refer to, such as the number of neighbors.

    Raises:
        ValueError: if `use_backend` requests a backend that does not take these tensors.
        ImportError: if its function cannot be had, such as on this processor.
    """
    operation, x = OPERATIONS[op], tensors[0]
    name = _select(op, x.device.type, x.dtype, size)
    return operation.functions[name] if name else None


def _select(op: str, device: str, dtype: torch.dtype, size: float) -> str:
    """The backend that computes an operation, its function imported; empty for the reference form."""
    operation, requested = OPERATIONS[op], requested_backend.get()
    for name, implementation in operation.implementations.items():
        if reason := rejection(operation, implementation, requested, device, dtype, size):
            if name == requested and implementation.refusal(device, dtype):
                raise ValueError(f"backend '{name}' {reason}")
            continue
        if fault := load(op, name):
            if name == requested:
                raise ImportError(f"backend '{name}' {fault}", name=name)
            continue
        return name
    return ""


traced_as_constant(_select)


def load(op: str, name: str) -> str:
    """Import the function of an implementation; why it cannot be had, such as on this processor, else empty."""
    operation = OPERATIONS[op]
    if name not in operation.functions and name not in operation.faults:
        module, function = operation.implementations[name].function.split(":")
        try:
            operation.functions[name] = getattr(import_module(module), function)
        except Exception as error:  # such as another version of a library
            operation.faults[name] = f"does not load: {(str(error) or type(error).__name__).splitlines()[0]}"
    return operation.faults.get(name, "")


def rejection(
    operation: Operation,
    implementation: Implementation,
    requested: str | None,
    device: str,
    dtype: torch.dtype,
    size: float,
) -> str:
    """Why an implementation is not picked; empty if it is when its turn comes."""
    name = implementation.backend.name
    if requested is not None and requested != name and (requested == "torch" or requested in operation.implementations):
        return f"use_backend('{requested}') is in effect"
    if name != requested and device not in implementation.default:
        refusal = implementation.refusal(device, dtype)
        return refusal or f"only on request, with use_backend('{name}')" + (
            f": {implementation.note}" if implementation.note else ""
        )
    if refusal := implementation.refusal(device, dtype):
        return refusal
    if size > implementation.limit and (name != requested or implementation.hard_limit):
        return f"takes up to {implementation.limit} {implementation.unit}, got {size}"
    return implementation.backend.problem


def choose_trained(op: str, *tensors: Tensor) -> Function | None:
    """`choose` for implementations that have gradients, but only in one device and dtype, without autocast, torch's
    compilers and transforms, and forward-mode derivatives; None without gradients, too."""
    x = tensors[0]
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if not trained or autocast_dtype(x) is not None or any(map(traced, tensors)) or has_tangent(*tensors):
        return None
    return choose(op, *tensors) if all(t.dtype == x.dtype and t.device == x.device for t in tensors) else None


def has_tangent(*tensors: Tensor) -> bool:
    """Whether forward-mode derivatives are computed for any of the tensors. Operators of torch would drop them."""
    forward_ad = torch.autograd.forward_ad
    if getattr(forward_ad, "_current_level", 0) < 0:  # nobody computes any; the attribute is private to torch
        return False
    return any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


@cache
def _fault(name: str, submodule: str) -> str | None:
    """What is wrong with a library: None if it is not installed, empty if nothing is wrong."""
    if find_spec(name) is None:
        return None
    try:
        module = import_module(submodule or name)
        if name == "numba" and module.config.DISABLE_JIT:
            return "NUMBA_DISABLE_JIT is set"
    except Exception as error:  # such as one built for another version of torch
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""
