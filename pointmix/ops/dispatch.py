"""Dispatch: which backend computes an operation.

An operation has a reference form in torch and any number of other forms, each of one backend, with the same results.
`register` adds forms, `choose` picks one for given tensors, and `backends(explain=...)` says why the others were not
picked.
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
class Form:
    """How one backend computes one operation.

    Args:
        backend: the library it needs.
        function: "module:function", imported at its first use; arguments and results are those of the reference form.
        default: devices on which it is picked without `use_backend`, if it comes first among the registered forms.
        devices, dtypes: what it takes; dtypes of the first tensor.
        limit: largest size up to which it is picked without `use_backend`.
        unit: what the size counts, such as "neighbors".
        hard_limit: the limit holds within `use_backend` too; the reference form computes what is larger.
        inference: it has no derivatives, does not follow autocast, and needs one dtype and device. Even within
            `use_backend` the reference form computes everything else.
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
    inference: bool = False
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
    """The forms of an operation, in the order in which they are tried, and the functions imported so far."""

    forms: dict[str, Form] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    inference: bool = False  # whether a form is for inference only


BACKENDS: dict[str, Backend] = {TORCH.name: TORCH}
OPERATIONS: dict[str, Operation] = {}
_requested: ContextVar[str | None] = ContextVar("backend", default=None)


def register(op: str, *forms: Form) -> None:
    """Add forms of an operation. They are tried in this order, after those that were registered before."""
    operation = OPERATIONS.setdefault(op, Operation())
    for form in forms:
        operation.forms[form.backend.name] = form
        operation.functions.pop(form.backend.name, None)
        operation.inference |= form.inference
        BACKENDS.setdefault(form.backend.name, form.backend)


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
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


def traced_as_constant(function: Callable) -> None:
    """Let torch's compiler call a function of constants instead of tracing it.

    This marks it once the compiler is imported, because importing it takes seconds.
    """
    when_imported("torch._dynamo", lambda _: torch.compiler.assume_constant_result(function))


def choose(op: str, *tensors: Tensor, size: float = 0) -> Function | None:
    """The function that computes an operation for these tensors; None for its reference form.

    Args:
        op: name of a registered operation.
        tensors: what it will be given. The first decides about device and dtype.
        size: what the limits of the forms refer to, such as the number of neighbors.

    Raises:
        ValueError: if `use_backend` requests a backend that does not take these tensors.
    """
    operation, x = OPERATIONS[op], tensors[0]
    name = _select(op, x.device.type, x.dtype, size, _beyond_inference(tensors) if operation.inference else "")
    return operation.functions[name] if name else None


def _select(op: str, device: str, dtype: torch.dtype, size: float, beyond_inference: str) -> str:
    """The backend whose form computes an operation, imported; empty for the reference form."""
    operation, requested = OPERATIONS[op], _requested.get()
    for name, form in operation.forms.items():
        if reason := _rejection(operation, form, requested, device, dtype, size, beyond_inference):
            if name == requested and not form.inference and form.refusal(device, dtype):
                raise ValueError(f"backend '{name}' {reason}")
            continue
        if name not in operation.functions:
            module, function = form.function.split(":")
            operation.functions[name] = getattr(import_module(module), function)
        return name
    return ""


traced_as_constant(_select)


def _rejection(
    operation: Operation,
    form: Form,
    requested: str | None,
    device: str,
    dtype: torch.dtype,
    size: float,
    beyond_inference: str,
) -> str:
    """Why a form is not picked; empty if it is taken when its turn comes."""
    name = form.backend.name
    if requested is not None and requested != name and (requested == "torch" or requested in operation.forms):
        return f"use_backend('{requested}') is in effect"
    if name != requested and device not in form.default:
        refusal = form.refusal(device, dtype)
        return refusal or f"only on request, with use_backend('{name}')" + (f": {form.note}" if form.note else "")
    if refusal := form.refusal(device, dtype):
        return refusal
    if size > form.limit and (name != requested or form.hard_limit):
        return f"takes up to {form.limit} {form.unit}, got {size}"
    if form.inference and beyond_inference:
        return beyond_inference
    return form.backend.problem


def _beyond_inference(tensors: tuple[Tensor, ...]) -> str:
    """What a form for inference does not support about these tensors; empty if nothing."""
    x = tensors[0]
    if any(t.dtype != x.dtype or t.device != x.device for t in tensors[1:]):
        return "dtypes or devices of the tensors differ"
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return "gradients are needed"
    if (dtype := autocast_dtype(x)) is not None:
        return f"autocast computes in {dtype}"
    if any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        return "forward-mode derivatives are needed"
    return ""


class Table(list[dict[str, object]]):
    """Rows that print as a table."""

    def __init__(self, rows: list[dict[str, object]], columns: dict[str, Callable[[dict], object]]) -> None:
        super().__init__(rows)
        self.columns = columns

    def __str__(self) -> str:
        cells = [tuple(self.columns), *(tuple(str(of(row)) for of in self.columns.values()) for row in self)]
        return "\n".join(f"{a:<14} {b:<10} {c}" for a, b, c in cells)

    __repr__ = __str__


def backends(*, explain: str | None = None, like: Tensor | None = None, size: float = 0) -> Table:
    """The backends, one row each, printed as a table: name, operations, installed, in use, on request, problem.

    "in use" lists the operations that a backend computes by default, in single precision. Above a limit, the next
    backend that has the operation takes over. "on request" lists what it computes within `use_backend` only.

    Args:
        explain: name of an operation. The rows then say which backend computes it (`taken`) and why the others do not
            (`reason`).
        like: an input of that operation; its device, dtype and `requires_grad` count. By default single precision (or
            integers for operations on integers) on the CPU.
        size: what the limits refer to, such as the number of neighbors.

    Raises:
        ValueError: if there is no such operation.
    """
    if explain is not None:
        return _explain(explain, like, size)
    in_use: dict[str, list[str]] = {name: [] for name in BACKENDS}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for op in OPERATIONS:
            for name, form in _in_turn(op, device):
                note = "" if form is None or form.limit == math.inf else f" (up to {form.limit} {form.unit})"
                in_use[name].append(f"{op} on {device}{note}")
    rows: list[dict[str, object]] = []
    for name, backend in BACKENDS.items():
        forms = {op: o.forms[name] for op, o in OPERATIONS.items() if name in o.forms}
        rows.append(
            {
                "name": name,
                "operations": list(OPERATIONS if name == "torch" else forms),
                "installed": backend.installed,
                "in use": in_use[name],
                "on request": [op for op, form in forms.items() if not form.default],
                "problem": backend.problem,
            }
        )

    def use(row: dict) -> str:
        requests = [f"on request {', '.join(row['on request'])}"] if row["on request"] else []
        return row["problem"] or "; ".join(row["in use"] + requests) or "-"

    columns = {"backend": lambda r: r["name"], "installed": lambda r: "yes" if r["installed"] else "no"}
    return Table(rows, {**columns, "in use for, or how to install": use})


def _explain(op: str, like: Tensor | None, size: float) -> Table:
    if op not in OPERATIONS:
        raise ValueError(f"unknown operation '{op}', expected one of {', '.join(OPERATIONS)}")
    operation = OPERATIONS[op]
    x = torch.empty(0, dtype=_example_dtype(operation)) if like is None else like
    facts = x.device.type, x.dtype, size, _beyond_inference((x,))
    rows: list[dict[str, object]] = []
    taken = ""
    for name, form in operation.forms.items():
        reason = _rejection(operation, form, _requested.get(), *facts)
        if not reason:
            reason, taken = (f"'{taken}' comes first", taken) if taken else ("", name)
        rows.append({"name": name, "taken": name == taken, "reason": reason})
    rows.append({"name": "torch", "taken": not taken, "reason": f"'{taken}' comes first" if taken else ""})
    columns = {"backend": lambda r: r["name"], "taken": lambda r: "yes" if r["taken"] else "no"}
    return Table(rows, {**columns, "why not": lambda r: r["reason"] or "-"})


def _example_dtype(operation: Operation) -> torch.dtype:
    dtypes = [dtype for form in operation.forms.values() for dtype in form.dtypes]
    return torch.float32 if torch.float32 in dtypes else dtypes[0]


def _in_turn(op: str, device: str) -> Iterator[tuple[str, Form | None]]:
    """The backends that compute an operation on a device, from the smallest inputs to the largest."""
    operation, requested = OPERATIONS[op], _requested.get()
    for name, form in operation.forms.items():
        if not _rejection(operation, form, requested, device, _example_dtype(operation), 0, ""):
            yield name, form
            if form.limit == math.inf or (name == requested and not form.hard_limit):
                return
    yield "torch", None


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
