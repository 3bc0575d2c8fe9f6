"""Tables that say which backends there are, what they compute, and why they do not compute an operation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from pointmix.ops import dispatch
from pointmix.ops.dispatch import Implementation, Operation, load, rejection, requested_backend


class Table(list[dict[str, object]]):
    """Rows that print as a table."""

    def __init__(self, rows: list[dict[str, object]], columns: dict[str, Callable[[dict[str, Any]], object]]) -> None:
        super().__init__(rows)
        self.columns = columns

    def __str__(self) -> str:
        cells = [tuple(self.columns), *(tuple(str(of(row)) for of in self.columns.values()) for row in self)]
        return "\n".join(f"{a:<14} {b:<10} {c}" for a, b, c in cells)

    __repr__ = __str__


def backends(*, explain: str | None = None, like: Tensor | None = None, size: float = 0) -> Table:
    """The backends as dicts of name, operations, installed, in use, on request, problem; they print as a table.

    "in use" lists the operations that a backend computes by default, in single precision. Above a limit, the next
    backend that has the operation takes over. "on request" lists what it computes within `use_backend` only.

    Args:
        explain: name of an operation. The rows then say which backend computes it (`taken`) and why the others do not
            (`reason`).
        like: an input of that operation; its device and dtype count. By default single precision (or
            integers for operations on integers) on the CPU.
        size: what the limits refer to, such as the number of neighbors.

    Raises:
        ValueError: if there is no such operation.
    """
    if explain is not None:
        return _explain(explain, like, size)
    in_use: dict[str, list[str]] = defaultdict(list)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    listed: list[str] = []
    while new := [op for op in dispatch.OPERATIONS if op not in listed]:  # loading one may register others
        listed += new
        for device, op in product(devices, new):
            for name, implementation in _in_turn(op, device):
                note = (
                    ""
                    if implementation is None or implementation.limit == math.inf
                    else f" (up to {implementation.limit} {implementation.unit})"
                )
                in_use[name].append(f"{op} on {device}{note}")
    rows: list[dict[str, object]] = []
    for name, backend in dispatch.BACKENDS.items():
        implementations = {
            op: o.implementations[name] for op, o in dispatch.OPERATIONS.items() if name in o.implementations
        }
        rows.append(
            {
                "name": name,
                "operations": list(dispatch.OPERATIONS if name == "torch" else implementations),
                "installed": backend.installed,
                "in use": in_use[name],
                "on request": [op for op, implementation in implementations.items() if not implementation.default],
                "problem": backend.problem,
            }
        )

    def use(row: dict[str, Any]) -> str:
        requests = [f"on request {', '.join(row['on request'])}"] if row["on request"] else []
        return row["problem"] or "; ".join(row["in use"] + requests) or "-"

    columns = {"backend": lambda r: r["name"], "installed": lambda r: "yes" if r["installed"] else "no"}
    return Table(rows, {**columns, "in use for, or how to install": use})


def _explain(op: str, like: Tensor | None, size: float) -> Table:
    if op not in dispatch.OPERATIONS:
        raise ValueError(f"unknown operation '{op}', expected one of {', '.join(dispatch.OPERATIONS)}")
    operation = dispatch.OPERATIONS[op]
    x = torch.empty(0, dtype=_example_dtype(operation)) if like is None else like
    facts = x.device.type, x.dtype, size
    rows: list[dict[str, object]] = []
    taken = ""
    for name, implementation in operation.implementations.items():
        reason = rejection(operation, implementation, requested_backend.get(), *facts) or load(op, name)
        if not reason:
            reason, taken = (f"'{taken}' comes first", taken) if taken else ("", name)
        rows.append({"name": name, "taken": name == taken, "reason": reason})
    rows.append({"name": "torch", "taken": not taken, "reason": f"'{taken}' comes first" if taken else ""})
    columns = {"backend": lambda r: r["name"], "taken": lambda r: "yes" if r["taken"] else "no"}
    return Table(rows, {**columns, "why not": lambda r: r["reason"] or "-"})


def _example_dtype(operation: Operation) -> torch.dtype:
    dtypes = [dtype for implementation in operation.implementations.values() for dtype in implementation.dtypes]
    return torch.float32 if torch.float32 in dtypes else dtypes[0]


def _in_turn(op: str, device: str) -> Iterator[tuple[str, Implementation | None]]:
    """The backends that compute an operation on a device, from the smallest inputs to the largest."""
    operation, requested = dispatch.OPERATIONS[op], requested_backend.get()
    for name, implementation in operation.implementations.items():
        reason = rejection(operation, implementation, requested, device, _example_dtype(operation), 0)
        if not (reason or load(op, name)):
            yield name, implementation
            if implementation.limit == math.inf or (name == requested and not implementation.hard_limit):
                return
    yield "torch", None
