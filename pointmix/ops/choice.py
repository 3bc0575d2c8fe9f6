"""Who computes neighborhoods: the plain torch form, or a library or kernel that finds the same points faster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor


@dataclass(frozen=True)
class Backend:
    """A way to compute some of the operations.

    `limits` names the operations, and up to which size it is worth taking, or takes any: the points of the largest
    set for "farthest_points", k for "knn". `pointmix.ops.fast` has one module a backend with a function an operation.
    """

    name: str
    install: str
    limits: dict[str, float]
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

    @property
    def installed(self) -> bool:
        return _found(self.name)

    def refuses(self, pos: Tensor) -> str:
        """Why it cannot take these positions; empty if it can."""
        devices = self.devices
        if self.name == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
            devices = (*devices, "cpu")
        if pos.device.type not in devices:
            return f"backend '{self.name}' runs on {' and '.join(devices)}, but the positions are on {pos.device.type}"
        if pos.dtype not in self.dtypes:
            return f"backend '{self.name}' takes {' and '.join(map(str, self.dtypes))} positions, got {pos.dtype}"
        return ""


ANY = float("inf")
SINGLE = (torch.float32,)
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("torch", "pip install torch", {"farthest_points": ANY, "knn": ANY}),
        Backend("fpsample", "pip install 'fpsample>=1.0.2'", {"farthest_points": 8192}, ("cpu",), SINGLE),
        Backend("scipy", "pip install scipy", {"farthest_points": ANY, "knn": ANY}, ("cpu",)),
        Backend("triton", "pip install triton", {"farthest_points": 16384, "knn": 128}, ("cuda",), SINGLE),
        Backend(
            "torch_cluster",
            "pip install --no-build-isolation torch-cluster (compiles for some minutes)",
            {"farthest_points": ANY, "knn": 48},
        ),
        Backend(
            "pytorch3d",
            "see https://github.com/facebookresearch/pytorch3d/blob/main/INSTALL.md",
            {"farthest_points": ANY, "knn": 48},
            dtypes=SINGLE,
        ),
    )
}
# Without an order given, the first that is installed and takes the positions; torch takes all.
ORDER = {
    ("farthest_points", "cpu"): ("fpsample", "scipy"),
    ("farthest_points", "cuda"): ("triton", "torch_cluster", "pytorch3d"),
    ("knn", "cpu"): ("scipy",),
    ("knn", "cuda"): ("triton", "pytorch3d"),
}
_forced: ContextVar[str | None] = ContextVar("backend", default=None)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, one backend computes every operation that it has; "torch" is the plain form of all.

    Raises:
        ValueError: if there is no backend of that name, and at an operation on positions that it does not take.
        ModuleNotFoundError: if its library is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend '{name}', expected one of {', '.join(BACKENDS)}")
    if not BACKENDS[name].installed:
        raise ModuleNotFoundError(f"backend '{name}' is not installed: {BACKENDS[name].install}", name=name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def fastest(op: str, pos: Tensor, size: int) -> Callable[..., Tensor] | None:
    """The function to compute `op` with, or None for its plain form."""
    return _function(_chosen(op, pos, size), op)


def backends() -> list[dict[str, object]]:
    """What there is, a row a backend: name, operations, installed, in use (for single precision), how to install."""
    rows = []
    for backend in BACKENDS.values():
        used = [
            f"{op} on {device}"
            for op, device in ORDER
            if (device == "cpu" or torch.cuda.is_available())
            and _chosen(op, torch.empty(0, 3, device=device), 1) == backend.name
        ]
        rows.append(
            {
                "name": backend.name,
                "operations": list(backend.limits),
                "installed": backend.installed,
                "in use": used,
                "install": backend.install,
            }
        )
    return rows


def _chosen(op: str, pos: Tensor, size: int) -> str:
    forced = _forced.get()
    if forced is not None and op in BACKENDS[forced].limits:
        if reason := BACKENDS[forced].refuses(pos):
            raise ValueError(reason)
        return forced
    for name in ORDER.get((op, pos.device.type), ()):
        backend = BACKENDS[name]
        if size <= backend.limits[op] and not backend.refuses(pos) and backend.installed:
            return name
    return "torch"


def _function(name: str, op: str) -> Callable[..., Tensor] | None:
    return None if name == "torch" else getattr(import_module(f"pointmix.ops.fast.{name}"), op)


@cache
def _found(module: str) -> bool:
    return find_spec(module) is not None
