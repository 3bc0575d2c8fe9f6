"""Who computes neighborhoods, segments and clustering: torch, or a library or kernel with the same result."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from pointmix.utils.tracing import traced


@dataclass(frozen=True)
class Backend:
    """A way to compute some of the operations.

    `limits` names the operations, and up to which size it is worth taking, or takes any: the points of the largest
    set for "farthest_points", k for "knn", bytes of a window's centers for clustering, see `fused`. `pointmix.ops.fast`
    has one module a backend with a function an operation, `dtypes` are those of the positions, or of the values of
    segments; clustering takes any. `untimed` says which operations are there, but only for who asks for them, because
    nobody has timed them yet.
    """

    name: str
    install: str
    limits: dict[str, float]
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    untimed: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        return not self.lacks

    @property
    def lacks(self) -> str:
        """What it takes to have it; empty if it is there."""
        fault = _fault(self.name)
        return self.install if fault is None else fault and f"does not load: {fault}"

    def refuses(self, x: Tensor, op: str = "") -> str:
        """Why it cannot take these positions or values; empty if it can."""
        devices = self.devices
        if self.name == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
            devices = (*devices, "cpu")
        if x.device.type not in devices:
            return f"backend '{self.name}' runs on {' and '.join(devices)}, but the input is on {x.device.type}"
        dtypes = FLOATS if op in CLUSTERING else (torch.int64,) if op in CELLS else self.dtypes
        if x.dtype not in dtypes:
            return f"backend '{self.name}' takes {' and '.join(map(str, dtypes))}, got {x.dtype}"
        return ""


ANY = float("inf")
SINGLE = (torch.float32,)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NEIGHBORS, SEGMENTS = ("farthest_points", "knn"), ("segment_sum", "segment_mean", "segment_max", "segment_softmax")
CLUSTERING = ("cluster_hard", "cluster_soft")
INFERENCE = ("context_cluster",)  # without gradients
CELLS = ("adopted", "coarse_cells", "kernel_cells", "window_order", "window_rows")  # of int64
EVERY = NEIGHBORS + SEGMENTS + CLUSTERING + INFERENCE + CELLS
UNITS = {"farthest_points": "sets of up to {} points", "knn": "k of up to {}"}
UNITS |= dict.fromkeys(CLUSTERING, "padded centers of up to {} bytes a head")
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("torch", "pip install torch", dict.fromkeys(EVERY, ANY), dtypes=FLOATS),
        Backend("numba", "pip install numba", dict.fromkeys(NEIGHBORS + INFERENCE + CELLS, ANY), ("cpu",)),
        Backend(
            "triton",
            "pip install triton",
            {"farthest_points": 16384, "knn": 128} | dict.fromkeys(CLUSTERING, 8192),
            ("cuda",),
            SINGLE,
            untimed=CLUSTERING,
        ),
        Backend(
            "torch_cluster",
            "pip install --no-build-isolation torch-cluster (compiles for some minutes)",
            {"farthest_points": ANY, "knn": 48},
        ),
        Backend(
            "torch_scatter",
            "pip install --no-build-isolation torch-scatter (compiles for some minutes)",
            dict.fromkeys(SEGMENTS, ANY),
            dtypes=FLOATS,
        ),
        Backend(
            "pytorch3d",
            "see https://github.com/facebookresearch/pytorch3d/blob/main/INSTALL.md",
            {"farthest_points": ANY, "knn": 48},
            dtypes=SINGLE,
        ),
    )
}
# Without a backend asked for, the first that is installed and takes the positions; torch takes all. For segments that
# is always torch, see `pointmix.ops.scatter`; for clustering too, until Triton's kernel has been timed on a GPU.
ORDER = {
    ("farthest_points", "cpu"): ("numba",),
    ("farthest_points", "cuda"): ("triton", "torch_cluster", "pytorch3d"),
    ("knn", "cpu"): ("numba",),
    **{(op, "cpu"): ("numba",) for op in INFERENCE + CELLS},
    ("knn", "cuda"): ("triton", "pytorch3d"),
}
_forced: ContextVar[str | None] = ContextVar("backend", default=None)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, one backend computes every operation that it has; "torch" is the reference form of all.

    Clustering is left to torch where windows do not fit a kernel, see `fused`. What `torch.compile` has traced keeps
    the clustering that it was traced with, so compile within the block.

    Raises:
        ValueError: if there is no backend of that name, and at an operation on positions that it does not take.
        ModuleNotFoundError: if its library is not installed.
        ImportError: if its library does not load.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend '{name}', expected one of {', '.join(BACKENDS)}")
    if _fault(name) is None:
        raise ModuleNotFoundError(f"backend '{name}' is not installed: {BACKENDS[name].install}", name=name)
    if lacks := BACKENDS[name].lacks:
        raise ImportError(f"backend '{name}' is installed but {lacks}", name=name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@contextmanager
def unforced() -> Iterator[None]:
    """Within the block, backends are chosen as if none was asked for: for what must be exact in double precision."""
    token = _forced.set(None)
    try:
        yield
    finally:
        _forced.reset(token)


def fastest(op: str, pos: Tensor, size: int) -> Callable[..., Tensor] | None:
    """The function to compute `op` with, or None for its reference form."""
    if name := _asked_for(op, pos):
        return _function(name, op)
    for name in ORDER.get((op, pos.device.type), ()):
        backend = BACKENDS[name]
        if size <= backend.limits[op] and not backend.refuses(pos, op) and backend.installed:
            return _function(name, op)
    return None


def forced(op: str, x: Tensor) -> Callable[..., Tensor] | None:
    """The function of the backend that was asked for, if it has this operation; else None, and for whole numbers."""
    if not x.is_floating_point():  # such as counts of a plan: torch's sums of them are exact
        return None
    return None if (name := _asked_for(op, x)) is None else _function(name, op)


def untraced(op: str, *tensors: Tensor) -> Callable[..., Tensor] | None:
    """The function to compute `op` with; None where operations are traced or where a dispatch mode watches them."""
    hidden = any(traced(t) for t in tensors) or torch._C._len_torch_dispatch_stack()
    return None if hidden else fastest(op, tensors[0], 0)


def without_gradient(op: str, x: Tensor, *weights: Tensor) -> Callable[..., Tensor] | None:
    """The function to compute `op` with, which reads the tensors' memory itself; None where somebody asks for
    gradients, where dtypes or devices differ, in half precision and where autocast chooses it."""
    tensors = x, *weights
    graded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    graded = graded or torch.autograd.forward_ad._current_level >= 0
    mixed = any((t.dtype, t.device) != (x.dtype, x.device) for t in weights) or torch.is_autocast_enabled(x.device.type)
    mixed = mixed or x.dtype not in (torch.float32, torch.float64)  # where numba was asked for, `fastest` would raise
    return None if graded or mixed else untraced(op, *tensors)


def fused(op: str, x: Tensor, centers: int, dim: int) -> bool:
    """Whether a kernel clusters windows of so many centers with vectors of so many channels, in the precision of x.

    A window whose centers, padded, do not fit on the chip is left to batched products, even if the kernel is asked for.
    """
    return _fused(op, x.device.type, x.dtype, centers, dim)


def _fused(op: str, device: str, dtype: torch.dtype, centers: int, dim: int) -> bool:
    if _forced.get() is None and (op, device) not in ORDER:
        return False
    numbers = math.prod(max(2 ** (size - 1).bit_length(), 16) for size in (centers, dim))  # as the kernel pads them
    room = numbers * (2 if dtype == torch.bfloat16 else 8 if dtype == torch.float64 else 4)
    if room > BACKENDS["triton"].limits[op]:
        return False
    return fastest(op, torch.empty(0, dtype=dtype, device=device), room) is not None


# torch.compiler.assume_constant_result, which would import the compiler here: a graph keeps what was chosen when it was
# traced, as it cannot look at the block that it runs in.
_fused._dynamo_marked_constant = True


class Table(list):
    """Rows that print as a table."""

    def __str__(self) -> str:
        cells = [("backend", "installed", "in use for, or how to install")]
        for row in self:
            there = row["installed"]
            asked = [f"{' and '.join(row['untimed'])} if asked for, not timed yet"] if row["untimed"] else []
            use = "; ".join(row["in use"] + asked) or "-"
            cells.append((row["name"], "yes" if there else "no", use if there else row["to install"]))
        return "\n".join(f"{a:<14} {b:<10} {c}" for a, b, c in cells)

    __repr__ = __str__


def backends() -> list[dict[str, object]]:
    """What there is, a row a backend, that print as a table: name, operations, installed, in use, untimed, to install.

    In use are those that single precision gets; with a limit, larger inputs get the next one that has the operation.
    """
    used: dict[str, list[str]] = {name: [] for name in BACKENDS}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for op in EVERY:
            x = torch.empty(0, 3, device=device, dtype=torch.int64 if op in CELLS else None)
            for name, limit in _in_turn(op, x):
                note = "" if limit == ANY else f" ({UNITS[op].format(limit)})"
                used[name].append(f"{op} on {device}{note}")
    return Table(
        {
            "name": backend.name,
            "operations": list(backend.limits),
            "installed": backend.installed,
            "in use": used[backend.name],
            "untimed": list(backend.untimed),
            "to install": backend.lacks,
        }
        for backend in BACKENDS.values()
    )


def _in_turn(op: str, x: Tensor) -> Iterator[tuple[str, float]]:
    """The backends that compute an operation, and up to which size."""
    forced = _forced.get()
    if forced is not None and op in BACKENDS[forced].limits:
        if not BACKENDS[forced].refuses(x, op):
            yield forced, ANY
        return
    for name in ORDER.get((op, x.device.type), ()):
        backend = BACKENDS[name]
        if backend.installed and not backend.refuses(x, op):
            yield name, backend.limits[op]
            if backend.limits[op] == ANY:
                return
    yield "torch", ANY


def _asked_for(op: str, x: Tensor) -> str | None:
    """The forced backend, if there is one with this operation."""
    name = _forced.get()
    if name is None or op not in BACKENDS[name].limits:
        return None
    if reason := BACKENDS[name].refuses(x, op):
        raise ValueError(reason)
    return name


def _function(name: str, op: str) -> Callable[..., Tensor] | None:
    # torch's compiler must not look into what numba compiles. It takes seconds to import: where it is not, nobody does.
    return _loaded(name, op, name == "numba" and "torch._dynamo" in sys.modules)


@cache
def _loaded(name: str, op: str, hidden: bool) -> Callable[..., Tensor] | None:
    if name == "torch":
        return None
    function = getattr(import_module(f"pointmix.ops.fast.{name}"), op)
    return torch.compiler.disable(function) if hidden else function


@cache
def _fault(name: str) -> str | None:
    """Why a backend cannot be used: None if its library is not there, empty if nothing is wrong with it."""
    if find_spec(name) is None:
        return None
    try:
        if name != "torch":
            import_module(f"pointmix.ops.fast.{name}")
        if name == "numba" and import_module("numba").config.DISABLE_JIT:
            return "NUMBA_DISABLE_JIT is set"
    except Exception as error:  # built for another version of torch, say; what it raises is the library's choice
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""
