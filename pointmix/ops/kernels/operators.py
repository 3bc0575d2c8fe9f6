"""Functions as operators of torch, `torch.ops.pointmix.*`: compiled ones, and those that an exporter cannot follow.

To torch an operator is opaque: compilers, exporters, fake tensors and dispatch modes see one call, and its `fake`
function says the shapes of the results. `torch.library.custom_op` would do the same, but costs 24 µs a call instead of
8 µs, and a forward pass makes about thirty calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from pointmix.utils.lazy import when_imported

P = ParamSpec("P")
R = TypeVar("R")
Function = Callable[..., Any]  # of tensors and numbers, to a tensor or a tuple of tensors
ALL = "CompositeExplicitAutograd"  # torch's name for all devices
_LIBRARY = torch.library.Library("pointmix", "FRAGMENT")


def operator(
    schema: str,
    function: Function,
    fake: Function,
    *,
    floating: bool = False,
    backward: tuple[Function, Function] | None = None,
    devices: str = "CPU",
) -> Function:
    """Register a function of tensors as an operator; returns the operator.

    Under `torch.vmap` it is called once for each slice.

    Args:
        schema: name, arguments and results, such as "knn(Tensor pos, int k) -> Tensor".
        function: computes it. Results must not share memory with arguments.
        fake: the same signature; returns empty tensors of the right shapes and dtypes, see
            `torch.library.register_fake`.
        floating: results are floating point, so that backpropagation must raise an error without `backward`.
        backward: `setup_context` and `backward` of `torch.library.register_autograd`.
        devices: those of the tensors, as a dispatch key of torch.
    """
    name = schema.split("(")[0]
    qualified = f"pointmix::{name}"
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, _hidden(function), devices)
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(qualified, backward[1], setup_context=backward[0], lib=_LIBRARY)
    elif floating:

        def refuse(ctx: object, *gradients: Tensor) -> None:
            raise NotImplementedError(f"{qualified} has no derivatives: use it under torch.no_grad()")

        torch.library.register_autograd(qualified, refuse, lib=_LIBRARY)
    op = getattr(torch.ops.pointmix, name).default
    torch.library.register_vmap(qualified, _sliced(op), lib=_LIBRARY)
    return op


def count_operations(op: Any, formula: Function) -> None:
    """Let `FlopCounterMode` count an operator, `torch.ops.NAME.NAME`, unless torch does already.

    Args:
        formula: from the shapes of the arguments to the number of floating-point operations.
    """

    def register(counter: Any) -> None:
        if op not in counter.flop_registry:
            counter.register_flop_formula(op)(formula)

    when_imported("torch.utils.flop_counter", register)  # importing it takes long, because it imports Triton


def opaque(schema: str, fake: Function) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: while a graph is exported, a call is one operator of that graph; else nothing changes.

    For functions whose steps follow the values of their tensors, such as loops over sets, so that one graph is valid
    for all sizes. What is saved needs `import pointmix.models` before it is loaded. The results have no derivatives.

    Args:
        schema, fake: as in `operator`; the function has the same arguments.
    """
    name = schema.split("(")[0]
    _LIBRARY.define(schema)
    torch.library.register_fake(f"pointmix::{name}", fake, lib=_LIBRARY)
    op = getattr(torch.ops.pointmix, name).default

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def run(*args: P.args, **named: P.kwargs) -> Any:  # an operator must not return its arguments
            found: Any = function(*args, **named)
            if isinstance(found, Tensor):
                return found
            return tuple(t.clone() if any(t is a for a in (*args, *named.values())) else t for t in found)

        _LIBRARY.impl(name, run, ALL)

        @functools.wraps(function)
        def call(*args: P.args, **named: P.kwargs) -> R:
            if torch.compiler.is_exporting():
                exported: R = op(*args, **named)
                return exported
            return function(*args, **named)

        return call

    return decorate


def _hidden(function: Function) -> Function:
    """Called as it is until torch's compiler is imported, then without that compiler looking into it."""
    current = function

    def hide(_: ModuleType) -> None:
        nonlocal current
        current = torch.compiler.disable(function)

    when_imported("torch._dynamo", hide)  # importing it takes seconds
    return lambda *arguments: current(*arguments)


def _sliced(op: Function) -> Function:
    """The rule for `torch.vmap`: one call for each slice."""

    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: object) -> tuple[Any, Any]:
        results = []
        for i in range(info.batch_size):
            slices = (
                a.select(d, i) if isinstance(a, Tensor) and d is not None else a
                for a, d in zip(arguments, in_dims, strict=True)
            )
            results.append(op(*slices))
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])

    return vmap


def dynamic_size() -> int | torch.SymInt:
    """For fake functions: a size that depends on the data."""
    return torch.library.get_ctx().new_dynamic_size()
